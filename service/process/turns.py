"""Turns: connections whose clients send requests ahead of their answers share the event loop with the others."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

PER_ITERATION = 4  # more of them would delay the others by milliseconds; fewer would wake up the event loop too often


class Turns:
    """A queue of callbacks, of which `PER_ITERATION` are called in each iteration of the event loop.

    A request that arrives while its connection is idle is parsed at once and does not wait here. One that was sent ahead
    waits for its turn, so that a thousand connections full of such requests delay others no more than four do.
    """

    def __init__(self) -> None:
        self.waiting: deque[Callable[[], None]] = deque()

    def add(self, callback: Callable[[], None]) -> None:
        """Call back when it is its turn, in a later iteration of the event loop."""
        if not self.waiting:
            asyncio.get_running_loop().call_soon(self._run)
        self.waiting.append(callback)

    def _run(self) -> None:
        called = [self.waiting.popleft() for _ in range(min(PER_ITERATION, len(self.waiting)))]
        if self.waiting:
            asyncio.get_running_loop().call_soon(self._run)
        for callback in called:
            callback()
