"""The application: what `uvicorn` runs and what tests call. Nothing happens at import."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import cache, partial

from fastapi import FastAPI
from fastapi.routing import APIRoute

from models.version import VERSION
from service.catalog.registry import Registry
from service.errors import install_handlers
from service.http import openapi
from service.http.access import Access
from service.http.body import BodyLimit
from service.http.control import Control
from service.http.docs import install_docs
from service.http.keys import KeyCheck, KeyRing
from service.http.origins import OriginCheck
from service.http.routes import predicting, router
from service.http.v2 import inferring
from service.http.v2 import router as v2
from service.inference.pending import Pending
from service.inference.scheduler import Scheduler
from service.inference.threads import Workers
from service.settings import Settings
from service.telemetry.metrics.app import Metrics
from service.telemetry.tracing import TraceRequests, Tracing
from service.telemetry.v2_statistics import RequestStats


def create_app(settings: Settings, control_class: type[Control] = Control) -> FastAPI:
    """Return an application that serves what `settings` ask for; raises Misconfigured if that is nothing.

    Models load once it is started, while it already answers: /health/ready says when they all have. `control_class` is
    of what its routes ask of the whole server.
    """
    keys = KeyRing.of(settings)
    registry = Registry.of(settings)
    metrics = Metrics(registry.model_statuses, registry.is_ready)
    stats = RequestStats()
    control = control_class(registry, metrics, stats)
    tracing = Tracing.of(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with Workers(settings.threads) as workers, Workers(settings.threads, "loader") as loaders:
            app.state.scheduler = Scheduler(workers, metrics)
            registry.start(workers, loaders)
            await control.start()
            loading = asyncio.create_task(registry.load_all())
            tasks = [loading, *map(asyncio.create_task, (registry.keep_polling(control.polled), workers.show_life()))]
            try:
                if control.loads_first:
                    await loading
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await control.stop()
                for task in tasks:
                    with suppress(asyncio.CancelledError):
                        await task
                if tracing:
                    await asyncio.to_thread(tracing.shut_down)

    app = FastAPI(
        title="Spikeserve",
        version=VERSION,
        description="Serves spiking neural networks. Every request starts from rest; the answer is spike counts and "
        'a class. Every error is `{"error": "<one sentence>"}`.',
        lifespan=lifespan,
        openapi_url=None,  # see service.http.docs
        redirect_slashes=False,  # it would answer in no form of ours, and lead to whatever Host the client said
        telemetry={"tracing": False, "metrics": False, "logs": False},  # else it looks for a provider at each request
        # An included router would match every path twice over.
        routes=[*predicting.routes, *inferring.routes, *router.routes, *v2.routes],
    )
    app.state.registry = registry
    app.state.control = control
    app.state.metrics = metrics
    app.state.settings = settings
    app.state.pending = Pending(settings.max_pending_bytes)
    app.state.stats = stats
    install_handlers(app)
    document = partial(openapi.document, app, registry, keys)
    install_docs(app, cache(document) if keys.clients else document)  # which takes 10 ms, then for strangers as well
    for route in app.routes:
        if isinstance(route, APIRoute) and route.methods and "GET" in route.methods:
            route.methods.add("HEAD")  # as Starlette's own routes have it
    if keys:
        app.add_middleware(KeyCheck, keys=keys, public_metrics=settings.public_metrics)
    app.add_middleware(OriginCheck)
    app.add_middleware(
        BodyLimit,
        max_bytes=settings.max_body_bytes,
        seconds=settings.body_seconds,
        pending=app.state.pending,
    )
    if tracing:
        app.add_middleware(TraceRequests, tracing=tracing)
    # The last one added is the first that sees a request.
    app.add_middleware(Access, metrics=metrics, registry=registry)
    return app
