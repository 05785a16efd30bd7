"""One request that the application answers, by ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING

import structlog
from starlette.types import ASGIApp, Message, Scope

if TYPE_CHECKING:
    from spikeserve.service.process.connections import Connection

CLOSE, CHUNKED = b"connection: close\r\n", b"transfer-encoding: chunked\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
WITHOUT_BODY = {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}
SCOPE = {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "scheme": "http", "root_path": ""}

log = structlog.get_logger()


class Cycle:
    """A request of a connection, and its answer."""

    def __init__(self, connection: Connection, scope: Scope) -> None:
        self.connection = connection
        self.is_head = scope["method"] == "HEAD"
        self.expects_continue = (b"expect", b"100-continue") in [(n, v.lower()) for n, v in scope["headers"]]
        self.body = bytearray()  # the received part that was not asked for
        self.more_body = True
        self.came = asyncio.Event()  # a part of the body, the end of the answer, or the client's leaving
        self.ended = False  # the answer is complete, or the client has left
        self.head: bytes | None = None  # of the answer once it has begun, until it is sent with the body's first part
        self.left: int | None = None  # the bytes to come of the answer's body, unless it is sent in chunks

    def feed(self, body: bytes, *, more: bool) -> None:
        """Take a part of the body."""
        self.body += body
        self.more_body = more
        self.came.set()

    def end(self) -> None:
        """Note that the answer is complete, or that the client has left."""
        self.ended = True
        self.came.set()

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Have the application answer, in a turn; the connection closes where it fails or gives no answer."""
        try:
            await self.connection.first_turns.begin()
            await app(scope, self.receive, self.send)
        except BaseException:
            log.exception("application_failed")
        if not self.ended:
            self.connection.transport.close()

    async def receive(self) -> Message:
        """Return the part of the body that came since the last call, once one has; or that the client has left."""
        connection = self.connection
        if self.expects_continue and self.head is None and not connection.transport.is_closing():
            connection.transport.write(CONTINUE)
        self.expects_continue = False
        if not self.ended:
            await self.came.wait()
            self.came.clear()
        if self.ended:
            return {"type": "http.disconnect"}
        body, self.body = bytes(self.body), bytearray()
        connection.pace()
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def send(self, message: Message) -> None:
        """Send a part of the answer once the client has read most of those before."""
        connection = self.connection
        await connection.writable.wait()
        if self.ended:
            return
        if self.head is None:
            self._start(message["status"], message.get("headers", ()))
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        if self.is_head:
            body = b""
        elif self.left is None:
            body = (b"%x\r\n%s\r\n" % (len(body), body) if body else b"") + (b"" if more else b"0\r\n\r\n")
        else:
            self.left -= len(body)
            if self.left < 0 or (self.left and not more):
                raise RuntimeError("the answer's body has another length than its Content-Length")
        connection.transport.write(self.head + body)
        self.head = b""
        if not more:
            self.end()
            connection.over()

    def _start(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Make the head of the answer."""
        connection, by_name, lines = self.connection, dict(headers), self.connection.lines_of(headers)
        if not lines.count(b"\r") == lines.count(b"\n") == len(headers):
            raise RuntimeError("a header of the answer has more than one line")
        closes = b"close" in by_name.get(b"connection", b"").lower()
        closing = CLOSE if connection.closes and not closes else b""
        connection.closes |= closes
        length = by_name.get(b"content-length", b"0" if self.is_head or status in WITHOUT_BODY else b"")
        self.left = int(length) if length else None
        self.head = connection.head_of(status, lines, closing, b"" if length else CHUNKED)
