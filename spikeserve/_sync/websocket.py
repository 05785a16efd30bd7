"""The WebSocket of a session."""

from __future__ import annotations

from contextlib import ExitStack

from websockets.sync.client import ClientConnection, connect

from spikeserve.connection import lost, opened, options_of, receive, sleep, websocket_url


class WebSocket:
    """A connection to the server at `url`; its methods raise Lost where that is over. `timeout` is in seconds."""

    def __init__(self, url: str, key: str | None, timeout: float) -> None:
        self.url, self.timeout = url, timeout
        self.options = options_of(key, timeout)
        self.connection: ClientConnection | None = None
        self.closing = ExitStack()

    def connect(self, path: str) -> None:
        """Open a connection, in place of any that is open; `path` has its query.

        Raises AnswerError where the server refuses, and ConnectionLost for an address that is none.
        """
        self.close()
        with lost():
            opening = connect(websocket_url(self.url, path), **self.options)
            self.connection = self.closing.enter_context(opening)

    def send(self, content: bytes | str) -> None:
        """Send event records or values as bytes, or a message as text."""
        with lost():
            opened(self.connection).send(content)

    def receive(self, *, wait: bool) -> str | None:
        """Return the next line, or None where none is there and `wait` is off."""
        with lost():
            try:
                return receive(opened(self.connection), self.timeout if wait else 0)
            except TimeoutError:
                if wait:
                    raise
        return None

    def pause(self, seconds: float) -> None:
        """Wait before another try."""
        sleep(seconds)

    def close(self) -> None:
        """Close the connection, if any."""
        self.connection = None
        self.closing.close()
