"""The cores that the runs of a process share, so that the parts of a batch are run on those that no other run uses.

A batch is split where its reckoned work is worth waking another thread. Each thread then takes part after part, so that
a thread that comes late, or never, costs little but its help. Where other processes keep all cores busy, helpers only
come late: none is asked for then.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from functools import cache, partial
from queue import SimpleQueue
from time import perf_counter

LEAST_WORK = 75.0  # microseconds of reckoned work for each thread; waking one takes some 15 of them
ADDED, STEPPED = 5e-5, 2e-4  # microseconds for a weight, and for a step of a neuron


class Idle:
    """Looks how many cores of the machine run nothing, at most once in LOOK seconds, since a look takes 3 us."""

    LOOK = 0.0005

    def __init__(self) -> None:
        self.cores, self.next = os.cpu_count() or 1, 0.0
        self.count = self.cores
        try:
            self.file = os.open("/proc/loadavg", os.O_RDONLY)
        except OSError:  # another system: no core counts as busy
            self.next = math.inf

    def __call__(self) -> int:
        """Return how many there were at the last look; the calling thread's is none of them."""
        now = perf_counter()
        if now >= self.next:
            running, _, _ = os.pread(self.file, 64, 0).split()[3].partition(b"/")  # threads that run or could
            self.count, self.next = self.cores - int(running), now + self.LOOK
        return self.count


class Cores:
    """So many cores, on which runs and their helpers are counted; the threads of helpers start when they are needed.

    A thread more works on a batch for each `least_work` microseconds that it is reckoned to take: two do from `enough`.
    No more are asked for than there are `idle` cores on the machine.
    """

    def __init__(self, count: int, least_work: float = LEAST_WORK, idle: Callable[[], int] | None = None) -> None:
        self.count, self.least_work, self.idle = count, least_work, idle
        self.enough = 2 * least_work if count > 1 else math.inf
        self._forget()
        if count > 1 and hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        """Begin without runs and threads, as a forked process does, which has none of its parent's."""
        self.lock = threading.Lock()
        self.runs = self.helping = self.started = 0
        self.calls: SimpleQueue[Call] = SimpleQueue()

    def __enter__(self) -> None:
        """Count the caller's run, which needs the core that it is on, until it leaves."""
        if self.count > 1:
            with self.lock:
                self.runs += 1

    def __exit__(self, *_: object) -> None:
        if self.count > 1:
            with self.lock:
                self.runs -= 1

    def enough_now(self) -> float:
        """Return how many microseconds of work two threads share at present."""
        return self.enough if self.idle is None or self.idle() > 0 else math.inf

    def helpers(self, work: float, parts: int) -> int:
        """Take free cores for `work` microseconds in so many parts and return how many; `share` gives them back."""
        if work < self.enough:
            return 0
        threads = min(self.count, parts)
        if work < threads * self.least_work:
            threads = int(work / self.least_work)
        idle = threads if self.idle is None else self.idle()
        with self.lock:
            free = max(0, min(threads - 1, self.count - self.runs - self.helping, idle))
            while self.started < self.helping + free:
                try:
                    threading.Thread(target=self._help, name=f"event_{self.started}", daemon=True).start()
                except RuntimeError:  # the system lets no more threads start
                    free = self.started - self.helping
                    break
                self.started += 1
            self.helping += free
        return free

    def share(self, helpers: int, work: Callable[..., object], *arguments: object) -> None:
        """Call `work` here and on so many cores that were taken, until all have returned; raises what one raised."""
        if not helpers:
            work(*arguments)
            return
        call = Call(partial(work, *arguments), helpers)
        for _ in range(helpers):
            self.calls.put(call)
        try:
            call.work()
        finally:
            call.end()
            with self.lock:
                self.helping -= helpers
        if call.errors:
            raise call.errors[0]

    def _help(self) -> None:
        calls = self.calls
        while True:
            calls.get().help()


@cache
def shared(count: int) -> Cores:
    """Return the cores of all engines of this process that have so many threads."""
    return Cores(count, idle=Idle() if count > 1 else None)


class Call:
    """A function that its caller and some helpers call at the same time."""

    def __init__(self, work: Callable[[], object], helpers: int) -> None:
        self.work = work
        self.waiting = [None] * helpers  # one for each helper that has not begun
        self.helpers = helpers
        self.ended: SimpleQueue[None] = SimpleQueue()
        self.errors: list[BaseException] = []

    def help(self) -> None:
        """Call it, unless the caller is done."""
        try:
            self.waiting.pop()
        except IndexError:
            return
        try:
            self.work()
        except BaseException as error:  # which the caller raises
            self.errors.append(error)
        self.ended.put(None)

    def end(self) -> None:
        """Wait for the helpers that have begun; the others need not begin any more."""
        begun = self.helpers
        while self.waiting:
            try:
                self.waiting.pop()
            except IndexError:  # a helper was quicker
                break
            begun -= 1
        for _ in range(begun):
            self.ended.get()
