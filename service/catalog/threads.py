"""Thread pools for work that would block the event loop: inference, and loading models."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from asyncio import Future
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Self, TypeVar, TypeVarTuple

from spikeserve.service.errors import Misconfigured

HEARTBEAT_SECONDS = 1.0

Arguments = TypeVarTuple("Arguments")
T = TypeVar("T")


class Threads:
    """A thread pool of fixed size; leaving the context waits for running tasks and cancels those not started.

    Its threads are named "<name>_<number>". All of them start when the context is entered, so that the limits of the
    system are met then and not by a request. On Linux their nice value is higher by `nice` than that of the thread that
    starts them, and so they get less of the cores while others want them; elsewhere it would change the whole process.
    """

    def __init__(self, size: int, name: str, nice: int = 0) -> None:
        self.size = size
        self.name = name
        self.nice = nice if sys.platform == "linux" else 0
        self.heartbeat_since: float | None = None  # when the heartbeat was submitted that has not run yet

    def __enter__(self) -> Self:
        """Start every thread; raises Misconfigured where the system allows fewer."""
        give_way = getattr(os, "nice", abs)  # Windows has no nice values, and `abs` changes nothing
        self.pool = ThreadPoolExecutor(self.size, self.name, give_way, (self.nice,))
        all_started = threading.Event()
        try:
            for _ in range(self.size):
                self.pool.submit(all_started.wait)  # while it waits, the next task needs another thread
        except RuntimeError as error:
            started = sum(thread.name.startswith(f"{self.name}_") for thread in threading.enumerate())
            self.pool.shutdown(wait=False)
            raise Misconfigured(
                f"threads: the system lets {started} of {self.size} threads start, expected all: set fewer --threads, "
                "or raise the limit of processes (ulimit -u, a container's pids) or of memory (ulimit -v)"
            ) from error
        finally:
            all_started.set()
        return self

    def __exit__(self, *_: object) -> None:
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
