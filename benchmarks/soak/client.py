"""A client that costs little, since it shares the cores with the server: HTTP/1.1 by hand, on asyncio."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
SECONDS = 60.0  # the most that an answer may take before it counts as none


@dataclass(frozen=True)
class Answer:
    """A status line's number, the head as it came and the body."""

    status: int
    head: bytes
    body: bytes


class NoAnswer(Exception):
    """The server ended the connection, or said nothing for long."""


class Connection:
    """One connection, over which one request goes after the other; it is opened again where the server has ended it."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    async def ask(self, request: bytes) -> Answer:
        """Send a whole request and return its answer. Raises NoAnswer."""
        await self.send(request)
        return await self.answer()

    async def send(self, part: bytes) -> None:
        """Send bytes, be they a request or a part of one. Raises NoAnswer."""
        if self._streams is not None and self._streams[0].at_eof():
            self.leave()  # the server has ended it, since nothing came for long
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(self.host, self.port)
            self._streams[1].write(part)
            await self._streams[1].drain()
        except OSError as error:
            self.leave()
            raise NoAnswer(str(error)) from error

    async def answer(self) -> Answer:
        """Return the answer to what was sent. Raises NoAnswer."""
        if self._streams is None:
            raise NoAnswer("there is no connection")
        reader, _ = self._streams
        try:
            async with asyncio.timeout(SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                found = LENGTH.search(head)
                body = await reader.readexactly(int(found[1])) if found else b""
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError) as error:
            self.leave()
            raise NoAnswer(str(error)) from error
        if b"connection: close" in head.lower():
            self.leave()
        return Answer(int(head[9:12]), head, body)

    def leave(self) -> None:
        """Hang up at once, whatever is under way."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


def post(path: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """Return a request as it goes over the wire."""
    return request("POST", path, body, headers)


def request(verb: str, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """Return a request as it goes over the wire."""
    said = {"Host": "soak", "Content-Type": "application/json", "Content-Length": str(len(body))} | dict(headers or {})
    lines = [f"{verb} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in said.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def get(path: str) -> bytes:
    """Return a request as it goes over the wire."""
    return f"GET {path} HTTP/1.1\r\nHost: soak\r\n\r\n".encode("latin-1")
