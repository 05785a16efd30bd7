"""The application factory: it connects all parts of the service. Importing this module has no effect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import cache, partial

from fastapi import FastAPI
from fastapi.routing import APIRoute

from spikeserve.models.version import VERSION
from spikeserve.service.catalog.catalog import Catalog
from spikeserve.service.catalog.control import Control
from spikeserve.service.catalog.load_process import LoadProcesses
from spikeserve.service.catalog.loader import Listing, Loader, unloaded_versions
from spikeserve.service.catalog.readiness import Readiness
from spikeserve.service.catalog.threads import Threads
from spikeserve.service.http import openapi
from spikeserve.service.http.access import Access
from spikeserve.service.http.answers import install_handlers
from spikeserve.service.http.docs import install_docs
from spikeserve.service.http.requests import RequestMiddleware
from spikeserve.service.http.routes import predicting, router
from spikeserve.service.http.stream import sockets, streaming
from spikeserve.service.http.v2 import inferring
from spikeserve.service.http.v2 import router as v2
from spikeserve.service.inference.decoding.body import BodyLimits
from spikeserve.service.inference.decoding.memory import MemoryBudget, heap_trimmer, keep_trimming
from spikeserve.service.inference.decoding.pieces import Interpreter, Iteration
from spikeserve.service.inference.decoding.readers import make_readers, prepare
from spikeserve.service.inference.protocols.v2.sequences import Sequences
from spikeserve.service.inference.scheduling.batcher import Batcher
from spikeserve.service.inference.scheduling.scheduler import Scheduler
from spikeserve.service.inference.sessions.blob import Blobs, secret_of
from spikeserve.service.inference.sessions.table import EndReason, Places, Sessions
from spikeserve.service.keys import KeyRing
from spikeserve.service.services import Services
from spikeserve.service.settings import Settings
from spikeserve.service.telemetry.metrics import Metrics
from spikeserve.service.telemetry.tracing import Tracing

# Runs compute without the interpreter for milliseconds; what answers, decodes and renders then gets a core sooner. A
# higher value would not do: they hold the interpreter for moments, and would keep it while others have all the cores.
WORKER_NICE = 5


def make_services(settings: Settings, control_class: type[Control], before_ready: Callable[[], None]) -> Services:
    """Make the objects that one app consists of, each of those before it; raises Misconfigured."""
    keys = KeyRing.of(settings)
    tracing = Tracing.of_environment()
    budget = MemoryBudget(settings.max_pending_bytes)
    metrics = Metrics(lambda: budget.reserved)
    workers, loaders = Threads(settings.threads, "worker", WORKER_NICE), Threads(settings.threads, "loader")
    codecs = Threads(1, "codec-short"), Threads(1, "codec-long")
    iteration, places = Iteration(), Places(metrics, settings)
    sequences = Sequences(places, settings)
    scheduler = Scheduler(workers, codecs, Interpreter(iteration), sequences.enter, metrics, settings)
    batcher = Batcher(scheduler, iteration, settings, budget, metrics, tracing)
    sessions = Sessions(scheduler, places, budget, settings)
    listing = Listing.of(settings)
    catalog = Catalog(unloaded_versions(settings, listing.versions), listing.default)
    readiness = Readiness(catalog, workers, settings)
    processes, end_all = LoadProcesses(settings, prepare), partial(places.end_all, EndReason.UNLOADED)
    loader = Loader(settings, listing, catalog, readiness, loaders, processes, make_readers, end_all, before_ready)
    return Services(
        settings,
        iteration,
        (workers, loaders, *codecs),
        keys,
        catalog,
        loader,
        readiness,
        batcher,
        control_class(catalog, loader, readiness, metrics),
        budget,
        metrics,
        places,
        sessions,
        sequences,
        Blobs(secret_of((*keys.clients, *keys.admins))),
        tracing,
    )


@asynccontextmanager
async def running(services: Services) -> AsyncIterator[None]:
    """Run the threads and tasks of an app, and load its models; at the end, what is open ends."""
    control, loader, services.catalog.has_lifespan = services.control, services.loader, True
    with ExitStack() as threads:
        for each in services.threads:
            threads.enter_context(each)
        await control.start()
        loading = asyncio.create_task(loader.load_all())
        polling, beating = loader.keep_polling(control.polled), services.readiness.threads.keep_heartbeat()
        trimming = keep_trimming(services.budget, heap_trimmer())
        tasks = [loading, *map(asyncio.create_task, (polling, trimming, beating, loader.take_over()))]
        try:
            if control.loads_first:
                await loading
            yield
        finally:
            for task in tasks:
                task.cancel()
            services.places.end_all()
            await loader.close()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task
            if services.tracing:
                await asyncio.to_thread(services.tracing.provider.shutdown)  # once it has sent what is left


def create_app(
    settings: Settings, control_class: type[Control] = Control, before_ready: Callable[[], None] = lambda: None
) -> FastAPI:
    """Return an application with these `settings`; raises Misconfigured if the repository holds no model to serve.

    Models load after it has started, while it already answers; /health/ready says when they are loaded. `control_class`
    is how its routes reach all workers when there are several. `before_ready` is called once the first load is over.
    """
    services = make_services(settings, control_class, before_ready)
    services.catalog.has_lifespan = False
    keys = services.keys

    app = FastAPI(
        title="Spikeserve",
        version=VERSION,
        description="Serves spiking neural networks. Every request starts from rest; the answer is spike counts and "
        'a class. Every error is `{"error": "<one sentence>"}`.',
        lifespan=lambda _: running(services),
        openapi_url=None,  # see service.http.docs
        redirect_slashes=False,  # a redirect would not be our JSON, and would lead to whatever Host the client sent
        telemetry={"tracing": False, "metrics": False, "logs": False},  # else FastAPI looks for a provider per request
        # Routes are listed rather than included as routers, which would match every path twice.
        routes=[*predicting.routes, *inferring.routes, *streaming.routes, *sockets, *router.routes, *v2.routes],
    )
    app.state.services = services
    install_handlers(app)
    document = partial(openapi.document, app, services.catalog, keys)
    # Making the document takes 10 ms. With client keys it names no model and never changes, and strangers may read it.
    install_docs(app, cache(document) if keys.clients else document)
    for route in app.routes:
        if isinstance(route, APIRoute) and route.methods and "GET" in route.methods:
            route.methods.add("HEAD")  # Starlette's own routes do this
    app.add_middleware(
        RequestMiddleware,
        access=Access(keys, settings),
        metrics=services.metrics,
        catalog=services.catalog,
        limits=BodyLimits(settings.max_body_bytes, settings.client_seconds, services.budget),
        tracing=services.tracing,
    )
    return app
