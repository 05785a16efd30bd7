"""The application: what `uvicorn` runs and what tests call. Nothing happens at import."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

from fastapi import FastAPI

from models.version import VERSION
from service import openapi
from service.access import Access
from service.errors import install_handlers
from service.limits import BodyLimit
from service.metrics import Metrics
from service.registry import Registry
from service.routes import predicting, router
from service.served import ServedModel
from service.settings import Settings
from service.v2.routes import inferring
from service.v2.routes import router as v2
from service.v2.stats import Tally
from service.workers import Workers


def create_app(settings: Settings) -> FastAPI:
    """Return an application that serves what `settings` ask for; raises Misconfigured if that is nothing.

    Models load once it is started, while it already answers: /health/ready says when they all have.
    """
    registry = Registry.of(settings)
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with Workers(settings.threads) as workers:
            app.state.workers = workers
            loading = asyncio.create_task(
                registry.load(lambda name, version: workers.run(ServedModel.load, name, version, settings))
            )
            try:
                yield
            finally:
                loading.cancel()
                with suppress(asyncio.CancelledError):
                    await loading

    app = FastAPI(
        title="Spikeserve",
        version=VERSION,
        description="Serves spiking neural networks. Every request starts from rest; the answer is spike counts and "
        'a class. Every error is `{"error": "<one sentence>"}`.',
        lifespan=lifespan,
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # else it looks for a provider at each request
        # An included router would match every path twice over.
        routes=[*predicting.routes, *inferring.routes, *router.routes, *v2.routes],
    )
    app.state.registry = registry
    app.state.metrics = metrics
    app.state.settings = settings
    app.state.tally = Tally()
    install_handlers(app)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(Access, metrics=metrics)  # the last one added is the first that sees a request
    app.openapi = partial(openapi.document, app, registry)  # type: ignore[method-assign]
    return app
