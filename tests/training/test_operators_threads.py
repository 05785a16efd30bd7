"""How the training kernels share their work, and what they list for each other."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeserve.training.fit.operators.spikes import Lists
from spikeserve.training.fit.operators.threads import together

TASKS = Path("/proc/self/task")  # a folder for each thread of this process, on Linux


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def numbers_of_threads(parts: int) -> dict[int, int]:
    """Return the system's number of the thread that did each part."""
    found = dict[int, int]()
    together(lambda part: found.update({part: threading.get_native_id()}), parts)
    return found


@pytest.mark.skipif(not TASKS.exists(), reason="threads are counted in /proc, which this system does not have")
def test_the_parts_run_on_the_threads_that_pytorch_has_already() -> None:
    # Threads of another pool would have to share the cores with PyTorch's, which spin after each operation.
    torch.set_num_threads(2)
    values = torch.rand(400, 400)
    values @ values
    torch.exp(torch.rand(2**20))
    before = {int(task.name) for task in TASKS.iterdir()}
    found = numbers_of_threads(2)
    assert set(found) == {0, 1}
    assert found[0] == threading.get_native_id()
    assert found[1] != found[0]
    assert set(found.values()) <= before


@pytest.mark.parametrize("failing", [0, 1])
def test_what_a_part_raises_is_raised_and_the_other_part_is_done(failing: int) -> None:
    torch.set_num_threads(2)
    done = []

    def run(part: int) -> None:
        if part == failing:
            raise ValueError(f"part {part}")
        done.append(part)

    with pytest.raises(ValueError, match=f"part {failing}"):
        together(run, 2)
    assert done == [1 - failing]


class Alarm(Exception):
    pass


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timer that sends signals")
def test_no_signal_is_lost_while_threads_work() -> None:
    # As Ctrl-C does, a handler raises wherever the main thread is: before, within and after the parts.
    torch.set_num_threads(2)
    raised, seen, turns = 0, 0, 0

    def handle(_: int, __: object) -> None:
        nonlocal raised
        raised += 1
        raise Alarm

    def work(_: int) -> None:
        sum(range(500))  # long enough for many of them to come within a part

    before = signal.signal(signal.SIGALRM, handle)
    gc.disable()  # Python only logs what is raised within a callback of the collector, and Hypothesis has one
    try:
        while turns < 800:
            try:
                while turns < 800:
                    turns += 1
                    signal.setitimer(signal.ITIMER_REAL, (10 + turns % 90) * 1e-6)
                    together(work, 2)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Alarm:
                seen += 1
    finally:
        gc.enable()
        signal.signal(signal.SIGALRM, before)
    assert raised > 40
    assert seen == raised


def test_fewer_threads_than_parts_do_all_parts_once() -> None:
    program = (
        "import torch; torch.set_num_threads(3)\n"
        "from spikeserve.training.fit.operators.threads import together\n"
        "done = []; together(done.append, 3); print(sorted(done))"
    )
    limited = {**os.environ, "OMP_THREAD_LIMIT": "1"}
    run = subprocess.run([sys.executable, "-c", program], env=limited, capture_output=True, text=True, check=True)
    assert run.stdout == "[0, 1, 2]\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_process_has_threads_of_its_own() -> None:
    program = (
        "import os, torch; torch.set_num_threads(2)\n"
        "from spikeserve.training.fit.operators.threads import together\n"
        "together(lambda _: None, 2)\n"
        "child = os.fork()\n"
        "done = []; together(done.append, 2)\n"
        "if child: os.waitpid(child, 0)\n"
        "print(sorted(done), flush=True)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert run.stdout == "[0, 1]\n[0, 1]\n"


@settings(deadline=None)  # the first example compiles the kernels
@given(
    rows=st.integers(1, 9),
    units=st.sampled_from([1, 5, 15, 16, 17, 31, 32, 40, 70]),
    share=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    valued=st.booleans(),
    threads=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_the_lists_have_what_is_not_0_by_row_and_by_unit(
    rows: int, units: int, share: float, valued: bool, threads: int, seed: int
) -> None:
    torch.set_num_threads(threads)
    generator = np.random.default_rng(seed)
    dense = (generator.random((rows, units)) < share).astype(np.float32)
    if valued:
        dense *= generator.choice(np.array([1, 0.5, -2], np.float32), dense.shape)
    lists = Lists.of(torch.from_numpy(dense)[:, np.newaxis])
    assert lists.valued == bool((dense[dense != 0] != 1).any())
    for events, matrix in ((lists.by_row, dense), (lists.by_unit, dense.T)):
        at, places = np.nonzero(matrix)
        assert events.index.tolist() == places.tolist()
        assert events.offset.tolist() == np.searchsorted(at, np.arange(len(matrix) + 1)).tolist()
        assert events.value.tolist() == (matrix[at, places].tolist() if lists.valued else [])
