"""The WebSocket of a session."""

from __future__ import annotations

from contextlib import AsyncExitStack

from websockets.asyncio.client import ClientConnection, connect

from spikeserve.connection import async_receive, async_sleep, lost, opened, options_of, websocket_url


class AsyncWebSocket:
    """A connection to the server at `url`; its methods raise Lost where that is over. `timeout` is in seconds."""

    def __init__(self, url: str, key: str | None, timeout: float) -> None:
        self.url, self.timeout = url, timeout
        self.options = options_of(key, timeout)
        self.connection: ClientConnection | None = None
        self.closing = AsyncExitStack()

    async def connect(self, path: str) -> None:
        """Open a connection, in place of any that is open; `path` has its query.

        Raises AnswerError where the server refuses, and ConnectionLost for an address that is none.
        """
        await self.close()
        with lost():
            opening = connect(websocket_url(self.url, path), **self.options)
            self.connection = await self.closing.enter_async_context(opening)

    async def send(self, content: bytes | str) -> None:
        """Send event records or values as bytes, or a message as text."""
        with lost():
            await opened(self.connection).send(content)

    async def receive(self, *, wait: bool) -> str | None:
        """Return the next line, or None where none is there and `wait` is off."""
        with lost():
            try:
                return await async_receive(opened(self.connection), self.timeout if wait else 0)
            except TimeoutError:
                if wait:
                    raise
        return None

    async def pause(self, seconds: float) -> None:
        """Wait before another try."""
        await async_sleep(seconds)

    async def close(self) -> None:
        """Close the connection, if any."""
        self.connection = None
        await self.closing.aclose()
