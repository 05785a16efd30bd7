"""Thread pools for work that would block the event loop: inference, and loading models."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar, TypeVarTuple

HEARTBEAT_SECONDS = 1.0

Arguments = TypeVarTuple("Arguments")
T = TypeVar("T")


class Threads:
    """A thread pool of fixed size; leaving the context waits for running tasks and cancels those not started.

    Its threads are named "<name>_<number>" and start when tasks are submitted.
    """

    def __init__(self, size: int, name: str) -> None:
        self.size = size
        self.name = name
        self.heartbeat_since: float | None = None  # when the heartbeat was submitted that has not run yet

    def __enter__(self) -> Self:
        self.pool = ThreadPoolExecutor(self.size, thread_name_prefix=self.name)
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, function: Callable[[*Arguments], T], *arguments: *Arguments) -> Future[T]:
        """Call `function` on the next free thread; the future is the running event loop's."""
        return asyncio.get_running_loop().run_in_executor(self.pool, function, *arguments)

    async def keep_heartbeat(self) -> None:
        """Submit an empty task every HEARTBEAT_SECONDS; it runs once the tasks submitted before it have started."""
        clock = asyncio.get_running_loop().time
        while True:
            self.heartbeat_since = clock()
            await self.submit(int)
            self.heartbeat_since = None
            await asyncio.sleep(HEARTBEAT_SECONDS)

    def stuck(self, seconds: float) -> bool:
        """Return whether no thread has become free for more than `seconds`: a heartbeat has waited for so long."""
        since = self.heartbeat_since
        return since is not None and asyncio.get_running_loop().time() - since > seconds
