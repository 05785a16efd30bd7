"""What the connections of both kinds of session share, and where the two differ by more than `await`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from websockets.asyncio.client import ClientConnection as AsyncConnection
from websockets.exceptions import InvalidStatus, InvalidURI, WebSocketException
from websockets.sync.client import ClientConnection as Connection

from spikeserve.errors import ConnectionLost, answer_error
from spikeserve.requests import headers_of

Either = TypeVar("Either", Connection, AsyncConnection)

MAX_LINE_BYTES = 2**27  # the longest lines are states, of which servers take back at most half as many bytes
PONG_SECONDS = 600.0  # a ping lies behind all that was sent before it, so a server that is behind answers it late
CLOSE_SECONDS = 1.0  # for the server's farewell, which changes nothing

async_sleep, sleep = asyncio.sleep, time.sleep


class Lost(Exception):
    """The connection is over, or could not be made; the message says why."""


def websocket_url(url: str, path: str) -> str:
    """Return the address of a WebSocket at the server of an http or https address."""
    return f"ws{url.removeprefix('http').rstrip('/')}{path}"


async def async_receive(connection: AsyncConnection, seconds: float) -> str:
    """Wait for a line; raises TimeoutError."""
    async with asyncio.timeout(seconds):
        return await connection.recv(decode=True)


def receive(connection: Connection, seconds: float) -> str:
    """Wait for a line; raises TimeoutError."""
    return connection.recv(seconds, decode=True)


def options_of(key: str | None, timeout: float) -> dict[str, Any]:
    """Return the options of every connection; `timeout` is in seconds."""
    return {
        "additional_headers": headers_of(key),
        "compression": None,
        "max_size": MAX_LINE_BYTES,
        "max_queue": None,  # lines are read while messages are sent, or each side could wait for the other
        "open_timeout": timeout,
        "ping_timeout": PONG_SECONDS,
        "close_timeout": CLOSE_SECONDS,
    }


def opened(connection: Either | None) -> Either:
    """Return a connection that is there; raises Lost where none is."""
    if connection is None:
        raise Lost("the connection is closed")
    return connection


@contextmanager
def lost() -> Iterator[None]:
    """Turn the errors of connections into Lost, and those of answers into AnswerError."""
    try:
        yield
    except InvalidStatus as error:
        answer = error.response
        raise answer_error(answer.status_code, answer.headers, bytes(answer.body)) from error
    except InvalidURI as error:
        raise ConnectionLost(str(error)) from error
    except TimeoutError as error:
        raise Lost("the server did not answer in time") from error
    except (OSError, WebSocketException, EOFError) as error:
        raise Lost(str(error) or type(error).__name__) from error
