"""Threads that decode and render let the event loop go first, before each piece of their work."""

import json
import math
from collections.abc import Callable

import numpy as np
import pytest

from spikeserve.service.inference.decoding import pieces
from spikeserve.service.inference.decoding.numbers import SLICE_BYTES, cut_array


class Loop(pieces.Iteration):
    """An event loop whose iteration began then; counts how often a thread looks."""

    def __init__(self, since: float) -> None:
        self.since = since
        self.looks = 0

    @property
    def began(self) -> float:
        """When its iteration began."""
        self.looks += 1
        return self.since

    @began.setter
    def began(self, since: float) -> None:
        self.since = since


def looks(since: float, work: Callable[[], object]) -> int:
    """Return how often work looks at an event loop whose iteration began then."""
    loop = Loop(since)
    pieces.Interpreter(loop).run(work)
    return loop.looks


@pytest.fixture(autouse=True)
def _no_loop_is_left() -> object:
    yield
    pieces.Interpreter().run(int)


def test_work_waits_a_few_times_where_the_event_loop_is_behind() -> None:
    assert looks(-math.inf, pieces.before_piece) == pieces.MAX_PAUSES


def test_each_slice_of_a_long_array_is_a_piece() -> None:
    body = json.dumps({"inputs": [[0] * 50_000]}).encode()  # 150,000 bytes: "0, " each
    assert SLICE_BYTES == 65_536
    assert looks(math.inf, lambda: cut_array(body, b"inputs", np.float32)) == 3


def test_each_piece_of_a_long_answer_is_one() -> None:
    assert looks(math.inf, lambda: pieces.joined([bytes(pieces.PIECE_BYTES)] * 4)) == 5  # the last one is empty
