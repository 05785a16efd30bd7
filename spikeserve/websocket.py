"""The WebSockets that sessions use, one that blocks and one that is awaited: they perform the steps of a flow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from typing import Any, TypeVar

from websockets.asyncio.client import ClientConnection as AsyncConnection
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import InvalidStatus, InvalidURI, WebSocketException
from websockets.sync.client import ClientConnection, connect

from spikeserve.errors import ConnectionLost, answer_error
from spikeserve.flow import Connect, Lost, Pause, Receive, Send, Step

Connection = TypeVar("Connection")

MAX_LINE_BYTES = 2**27  # the longest lines are states, of which servers take back at most half as many bytes
PONG_SECONDS = 600.0  # a ping lies behind all that was sent before it, so a server that is behind answers it late
CLOSE_SECONDS = 1.0  # for the server's farewell, which changes nothing


def websocket_url(url: str, path: str) -> str:
    """Return the address of a WebSocket at the server of an http or https address."""
    return f"ws{url.removeprefix('http').rstrip('/')}{path}"


class WebSocket:
    """Performs the steps of a flow by blocking; `timeout` is in seconds."""

    def __init__(self, url: str, key: str | None, timeout: float) -> None:
        self.url, self.timeout = url, timeout
        self.options = _options(key, timeout)
        self.connection: ClientConnection | None = None
        self.closing = ExitStack()

    def perform(self, step: Step) -> str | None:
        """Perform a step; raises Lost, AnswerError, and ConnectionLost for an address that is none."""
        with _lost():
            match step:
                case Connect(path=path):
                    self.close()
                    address = websocket_url(self.url, path)
                    self.connection = self.closing.enter_context(connect(address, **self.options))
                case Send(content=content):
                    _open(self.connection).send(content)
                case Receive(wait=wait):
                    return self._receive(wait)
                case Pause(seconds=seconds):
                    time.sleep(seconds)
        return None

    def _receive(self, wait: bool) -> str | None:
        try:
            return str(_open(self.connection).recv(self.timeout if wait else 0, decode=True))
        except TimeoutError:
            if wait:
                raise
            return None

    def close(self) -> None:
        """Close the connection, if any."""
        self.connection = None
        self.closing.close()


class AsyncWebSocket:
    """Performs the steps of a flow by awaiting; `timeout` is in seconds."""

    def __init__(self, url: str, key: str | None, timeout: float) -> None:
        self.url, self.timeout = url, timeout
        self.options = _options(key, timeout)
        self.connection: AsyncConnection | None = None
        self.closing = AsyncExitStack()

    async def perform(self, step: Step) -> str | None:
        """Perform a step; raises Lost, AnswerError, and ConnectionLost for an address that is none."""
        with _lost():
            match step:
                case Connect(path=path):
                    await self.close()
                    address = websocket_url(self.url, path)
                    self.connection = await self.closing.enter_async_context(connect_async(address, **self.options))
                case Send(content=content):
                    await _open(self.connection).send(content)
                case Receive(wait=wait):
                    return await self._receive(wait)
                case Pause(seconds=seconds):
                    await asyncio.sleep(seconds)
        return None

    async def _receive(self, wait: bool) -> str | None:
        try:
            async with asyncio.timeout(self.timeout if wait else 0):
                return str(await _open(self.connection).recv(decode=True))
        except TimeoutError:
            if wait:
                raise
            return None

    async def close(self) -> None:
        """Close the connection, if any."""
        self.connection = None
        await self.closing.aclose()


def _options(key: str | None, timeout: float) -> dict[str, Any]:
    return {
        "additional_headers": {"Authorization": f"Bearer {key}"} if key else {},
        "compression": None,
        "max_size": MAX_LINE_BYTES,
        "max_queue": None,  # lines are read while messages are sent, or each side could wait for the other
        "open_timeout": timeout,
        "ping_timeout": PONG_SECONDS,
        "close_timeout": CLOSE_SECONDS,
    }


def _open(connection: Connection | None) -> Connection:
    if connection is None:
        raise Lost("the connection is closed")
    return connection


@contextmanager
def _lost() -> Iterator[None]:
    """Turn the errors of connections into Lost, and those of answers into AnswerError."""
    try:
        yield
    except InvalidStatus as error:
        answer = error.response
        raise answer_error(answer.status_code, _lower(answer.headers.raw_items()), bytes(answer.body)) from error
    except InvalidURI as error:
        raise ConnectionLost(str(error)) from error
    except TimeoutError as error:
        raise Lost("the server did not answer in time") from error
    except (OSError, WebSocketException, EOFError) as error:
        raise Lost(str(error) or type(error).__name__) from error


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers}
