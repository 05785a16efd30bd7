"""A server with graceful shutdown: accepted requests are answered, later ones get 503.

After the first signal /health/ready answers 503 and new requests are refused with 503, but the port stays open for load
balancers that have not noticed yet. Once no request is in progress (and `drain_seconds` have passed) the port closes
and the process exits with status 0. After `shutdown_seconds` the remaining requests are answered 503 and the status is
1; one second later the process exits, whatever still runs. A second signal ends it at once, unless it is one of several
workers.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import time
from math import ceil
from threading import Event, Thread
from time import monotonic
from types import FrameType
from typing import Protocol

import structlog
import uvicorn
from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI

from spikeserve.service.catalog.threads import Threads
from spikeserve.service.http.gate import Gate
from spikeserve.service.process.connections import (
    ConnectionLimits,
    abort_connections,
    cancel_requests,
    connection_class,
    requests_in_progress,
)
from spikeserve.service.process.protocols import protocols_of
from spikeserve.service.process.turns import TimedSelector
from spikeserve.service.process.websockets import MAX_MESSAGE_BYTES, websocket_class
from spikeserve.service.services import Services
from spikeserve.service.settings import Settings


class Running(Protocol):
    """A protocol that listens, and how it ends: `end_streams` while the server drains, again and again, then `stop`.

    It drains until no request is `in_progress`. If the grace period ends before, `cancel_all` comes first: it answers
    the remaining requests, and returns whether there were any. Requests of the last moment have some seconds yet.
    """

    @property
    def in_progress(self) -> bool: ...  # noqa: D102
    def end_streams(self) -> None: ...  # noqa: D102
    async def cancel_all(self) -> bool: ...  # noqa: D102
    async def stop(self, seconds: float) -> None: ...  # noqa: D102


UNFINISHED = 1  # the exit status if a request or a thread outlasts the grace period
LAST_ANSWER_SECONDS = 0.25  # for the 503 answers at the end of the grace period
WATCH_SECONDS = 0.1  # how often to check whether to shut down
# The threads that look into the repository (`asyncio.to_thread`), and those that read the files of /docs. Without these
# bounds asyncio would start up to 32 of its own, and anyio up to 40, whenever it needs them.
FILE_THREADS = 4
PAGE_THREADS = 1

log = structlog.get_logger()


class Loop(asyncio.SelectorEventLoop):
    """asyncio's own event loop, except that it starts no thread at its end, to wait for those of its executor.

    `Server.serve` has waited for them, and a server may not be allowed another thread then.
    """

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Do nothing."""


