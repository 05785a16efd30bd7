"""The contestants: each that is installed gives the same counts, and each that cannot run says why."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.cases import Case, build
from benchmarks.contestants import CONTESTANTS, choose, prepare
from benchmarks.contestants.base import Job, Skipped, stages
from benchmarks.workloads import IF, LIF, RECURRENT_LIF, Workload, conv, linear, pool
from tests.networks import network_of

EVERYTHING = Workload(
    name="everything",
    title="what workloads are made of, small",
    input=(2, 8, 8),
    nodes=(
        *(conv(2, 4, 3, stride=2, padding=1), LIF, pool("Max", 2)),
        *(conv(4, 4, 3, padding=1), IF, pool("Sum", 2), {"type": "Flatten"}),
        *(linear(4, 16), RECURRENT_LIF, linear(16, 3), IF),
    ),
    time_steps=12,
    activities=(20, "direct"),
)


LINEAR = Workload(
    name="linear",
    title="what a library without convolutions runs too",
    input=(12,),
    nodes=(linear(12, 16), RECURRENT_LIF, linear(16, 3), IF),
    time_steps=12,
    activities=(20, "direct"),
)
CASES = [(work, activity, bits) for work in (EVERYTHING, LINEAR) for activity in work.activities for bits in (None, 6)]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0].name}-{case[1]}-{case[2]}")
def case(request: pytest.FixtureRequest) -> Case:
    work, activity, bits = request.param
    return build(work, activity, 3, bits)


@pytest.mark.filterwarnings("ignore")  # of other people's libraries
@pytest.mark.parametrize("name", [name for name in CONTESTANTS if name != "torch_compile"])
def test_a_contestant_gives_the_counts_that_it_should_each_time(case: Case, name: str) -> None:
    try:
        run = prepare(name, Job(case.network, case.inputs, threads=1))
    except Skipped as reason:
        pytest.skip(str(reason))
    for counts in (run(), run()):
        assert counts.dtype == np.int64
        assert np.array_equal(counts, case.spike_counts)


def test_the_loop_that_is_compiled_gives_the_counts_that_it_should(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def as_it_is(function: Callable[..., Any], **_: object) -> Callable[..., Any]:
        return function

    monkeypatch.setattr(torch, "compile", as_it_is)  # compiling takes many seconds and changes no equation
    run = importlib.import_module("benchmarks.contestants.torch_compile").prepare(Job(case.network, case.inputs, 1))
    assert np.array_equal(run(), case.spike_counts)


def test_a_library_that_is_missing_is_left_out_by_name(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(choose.NEEDS, "norse", ("torch", "a_library_that_is_nowhere"))
    with pytest.raises(Skipped, match="the package a_library_that_is_nowhere is not installed here"):
        prepare("norse", Job(case.network, case.inputs, threads=1))


def test_a_network_that_is_no_stack_is_left_out_with_its_node() -> None:
    network = network_of(
        [
            {"type": "Linear", "name": "a", "in_features": 2, "out_features": 2, "bias": False},
            {"type": "IF", "name": "b", "inputs": ["a", "input"]},
        ],
        {"a.weight": [[1, 0], [0, 1]]},
        input={"shape": [2]},
        time_steps=2,
        labels=["left", "right"],
    )
    with pytest.raises(Skipped, match="node 'b' makes the network more than a stack"):
        stages(network)
