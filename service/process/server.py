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

from service.catalog.registry import Registry
from service.process.connections import Terms, connections
from service.process.listener import Listener
from service.settings import Settings

UNFINISHED = 1  # the exit status where a request or a thread outlasted the grace period
LAST_WORDS = 0.25  # seconds for what is told at the end of the grace period

log = structlog.get_logger()


class Server(uvicorn.Server):
    """uvicorn, with an end of its own; `supervised` where it is one of several workers."""

    def __init__(self, app: FastAPI, settings: Settings, *, supervised: bool = False) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                http=connections(
                    Terms(
                        settings.header_seconds,
                        settings.answer_seconds,
                        app.state.pending,
                        app.state.metrics.requests.count_refused,
                    )
                ),
                loop="asyncio",  # uvloop was measured to answer no more requests here
                ws="none",
                server_header=False,
                # How many connections to accept at a time: one leaves the others to the other workers.
                backlog=1 if supervised else Listener.BACKLOG,
            )
        )
        self.registry: Registry = app.state.registry
        self.settings = settings
        self.supervised = supervised
        self.frozen = False  # whether the garbage collector was told to leave alone what was loaded at the start
        self.asked: float | None = None  # when it was asked to end
        self.status = 0  # to exit with

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  (a signal handler's signature)
        """Begin to drain, or end at once if that has begun."""
        if self.supervised and (sig == signal.SIGINT or self.asked is not None):
            return  # it may have been sent to the whole group; the supervisor says what to make of it
        if self.asked is not None:
            os._exit(128 + sig)
        self.drain()

    def drain(self) -> None:
        """Begin to end, if that has not begun."""
        if self.asked is not None:
            return
        if not self.started:
            os._exit(0)  # it has accepted nothing, and what it loads first may take long
        self.asked = monotonic()
        self.registry.draining = True
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a terminal that closes sends it twice, and so does systemd
        late = Timer(self.settings.shutdown_seconds + 1, os._exit, (UNFINISHED,))
        late.daemon = True
        late.start()

    async def on_tick(self, counter: int) -> bool:
        """Return whether to close the port: what was accepted is answered, or the time for that is over."""
        if self.registry.first_load_over and not self.frozen:
            # What is there now stays; to go through all of it held requests up for 50 ms, several times a second.
            gc.collect()
            gc.freeze()
            self.frozen = True
        if self.asked is not None:
            drained = monotonic() - self.asked >= self.settings.drain_seconds
            if self._left() == 0 or (drained and not self.server_state.tasks):
                self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the port and every connection; what the grace period was too short for is answered 503."""
        left = self._left()
        if left == 0:
            await self._give_up()
        # Uvicorn waits for connections to close, and at its timeout logs that it cancels tasks, be there none: so the
        # connections are cut off before that.
        asyncio.get_running_loop().call_later(left + LAST_WORDS, self._cut_off)
        self.config.timeout_graceful_shutdown = ceil(left + 2 * LAST_WORDS)
        await super().shutdown(sockets)

    def _left(self) -> float:
        """Return how much of the grace period is left."""
        return 0.0 if self.asked is None else max(0.0, self.asked + self.settings.shutdown_seconds - monotonic())

    async def _give_up(self) -> None:
        """Cancel the requests that are left, so that each is told (`service.http.access`)."""
        if tasks := set(self.server_state.tasks):
            self.status = UNFINISHED
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=LAST_WORDS)

    def _cut_off(self) -> None:
        """Close the connections whose clients have not taken their answers."""
        for connection in self.server_state.connections:
            if connection.transport.get_write_buffer_size() > 0:
                self.status = UNFINISHED
            connection.transport.abort()
