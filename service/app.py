"""The application: what `uvicorn` runs and what tests call. All the wiring is here; nothing happens at import."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import cache, partial

from fastapi import FastAPI
from fastapi.routing import APIRoute

from models.version import VERSION
from service.catalog.registry import Registry
from service.catalog.threads import Threads
from service.http import openapi
from service.http.control import LocalControl
from service.http.docs import install_docs
from service.http.errors import install_handlers
from service.http.middleware.keys import KeyCheck, KeyRing
from service.http.middleware.origins import OriginCheck
from service.http.middleware.requests import RequestMiddleware
from service.http.middleware.tracing import TraceMiddleware
from service.http.routes import predicting, router
from service.http.services import Services
from service.http.v2.routes import inferring
from service.http.v2.routes import router as v2
from service.inference.body import BodyLimits
from service.inference.memory import MemoryBudget
from service.inference.pipeline import Pipeline
from service.inference.scheduler import Scheduler
from service.process.fellows import Fellows
from service.process.together import Together
from service.settings import Settings
from service.telemetry.metrics.app import Metrics
from service.telemetry.tracing import Tracing
from service.telemetry.v2_statistics import InferStatistics


def create_app(settings: Settings, fellows: Fellows | None = None, *, loads_first: bool = False) -> FastAPI:
    """Return an application that serves what `settings` ask for; raises Misconfigured if that is nothing.

    Models load once it is started, while it already answers: /health/ready says when they all have. With `loads_first`
    it answers nothing before that.
    """
    keys = KeyRing.of(settings)
    tracing = Tracing.of(settings)
    metrics, infer_statistics = Metrics(), InferStatistics()
    workers, loaders = Threads(settings.threads, "worker"), Threads(settings.threads, "loader")
    registry = Registry.of(settings, loaders)
    budget = MemoryBudget(settings.max_pending_bytes)
    scheduler = Scheduler(workers, metrics, settings)
    pipeline = Pipeline(scheduler, metrics, settings.request_timeout_ms)
    local = LocalControl(registry, workers, metrics, infer_statistics, settings)
    control = Together(fellows or Fellows(), local)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with workers, loaders:

            async def load() -> None:
                await control.join()
                await registry.load_all()

            async def poll() -> None:
                await control.joined.wait()
                await registry.keep_polling()

            loading = asyncio.create_task(load())
            tasks = [loading, *map(asyncio.create_task, (poll(), control.stay(), workers.keep_heartbeat()))]
            try:
                if loads_first:
                    await loading
                yield
            finally:
                for task in tasks:
                    task.cancel()
                control.leave()  # after `stay` was cancelled, which would listen anew
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
    app.state.services = Services(settings, keys, registry, pipeline, control, budget, metrics, infer_statistics)
    install_handlers(app)
    document = partial(openapi.document, app, registry, keys)
    install_docs(app, cache(document) if keys.clients else document)  # which takes 10 ms, then for strangers as well
    for route in app.routes:
        if isinstance(route, APIRoute) and route.methods and "GET" in route.methods:
            route.methods.add("HEAD")  # as Starlette's own routes have it
    if keys:
        app.add_middleware(KeyCheck, keys=keys, public_metrics=settings.public_metrics)
    app.add_middleware(OriginCheck)
    if tracing:
        app.add_middleware(TraceMiddleware, tracing=tracing)
    # The last one added is the first that sees a request.
    limits = BodyLimits(settings.max_body_bytes, settings.body_seconds, budget)
    app.add_middleware(RequestMiddleware, metrics=metrics, registry=registry, limits=limits)
    return app
