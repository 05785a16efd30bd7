"""The threads that do what would hold up the event loop: inference, and loading models."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar, TypeVarTuple

from service.errors import NotReady

BEAT_SECONDS = 1.0

Arguments = TypeVarTuple("Arguments")
T = TypeVar("T")


class Workers:
    """A fixed number of threads; leaving the context waits for what runs and drops what has not begun."""

    def __init__(self, threads: int, name: str = "worker") -> None:
        self.threads = threads
        self.asked: float | None = None  # when a sign of life was asked for that has not come yet
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix=name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, function: Callable[[*Arguments], T], *arguments: *Arguments) -> Future[T]:
        """Call `function` on the next free thread; the future is the running event loop's."""
        return asyncio.get_running_loop().run_in_executor(self.pool, function, *arguments)

    async def show_life(self) -> None:
        """Ask for a sign of life over and over, behind what the threads were given before."""
        clock = asyncio.get_running_loop().time
        while True:
            self.asked = clock()
            await self.submit(int)
            self.asked = None
            await asyncio.sleep(BEAT_SECONDS)

    def check_alive(self, seconds: float) -> None:
        """Raise NotReady where no thread has given a sign of life for so long."""
        if self.asked is not None and asyncio.get_running_loop().time() - self.asked > seconds:
            raise NotReady(f"the worker threads have given no sign of life for more than {seconds:g} s")
