"""Memory that was freed goes back to the system, whichever thread used it."""

import asyncio
import ctypes
import subprocess
import sys

import pytest

from spikeserve.service.inference.decoding.memory import (
    MemoryBudget,
    Reservation,
    heap_trimmer,
    keep_trimming,
    share_heap,
)
from tests.serving import ROOT

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


async def test_the_heap_is_trimmed_once_after_a_burst_and_not_during_it() -> None:
    budget, trimmed = MemoryBudget(100), asyncio.Event()
    loop = asyncio.get_running_loop()
    trimming = asyncio.create_task(keep_trimming(budget, lambda: loop.call_soon_threadsafe(trimmed.set), 0.0))

    async def looks() -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    stream, burst = Reservation(budget), Reservation(budget)
    stream.reserve(10)  # and holds them for days
    burst.reserve(60)
    await looks()
    assert not trimmed.is_set()
    burst.release()
    async with asyncio.timeout(60):
        await trimmed.wait()
    trimmed.clear()
    await looks()
    assert not trimmed.is_set()
    trimming.cancel()


def test_another_c_library_is_left_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())  # which has neither `mallopt` nor `malloc_trim`
    share_heap()
    assert heap_trimmer() is None


@needs_glibc
def test_what_a_thread_freed_is_given_back_while_the_thread_lives_on() -> None:
    done = subprocess.run([sys.executable, "-c", BURST], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 8  # MB, of 24
