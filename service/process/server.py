"""A server that ends as it should: what it accepted is answered, what comes later is told 503, and nothing stays.

At the first signal /health/ready says no and new requests are refused, while the port stays open for whoever has not
noticed yet. Once no request is left (and `drain_seconds` are over) it closes the port and ends with status 0. After
`shutdown_seconds` what is left is answered 503, and the status is 1; 1 s later the process ends, whatever still runs. A
signal that comes again ends it at once, unless it is one of several workers.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from math import ceil
from threading import Timer
from time import monotonic
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI

from service.http.services import Services
from service.process.connections import ConnectionLimits, abort_connections, connection_class, requests_in_progress
from service.process.listener import Listener
from service.settings import Settings

UNFINISHED = 1  # the exit status where a request or a thread outlasted the grace period
LAST_WORDS = 0.25  # seconds for the answers at the end of the grace period
WATCH_SECONDS = 0.1  # how often to look whether to end

log = structlog.get_logger()


class Server(uvicorn.Server):
    """uvicorn, with an end of its own. `parent` is a pipe that ends with the process that started this one, if any."""

    def __init__(self, app: FastAPI, settings: Settings, parent: int | None = None) -> None:
        services: Services = app.state.services
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                http=connection_class(
                    ConnectionLimits(
                        settings.header_seconds,
                        settings.answer_seconds,
                        services.budget,
                        services.metrics.requests.count_refused,
                    )
                ),
                loop="asyncio",  # uvloop was measured to answer no more requests here
                ws="none",
                server_header=False,
                # How many connections to accept at a time: one leaves the others to the other workers.
                backlog=Listener.BACKLOG if parent is None else 1,
            )
        )
        self.registry = services.registry
        self.settings = settings
        self.parent = parent
        self.frozen = False  # whether the garbage collector was told to leave alone what was loaded at the start
        self.asked: float | None = None  # when it was asked to end
        self.status = 0  # to exit with

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        if self.parent is not None:
            asyncio.get_running_loop().add_reader(self.parent, self._orphaned)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  (a signal handler's signature)
        """Begin to drain, or end at once if that has begun."""
        if self.parent is not None and (sig == signal.SIGINT or self.asked is not None):
            return  # it may have been sent to the whole group; the parent says what to make of it
        if self.asked is not None:
            os._exit(128 + sig)
        self._drain()

    def _orphaned(self) -> None:
        if self.parent is not None and self.asked is None:
            asyncio.get_running_loop().remove_reader(self.parent)
            self._drain()

    def _drain(self) -> None:
        if not self.started:
            os._exit(0)  # it has accepted nothing, and what it loads first may take long
        self.asked = monotonic()
        self.registry.draining = True
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a terminal that closes sends it twice, and so does systemd
        late = Timer(self.settings.shutdown_seconds + 1, os._exit, (UNFINISHED,))
        late.daemon = True
        late.start()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until asked to end, and return once the port and every connection are closed."""
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self._watch())
            await super().serve(sockets)
            watching.cancel()

    async def _watch(self) -> None:
        """Have uvicorn close the port once what was accepted is answered, or the time for that is over."""
        while not self._may_close():
            if self.registry.first_load_over and not self.frozen:
                # What is loaded now stays; a collector that goes through all of it held requests up for 50 ms, several
                # times a second.
                gc.collect()
                gc.freeze()
                self.frozen = True
            await asyncio.sleep(WATCH_SECONDS)
        left = self._left()
        if left == 0:
            await self._give_up()
        # Uvicorn waits for connections to close, and at its timeout logs that it cancels tasks, even if there are none:
        # so the connections are cut off before that.
        asyncio.get_running_loop().call_later(left + LAST_WORDS, self._cut_off)
        self.config.timeout_graceful_shutdown = ceil(left + 2 * LAST_WORDS)
        self.should_exit = True

    def _may_close(self) -> bool:
        if self.asked is None:
            return False
        drained = monotonic() - self.asked >= self.settings.drain_seconds
        return self._left() == 0 or (drained and not requests_in_progress(self))

    def _left(self) -> float:
        """Return how much of the grace period is left."""
        return 0.0 if self.asked is None else max(0.0, self.asked + self.settings.shutdown_seconds - monotonic())

    async def _give_up(self) -> None:
        """Cancel the requests that are left, so that each is answered 503 (`service.http.access`)."""
        if tasks := requests_in_progress(self):
            self.status = UNFINISHED
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=LAST_WORDS)

    def _cut_off(self) -> None:
        """Close the connections whose clients have not read their answers."""
        if abort_connections(self):
            self.status = UNFINISHED