class Server(uvicorn.Server):
    """uvicorn's server with this graceful shutdown; `supervised` if it is one of several workers."""

    def __init__(self, app: FastAPI, settings: Settings, *, supervised: bool = False) -> None:
        services: Services = app.state.services
        self.selector = TimedSelector(services.iteration)
        requests, budget, seconds = services.metrics.requests, services.budget, settings.client_seconds
        streams = websocket_class(seconds, budget, self.selector)
        lost = services.sequences.connection_lost
        limits = ConnectionLimits(settings.header_seconds, seconds, budget, requests.count_refused, lost)
        super().__init__(
            uvicorn.Config(
                app,
                interface="asgi3",
                log_config=None,
                access_log=False,
                http=connection_class(limits, self.selector, Gate(services), services.batcher, streams),
                ws="none",  # the connections open them
                ws_max_size=MAX_MESSAGE_BYTES,
                ws_per_message_deflate=False,  # a short message could become long
                server_header=False,
                proxy_headers=False,  # with them a client could claim any address, and their check takes 4 µs
                backlog=1,  # see `service.process.listener`
            )
        )
        self.services = services
        self.protocols: list[Running] = []  # beside HTTP
        self.settings = settings
        self.supervised = supervised
        self.stopped_at: float | None = None  # when it was asked to stop
        self.accepted: set[object] = set()  # the requests in progress when it was asked to stop
        self.draining = Event()
        self.status = 0  # the exit status

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve on asyncio's own event loop, with the timed selector; uvloop was measured to be no faster here."""
        with asyncio.Runner(loop_factory=lambda: Loop(self.selector)) as runner:
            runner.run(self.serve(sockets))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen for HTTP, and for each protocol whose port is set."""
        await super().startup(sockets)
        host = sockets[0].getsockname()[0] if sockets else self.settings.host
        for protocol, port in protocols_of(self.settings).values():
            self.protocols.append(await protocol.start(self.services, host, port))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  (a signal handler's signature)
        """Start to drain; exit at once if it is draining already."""
        if self.stopped_at is not None and not self.supervised:
            os._exit(128 + sig)
        # It may have gone to the whole process group; of several workers, the supervisor decides.
        if not (self.supervised and sig == signal.SIGINT):
            self.drain()

    def drain(self) -> None:
        """Start to drain, unless it is draining already."""
        if self.stopped_at is not None:
            return
        if not self.started:
            os._exit(0)  # it has accepted no connection, and loading its models may take long
        self.stopped_at = monotonic()
        self.accepted = requests_in_progress(self)
        self.services.catalog.draining = True
        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a closing terminal sends it twice, and so does systemd
        self.draining.set()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until asked to stop, and return once the port and every connection are closed."""
        # It starts now: at the end of its life, a server may not be allowed another thread.
        Thread(target=self._end_late, name="end", daemon=True).start()
        current_default_thread_limiter().total_tokens = PAGE_THREADS
        with Threads(FILE_THREADS, "files") as files:
            asyncio.get_running_loop().set_default_executor(files.pool)
            async with asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(self._watch())
                await super().serve(sockets)
                watching.cancel()

    def _end_late(self) -> None:
        """End the process a second after the grace period, whatever still runs."""
        self.draining.wait()
        time.sleep(self.settings.shutdown_seconds + 4 * LAST_ANSWER_SECONDS)
        os._exit(UNFINISHED)

    async def _watch(self) -> None:
        """Let uvicorn shut down once all requests are answered, or the grace period is over."""
        while not self._may_close():
            if self.stopped_at is not None:
                self.services.places.end_all()
                for each in self.protocols:
                    each.end_streams()
            await asyncio.sleep(WATCH_SECONDS)
        left = self._grace_left()
        if left == 0 and requests_in_progress(self):  # each is answered 503, see `service.http.requests`
            self.status = UNFINISHED
            await cancel_requests(self, LAST_ANSWER_SECONDS)
        for each in self.protocols:
            if left == 0 and await each.cancel_all():
                self.status = UNFINISHED
            await each.stop(left)
        # Uvicorn waits for connections to close, and at its timeout it logs that it cancels tasks even if there are
        # none: so the connections are aborted before that.
        seconds = self._grace_left() + LAST_ANSWER_SECONDS
        asyncio.get_running_loop().call_later(seconds, self._abort_connections)
        self.config.timeout_graceful_shutdown = ceil(seconds + LAST_ANSWER_SECONDS)
        self.should_exit = True

    def _may_close(self) -> bool:
        if self.stopped_at is None:
            return False
        drained = monotonic() - self.stopped_at >= self.settings.drain_seconds
        busy = self.accepted & requests_in_progress(self) or any(each.in_progress for each in self.protocols)
        return self._grace_left() == 0 or (drained and not busy)

    def _grace_left(self) -> float:
        """Return how many seconds of the grace period are left."""
        return max(0.0, (self.stopped_at or 0.0) + self.settings.shutdown_seconds - monotonic())

    def _abort_connections(self) -> None:
        """Close the connections whose clients have not read their answers."""
        if abort_connections(self):
            self.status = UNFINISHED


def keep_from_collector() -> None:
    """Keep what was loaded from the garbage collector: it lives on, and looking at it takes 100 ms each time.

    This takes as long, and so it comes before the server is ready.
    """
    gc.collect()
    gc.freeze()
