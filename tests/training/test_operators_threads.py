"""How the training kernels share their work, and what they list for each other."""

import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from spikeserve.models.engines.event.currents import Array
from spikeserve.training.fit.operators.threads import Kernel, in_parts


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@Kernel
def count_items(done: Array, room: int, first: int, end: int, part: int) -> None:
    """Add 1 for each item; part 1 wants so much room, in bytes."""
    wanted = np.empty(room if part == 1 else 1, np.int8)
    wanted[0] = 1
    for item in range(first, end):
        done[item] += wanted[0]


def test_a_part_without_memory_is_an_error_and_the_other_part_is_done() -> None:
    torch.set_num_threads(2)
    done = np.zeros(4, np.int64)
    with pytest.raises(MemoryError, match="count_items had no memory"):
        in_parts(count_items, 4, done, 2**60)
    assert done.tolist() == [1, 1, 0, 0]


def test_fewer_threads_than_parts_do_all_parts_once_and_so_does_a_fork() -> None:
    program = (
        "import os, torch; import numpy as np; torch.set_num_threads(3)\n"
        "from tests.training.test_operators_threads import count_items, in_parts\n"
        "in_parts(count_items, 3, np.zeros(3, np.int64), 1)\n"
        "if os.fork(): os.wait()\n"
        "done = np.zeros(3, np.int64); in_parts(count_items, 3, done, 1)\n"
        "print(done.tolist(), flush=True)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_THREAD_LIMIT": "2"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[1, 1, 1]\n" * 2
