"""Turns: where many requests wait for the event loop, each iteration of it begins few of them.

A request that arrives while its connection is idle begins at once. It waits for a turn in two cases only. Either it
was sent ahead of the answer before it, or this iteration of the event loop has already gone on for LONG_SECONDS. That
happens where hundreds of requests come at once, or some that take long. A later request then waits for one iteration,
not for all of them.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from selectors import DefaultSelector, SelectorKey
from time import perf_counter, thread_time

from spikeserve.service.inference.decoding.pieces import Iteration

LONG_SECONDS = 0.02  # twice what 64 small requests take that come at the same moment and are answered as one batch
SHORT_SECONDS = 0.004  # while iterations take less, more turns are given in each
MAX_TURNS = 64  # in one iteration


class TimedSelector(DefaultSelector):
    """The selector of the event loop, which notes when the iteration that goes on began: asyncio does not tell.

    While the event loop waits for files, no iteration goes on, and both times are infinite.
    """

    began = math.inf  # on the clock of perf_counter
    spent = math.inf  # the processor time of the event loop's thread until then

    def __init__(self, iteration: Iteration | None = None) -> None:
        super().__init__()
        self.iteration = iteration or Iteration()  # learns when it begins, for other threads

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        """Wait for files as any selector does; what asyncio does with those that are ready is an iteration."""
        self.began = self.spent = self.iteration.began = math.inf
        ready = super().select(timeout)
        self.began = self.iteration.began = perf_counter()
        self.spent, self.iteration.files_before, self.iteration.files = thread_time(), self.iteration.files, len(ready)
        return ready

    @property
    def is_long(self) -> bool:
        """Whether the event loop, whose thread asks, has worked for LONG_SECONDS in this iteration."""
        if 0 <= perf_counter() - self.began < LONG_SECONDS:
            return False  # the thread's time would take a call of the system
        return thread_time() - self.spent > LONG_SECONDS


class Turns:
    """A queue of callbacks, of which each iteration of the event loop calls one, or up to `most` while it takes short.

    With one, a thousand connections full of requests that were sent ahead delay others no more than one of them does.
    """

    def __init__(self, selector: TimedSelector, most: int = 1) -> None:
        self.selector = selector
        self.most = most
        self.waiting: deque[Callable[[], None]] = deque()
        self.turns = 1  # in the next iteration
        self.last_spent = -math.inf  # the processor time until the iteration of the turns before

    def add(self, callback: Callable[[], None]) -> None:
        """Call back when it is its turn, in a later iteration of the event loop."""
        self.waiting.append(callback)
        if len(self.waiting) == 1:
            self.turns, self.last_spent = 1, -math.inf
            asyncio.get_running_loop().call_soon(self._call_first)

    async def turn(self) -> None:
        """Wait for a turn."""
        came = asyncio.Event()
        self.add(came.set)
        await came.wait()

    async def begin(self) -> None:
        """Wait for a turn where this iteration of the event loop has gone on for long, so that a request begins later.

        It ends at once where its task is cancelled: at the end of a server, which the application answers.
        """
        if self.selector.is_long:
            with suppress(asyncio.CancelledError):
                await self.turn()

    def _call_first(self) -> None:
        if self.most > 1:
            self._adapt()
        callbacks = [self.waiting.popleft() for _ in range(min(self.turns, len(self.waiting)))]
        if self.waiting:
            asyncio.get_running_loop().call_soon(self._call_first)
        for callback in callbacks:
            callback()

    def _adapt(self) -> None:
        """Give twice as many turns after a short iteration, and half as many after another."""
        took, self.last_spent = self.selector.spent - self.last_spent, self.selector.spent
        self.turns = min(2 * self.turns, self.most) if took < SHORT_SECONDS else max(1, self.turns // 2)
