"""Thread pools for what would hold up the event loop: inference, and loading models."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar, TypeVarTuple

from service.errors import NotReady

HEARTBEAT_SECONDS = 1.0

Arguments = TypeVarTuple("Arguments")
T = TypeVar("T")


class Threads:
    """A thread pool of fixed size; leaving the context waits for what runs and drops what has not begun.

    Its threads are named "<name>_<number>"; none is started before something is submitted.
    """

    def __init__(self, size: int, name: str) -> None:
        self.size = size
        self.name = name
        self.asked_at: float | None = None  # when a sign of life was asked for that has not come yet

    def __enter__(self) -> Self:
        self.pool = ThreadPoolExecutor(self.size, thread_name_prefix=self.name)
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, function: Callable[[*Arguments], T], *arguments: *Arguments) -> Future[T]:
        """Call `function` on the next free thread; the future is the running event loop's."""
        return asyncio.get_running_loop().run_in_executor(self.pool, function, *arguments)

    async def keep_heartbeat(self) -> None:
        """Submit a task that does nothing over and over; it waits behind what was submitted before."""
        clock = asyncio.get_running_loop().time
        while True:
            self.asked_at = clock()
            await self.submit(int)
            self.asked_at = None
            await asyncio.sleep(HEARTBEAT_SECONDS)

    def check_alive(self, seconds: float) -> None:
        """Raise NotReady where no thread has given a sign of life for so long."""
        if self.asked_at is not None and asyncio.get_running_loop().time() - self.asked_at > seconds:
            raise NotReady(f"the worker threads have given no sign of life for more than {seconds:g} s")
