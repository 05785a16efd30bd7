"""Memory that was freed goes back to the system, whichever thread used it.

Threads that compute give way to those that answer.
"""

import asyncio
import ctypes
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from spikeserve.service.inference.decoding.memory import (
    MemoryBudget,
    Reservation,
    heap_trimmer,
    keep_trimming,
    share_heap,
)
from tests.service.asgi import until
from tests.serving import ROOT, serving

# A thread takes 24 MB in pieces and frees them, and lives on. As in a server, an array of 16 MB was freed before: from
# then on glibc gives back the end of a heap only where it has more than twice as much.
BURST = """
import ctypes, threading
from pathlib import Path
from spikeserve.service.inference.decoding.memory import heap_trimmer, share_heap

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

def burst():
    for number in range(250):
        pieces[number] = libc.malloc(100_000)
        ctypes.memset(pieces[number], 1, 100_000)
    for piece in pieces:
        libc.free(piece)
    freed.wait()
    read.wait()

share_heap()
pieces = [0] * 250  # made before, so that nothing else lies between them
libc.free(libc.malloc(2**24))
before, freed, read = resident(), threading.Barrier(2), threading.Barrier(2)
thread = threading.Thread(target=burst)
thread.start()
freed.wait()
heap_trimmer()()
print(resident() - before)
read.wait()
"""


needs_glibc = pytest.mark.skipif(
    not sys.platform.startswith("linux") or heap_trimmer() is None, reason="the C library is not glibc"
)


class Watched(MemoryBudget):
    """A budget that counts how often its peak is read: once at each look of the trimmer, and by each reservation."""

    looks = 0

    def __getattribute__(self, name: str) -> Any:
        if name == "peak":
            self.looks += 1
        return super().__getattribute__(name)


async def test_the_heap_is_trimmed_once_after_a_burst_and_not_during_it() -> None:
    budget, trims = Watched(100), list[int]()
    trimming = asyncio.create_task(keep_trimming(budget, lambda: trims.append(budget.reserved), 0.0))
    stream, burst = Reservation(budget), Reservation(budget)

    async def look() -> None:
        end = budget.looks + 3  # a trim ends before the next look begins
        await until(lambda: budget.looks >= end)

    stream.reserve(10)  # and holds them for days
    burst.reserve(60)
    await look()
    assert trims == []
    burst.release()
    for _ in range(2):
        await look()
        assert trims == [10]
    trimming.cancel()


def test_another_c_library_is_left_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())  # which has neither `mallopt` nor `malloc_trim`
    share_heap()
    assert heap_trimmer() is None


@needs_glibc
def test_what_a_thread_freed_is_given_back_while_the_thread_lives_on() -> None:
    done = subprocess.run([sys.executable, "-c", BURST], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 8  # MB, of 24


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no nice value of its own")
@pytest.mark.usefixtures("reference_engine")
def test_threads_that_compute_have_a_lower_priority_than_those_that_answer_decode_and_render(repository: Path) -> None:
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    before = set(threading.enumerate())  # of servers that other tests have started
    with serving(repository, threads=2) as client:
        assert client.get("/health/live").status_code == 200
        threads = set(threading.enumerate()) - before
        nice = {thread.name: os.getpriority(os.PRIO_PROCESS, thread.native_id or 0) for thread in threads}
    computing = {name for name in nice if name.startswith("worker_")}
    assert len(computing) == 2
    assert {nice.pop(name) for name in computing} == {min(usual + 5, 19)}
    assert {"codec-short_0", "codec-long_0", "loader_0"} <= nice.keys()
    assert set(nice.values()) == {usual}
