"""The listening socket."""

from __future__ import annotations

import errno
import socket
from typing import Any

EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}  # out of files or memory for a connection


class Listener(socket.socket):
    """A listening socket that keeps its own backlog, and logs once when no connection can be accepted.

    asyncio has one parameter for two things: the backlog, and how many connections it accepts in a row. A worker that
    accepts every waiting connection leaves none to the other workers, so asyncio is given 1, and `listen` uses BACKLOG.

    If a connection cannot be accepted, for example because the process has reached its limit of open files, asyncio
    logs that and tries again after a second; but first it goes on with the rest of the row and logs each failure. So
    the next call after a failure raises BlockingIOError, which tells asyncio that no connection waits.
    """

    BACKLOG = 2048  # uvicorn's default

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.exhausted = False  # whether the last call failed because of open files or memory

    def accept(self) -> tuple[socket.socket, Any]:
        """Return a connection and its address.

        Raises BlockingIOError if none waits, and any other OSError if one waits that cannot be accepted.
        """
        if self.exhausted:
            self.exhausted = False
            raise BlockingIOError
        try:
            return super().accept()
        except OSError as error:
            self.exhausted = error.errno in EXHAUSTED
            raise

    def listen(self, _: int = 0, /) -> None:
        """Listen with `BACKLOG`, whatever backlog is asked for."""
        super().listen(self.BACKLOG)
