"""Turns: connections whose clients send requests ahead of their answers share the event loop with the others."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Turns:
    """A queue of callbacks, of which one is called in each iteration of the event loop.

    A request that arrives while its connection is idle is parsed at once and does not wait here. One that was sent
    ahead waits for its turn, so that a thousand connections full of such requests delay others no more than one does.
    """

    def __init__(self) -> None:
        self.waiting: deque[Callable[[], None]] = deque()

    def add(self, callback: Callable[[], None]) -> None:
        """Call back when it is its turn, in a later iteration of the event loop."""
        self.waiting.append(callback)
        if len(self.waiting) == 1:
            asyncio.get_running_loop().call_soon(self._call_first)

    def _call_first(self) -> None:
        callback = self.waiting.popleft()
        if self.waiting:
            asyncio.get_running_loop().call_soon(self._call_first)
        callback()
