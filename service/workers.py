"""The threads that do what would hold up the event loop: inference, and loading models."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar, TypeVarTuple

Arguments = TypeVarTuple("Arguments")
T = TypeVar("T")


class Workers:
    """A fixed number of threads; leaving the context waits for what runs and drops what has not begun."""

    def __init__(self, threads: int) -> None:
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="worker")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.pool.shutdown(wait=True, cancel_futures=True)

    async def run(self, function: Callable[[*Arguments], T], *args: *Arguments) -> T:
        """Call `function` on the next free thread and return what it does."""
        return await asyncio.get_running_loop().run_in_executor(self.pool, function, *args)
