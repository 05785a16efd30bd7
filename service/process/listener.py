"""The socket that is listened on."""

from __future__ import annotations

import errno
import socket
from typing import Any

EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}  # nothing is left to make a connection of


class Listener(socket.socket):
    """A listening socket that keeps its backlog, and says once that no more can be accepted.

    asyncio takes one number for how many connections may wait and for how many it accepts at a time. A worker that
    accepts all that wait leaves the others none, so it is told 1, and the backlog is kept here.

    Where none can be accepted, as where the process has all the files open that it may, asyncio logs that and will try
    again a second later, but first it tries as many more as it accepts at a time, and logs each of them. So after the
    first failure it is told that no other waits.
    """

    BACKLOG = 2048  # as uvicorn has it

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.exhausted = False  # whether the last attempt to accept failed for that

    def accept(self) -> tuple[socket.socket, Any]:
        """Return a connection and its address, or raise the OSError that kept it; BlockingIOError is none waiting."""
        if self.exhausted:
            self.exhausted = False
            raise BlockingIOError
        try:
            return super().accept()
        except OSError as error:
            self.exhausted = error.errno in EXHAUSTED
            raise

    def listen(self, _: int = 0, /) -> None:
        """Listen, with room for many connections that wait to be accepted."""
        super().listen(self.BACKLOG)
