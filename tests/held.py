"""What an app must have given back at its end. Every app that a test makes is checked, without the test asking for it.

`watch` goes around `create_app`. When such an app shuts down, everything that requests and sessions take must be back:
bytes, places in queues, sessions, timers, tasks. Between two tests that share an app, whatever only a request takes.
What is found fails the test that ended last. `descriptors` looks at the sockets and pipes of a module's tests.
"""

import asyncio
import gc
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial, wraps
from pathlib import Path
from typing import Any

from fastapi import FastAPI

import spikeserve.service
from spikeserve.service.catalog import load_process
from spikeserve.service.services import Services
from tests import forks

SERVICE = str(Path(spikeserve.service.__file__).resolve().parent)
FILES = Path("/proc/self/fd")
NEVER_LONGER = 0.1  # seconds; what waits for so short a time is no leak: a run that waits for others to share it

SWITCH_SECONDS = sys.getswitchinterval()  # of the interpreter, which work may change while it goes on

running: list[FastAPI] = []  # the apps that have started and have not shut down
found: list[str] = []  # what they held at the end


def by_requests(services: Services) -> dict[str, Any]:
    """List what requests hold, by name; values that are 0 or empty stay in the list."""
    scheduler = services.batcher.scheduler
    queues = list(scheduler.queues.values())
    return {
        "memory budget": services.budget.reserved,
        "decoded bytes": scheduler.decoded_bytes,
        "queue depths": sum(queue.depth for queue in queues),
        "jobs that wait": [job for queue in queues for jobs in queue.waiting for job in jobs],
        "jobs that are not decoded": [job for lane in scheduler.undecoded for job in lane],
        "requests in flight": services.metrics.requests.in_flight,
        "locks of unknown names": services.loader.locks.keys() - services.catalog.models - services.catalog.unloaded,
        "interval of switches": sys.getswitchinterval() - SWITCH_SECONDS,
    }


def at_the_end(services: Services) -> dict[str, Any]:
    """List what an app still holds after it has shut down, by name."""
    scheduler, places = services.batcher.scheduler, services.places
    versions = [version for versions in services.catalog.models.values() for version in versions.values()]
    return by_requests(services) | {
        "runs": [run for queue in scheduler.queues.values() for run in queue.running] + list(scheduler.began),
        "bodies being decoded": sum(scheduler.decoding),
        "sessions": places.usage.count,
        "bytes of states": places.usage.state_bytes,
        "clients with sessions": list(places.by_client),
        "open": list(places.open),
        "sequences": list(services.sequences.open),
        "requests of models": sum(each.model.requests.count for each in versions if each.model is not None),
        "loads": list(services.loader.loads),
    }


def on_the_loop() -> dict[str, Any]:
    """Return the service's own timers and tasks on the running event loop."""
    loop: Any = asyncio.get_running_loop()
    timers = [each for each in getattr(loop, "_scheduled", ()) if not each.cancelled()]
    tasks = [each for each in asyncio.all_tasks() if not each.done()]
    return {
        "timers": [
            each for each in timers if each.when() > loop.time() + NEVER_LONGER and _is_ours(_code(each._callback))
        ],
        "tasks": [each for each in tasks if _is_ours(getattr(each.get_coro(), "cr_code", None))],
    }


def _code(callback: Any) -> Any:
    while isinstance(callback, partial):
        callback = callback.func
    return getattr(callback, "__code__", None)


def _is_ours(code: Any) -> bool:
    return code is not None and str(Path(code.co_filename).resolve()).startswith(SERVICE)


def watch(create_app: Callable[..., FastAPI]) -> Callable[..., FastAPI]:
    """Return `create_app` with apps that are looked at when they shut down."""

    @wraps(create_app)
    def create(*arguments: Any, **options: Any) -> FastAPI:
        app = create_app(*arguments, **options)
        served = app.router.lifespan_context

        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[Any]:
            running.append(app)
            try:
                async with served(app) as state:
                    yield state
            finally:
                running.remove(app)
            for _ in range(20):  # so that what was cancelled ends, and results of threads arrive
                await asyncio.sleep(0)
            note("an app that has shut down", at_the_end(app.state.services) | on_the_loop())

        app.router.lifespan_context = lifespan
        return app

    return create


def note(holder: str, held: dict[str, Any]) -> None:
    """Note what is held, to be told at the end of the test."""
    if held := {name: value for name, value in held.items() if value}:
        found.append(f"{holder} holds {held}")


def check() -> None:
    """Fail where anything is held that should not be: a test has ended."""
    for app in running:
        note("an app between two tests", by_requests(app.state.services))
    told, found[:] = "; ".join(found), []
    assert not told, told


@contextmanager
def no_growth(most: int) -> Iterator[None]:
    """Fail where this process has more than `most` objects, or entries of a dict, more at the end.

    The objects are containers, and what has attributes.
    """
    before = _objects()
    yield
    grown = _objects() - before
    assert grown <= most, f"{grown} objects and entries more than before, expected at most {most}"


def _objects() -> int:
    gc.collect()
    return sum(1 + (len(each) if issubclass(type(each), dict) else 0) for each in gc.get_objects())


@contextmanager
def descriptors() -> Iterator[None]:
    """Note the sockets and pipes that are there at the end and were not at the begin."""
    before = _descriptors()
    yield
    if _descriptors() - before:
        gc.collect()  # what a test forgot to close is no leak of the service
    note("this process", {"descriptors": _descriptors() - before})


def _descriptors() -> set[str]:
    """Return the sockets and pipes of this process, but for those of fork servers, which live on."""
    own = set()
    for file in FILES.iterdir() if FILES.is_dir() else ():
        with suppress(OSError):
            own.add(os.readlink(file))  # noqa: PTH115  (it leads to no file)
    servers = [server.running for server in list(load_process._servers.values())]
    for end in {*forks.own_descriptors(), *(running[1].fileno() for running in servers if running is not None)}:
        own.discard(os.readlink(FILES / str(end)))  # noqa: PTH115
    return {name for name in own if name.startswith(("socket:", "pipe:"))}
