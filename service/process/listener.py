"""The socket that a server listens on. Several workers share it, and a connection is for the one that has the fewest.

The worker that accepts a connection serves it to its end. Without a rule the first worker to run accepts all waiting
connections, and the others idle.
"""

from __future__ import annotations

import os
import socket
from mmap import mmap
from time import monotonic
from typing import Any

from spikeserve.service.errors import Misconfigured

NOT_SERVING = 2**31 - 1  # as the number of a worker's connections
PATIENCE_SECONDS = 0.002  # a connection waits for a worker that has fewer; that one may be busy or stuck


def connections_of(workers: int) -> memoryview:
    """Return how many connections each worker has open, by its number, in memory that they and the supervisor share."""
    counts = memoryview(mmap(-1, 4 * workers)).cast("i")
    for number in range(workers):
        counts[number] = NOT_SERVING
    return counts


class Counted(socket.socket):
    """A connection that its worker counts until it is closed."""

    counts: memoryview
    number: int

    def close(self) -> None:
        """Close it; a second time does nothing."""
        if self.fileno() != -1:
            self.counts[self.number] -= 1
        super().close()


class Listener(socket.socket):
    """A listening socket that keeps its own backlog.

    asyncio has one parameter for two things: the backlog, and the number of connections to accept in a row. A worker
    must leave waiting connections to others. At its limit of open files it would also log an error for each in a row.
    So asyncio is given 1, and `listen` uses BACKLOG.
    """

    BACKLOG = 2048  # uvicorn's default
    counts: memoryview | None = None  # of several workers
    number = 0  # of this one
    patient_until = 0.0

    def listen(self, _: int = 0, /) -> None:
        """Listen with `BACKLOG`, whatever backlog is asked for; a worker does so once it is ready to accept."""
        super().listen(self.BACKLOG)
        if self.counts is not None:
            self.counts[self.number] = 0

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection; raises BlockingIOError while it is left to a worker that has fewer."""
        if self.counts is None:
            return super().accept()
        if self.counts[self.number] > min(self.counts):
            now = monotonic()
            if now > self.patient_until + PATIENCE_SECONDS:
                self.patient_until = now + PATIENCE_SECONDS
            if now < self.patient_until:
                os.sched_yield()
                raise BlockingIOError
        accepted, address = super().accept()
        connection = Counted(accepted.family, accepted.type, accepted.proto, accepted.detach())
        connection.counts, connection.number = self.counts, self.number
        self.counts[self.number] += 1
        return connection, address


def listen(host: str, port: int) -> Listener:
    """Return a socket that listens there; raises Misconfigured."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With IPPROTO_TCP given, asyncio turns Nagle's algorithm off, which would delay each answer by 40 ms.
    listener = Listener(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if os.name == "posix":  # on Windows it would let another server take the port as well
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise Misconfigured(f"--host, --port: cannot listen on {host} port {port}: {error.strerror}") from error
    return listener
