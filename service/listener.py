"""The socket that is listened on."""

from __future__ import annotations

import socket


class Listener(socket.socket):
    """A listening socket that keeps its backlog.

    asyncio takes one number for how many connections may wait and for how many it accepts at a time. A worker that
    accepts all that wait leaves its fellows none, so it is told 1, and the backlog is kept here.
    """

    BACKLOG = 2048  # as uvicorn has it

    def listen(self, _: int = 0, /) -> None:
        """Listen, with room for many connections that wait to be accepted."""
        super().listen(self.BACKLOG)
