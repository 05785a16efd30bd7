"""One sample on several cores: the parts of a layer on threads give the same bits, and no more threads run than may."""

from __future__ import annotations

import math
import os
import threading
from typing import Any

import numpy as np
import pytest

from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines.event.cores import Cores, Idle, shared
from spikeserve.models.engines.event.engine import EventEngine
from spikeserve.models.engines.event.tiles import bounds_of
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec.network import Network
from tests.models.test_event_engine import dyadic, raster, stack
from tests.models.test_parity import SPLIT
from tests.networks import network_of
from tests.same import assert_same_runs

threads = pytest.mark.parametrize("count", SPLIT)


def taken(monkeypatch: pytest.MonkeyPatch, cores: Cores) -> list[int]:
    """Return a list to which the helpers of each shared piece of work are added."""
    found: list[int] = []
    share = cores.share

    def noted(helpers: int, *arguments: Any) -> None:
        found.append(helpers)
        share(helpers, *arguments)

    monkeypatch.setattr(cores, "share", noted)
    return found


@threads
@pytest.mark.parametrize("activity", [0.02, 0.36, 0.39, 1.0])
@pytest.mark.parametrize("batch", [1, 5])
def test_the_panels_of_a_wide_layer_are_shared(
    count: int, activity: float, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 421 neurons are seven panels of 64, the last of 48 with its padding; above 37.5 % all weights are read.
    network, inputs, cores = stack(421), raster(activity, 6, batch, 784), SPLIT[count]
    helpers = taken(monkeypatch, cores)
    assert_same_runs(inputs, ReferenceEngine(network), EventEngine(network, cores=cores))
    assert max(helpers, default=0) == cores.started == count - 1


def images(channels: int, groups: int, stride: int, side: int = 20) -> Network:
    """Two convolutions of images with a pool of overlapping windows between them, each with many rows of outputs."""
    rng = np.random.default_rng(5)
    nodes: list[dict[str, Any]] = [
        {"type": "Conv2d", "name": "conv1", "in_channels": 4, "out_channels": channels * groups}
        | {"kernel_size": 3, "padding": 1, "groups": groups, "stride": stride},
        {"type": "LIF", "name": "lif1", "decay": 0.75, "fire": "multiple", "reset": "subtract"},
        {"type": "AvgPool2d", "name": "pool", "kernel_size": 3, "stride": 2, "padding": 1},
        {"type": "Conv2d", "name": "conv2", "in_channels": channels * groups, "out_channels": 8}
        | {"kernel_size": 5, "padding": 2},
        {"type": "LIF", "name": "lif2", "decay": 0.5, "threshold": "per_neuron"},
        {"type": "MaxPool2d", "name": "largest", "kernel_size": 2},
        {"type": "Flatten", "name": "flat"},
        {"type": "Linear", "name": "fc", "in_features": 1, "out_features": 3},
        {"type": "IF", "name": "out", "threshold": 4.0},
    ]
    fields = {"input": {"shape": [4, side, side]}, "coding": "spikes", "time_steps": 5, "labels": ["a", "b", "c"]}
    after = (side - 1) // stride + 1
    half = (after - 1) // 2 + 1
    nodes[-2]["in_features"] = 8 * (half // 2) ** 2
    tensors = {
        "conv1.weight": dyadic(rng, channels * groups, 4 // groups, 3, 3),
        "conv1.bias": dyadic(rng, channels * groups),
        "conv2.weight": dyadic(rng, 8, channels * groups, 5, 5),
        "conv2.bias": dyadic(rng, 8),
        "lif2.threshold": 1 + np.abs(dyadic(rng, 8, half, half)),
        "fc.weight": dyadic(rng, 3, nodes[-2]["in_features"]),
        "fc.bias": dyadic(rng, 3),
    }
    return network_of(nodes, tensors, **fields)


@threads
@pytest.mark.parametrize("channels", [3, 16, 70])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_rows_of_images_are_shared(
    count: int, channels: int, groups: int, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Lines of half vectors, of whole ones, and such that reach with their padding into the row behind.
    network = images(channels, groups, stride)
    rng, cores = np.random.default_rng(6), SPLIT[count]
    helpers = taken(monkeypatch, cores)
    for inputs in (raster(0.3, 5, 2, 4, 20, 20), DenseInputs(dyadic(rng, 5, 1, 4, 20, 20), 5)):
        assert_same_runs(inputs, ReferenceEngine(network), EventEngine(network, cores=cores))
    assert max(helpers, default=0) == count - 1


@threads
def test_a_wide_recurrent_layer_is_one_tile(count: int) -> None:
    # 200 neurons would be four panels, but each needs the spikes of all at the step before.
    network, inputs = stack(200, recurrent={"bias": False}), raster(0.2, 6, 2, 784)
    assert_same_runs(inputs, ReferenceEngine(network), EventEngine(network, cores=SPLIT[count]))


@pytest.mark.parametrize(
    ("size", "step", "helpers", "bounds"),
    [
        (1000, 64, 0, [0, 1000]),
        (1000, 64, 1, [0, 512, 1000]),  # sixteen steps, in tiles of at least sixteen each but for the sake of a thread
        (4096, 64, 1, [0, 1024, 2048, 3072, 4096]),  # 64 steps: twice as many tiles as threads
        (128, 64, 7, [0, 64, 128]),
        (48, 64, 3, [0, 48]),
        (0, 1, 1, [0, 0]),
    ],
)
def test_tiles_are_whole_steps_of_about_equal_size(size: int, step: int, helpers: int, bounds: list[int]) -> None:
    assert bounds_of(size, step, helpers).tolist() == bounds


def test_a_thread_is_asked_for_each_75_microseconds_of_work_as_far_as_there_are_free_cores() -> None:
    cores = Cores(4)

    def granted(work: float, parts: int) -> int:
        helpers = cores.helpers(work, parts)
        cores.share(helpers, int)  # which gives them back
        return helpers

    with cores:  # the run itself has one of the four
        assert [granted(work, 8) for work in (0, 149, 150, 224, 225, 299, 300, 1e6)] == [0, 0, 1, 1, 2, 2, 3, 3]
        assert [granted(1e6, parts) for parts in (0, 1, 2, 3)] == [0, 0, 1, 2]
        with cores, cores:
            assert granted(1e6, 8) == 1
            with cores, cores:
                assert granted(1e6, 8) == 0
    assert Cores(1).helpers(1e6, 8) == 0


def test_no_thread_is_asked_for_where_other_processes_keep_all_cores_busy() -> None:
    idle = [2, 1, 0, -3]
    cores = Cores(4, idle=lambda: idle[0])
    granted = []
    while idle:
        with cores:
            helpers = cores.helpers(1e6, 8)
            cores.share(helpers, int)
        granted.append((helpers, cores.enough_now()))
        idle.pop(0)
    assert granted == [(2, 150.0), (1, 150.0), (0, math.inf), (0, math.inf)]
    assert Idle()() <= (os.cpu_count() or 1) - 1  # this thread runs


def test_what_a_helper_holds_is_free_for_no_other_run_until_it_is_done() -> None:
    cores = Cores(3)
    with cores:
        first = cores.helpers(1e6, 2)
        assert (first, cores.helpers(1e6, 8)) == (1, 1)
        assert cores.helpers(1e6, 8) == 0
        cores.share(1, int)
        assert cores.helpers(1e6, 8) == 1


def test_work_is_called_on_several_threads_at_the_same_time_and_awaited() -> None:
    cores, together, caller, done = Cores(3), threading.Barrier(3), threading.current_thread(), list[str]()

    def work() -> None:
        together.wait(timeout=60)  # passes only where all three are here
        if threading.current_thread() is not caller:
            sum(range(3_000_000))  # so that the caller is done first
        done.append(threading.current_thread().name)

    with cores:
        cores.share(cores.helpers(1e6, 8), work)
    assert len(done) == len(set(done)) == 3


def test_what_a_helper_raises_is_raised_by_the_caller_and_its_core_is_free_again() -> None:
    cores, caller, begun = Cores(2), threading.current_thread(), threading.Event()

    def work() -> None:
        if threading.current_thread() is not caller:
            begun.set()
            raise ValueError("of the helper")
        begun.wait(timeout=60)

    with cores:
        with pytest.raises(ValueError, match="of the helper"):
            cores.share(cores.helpers(1e6, 8), work)
        assert cores.helpers(1e6, 8) == 1


def test_a_system_that_starts_no_thread_leaves_the_work_to_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    cores = Cores(2, least_work=0.0)
    network, inputs = stack(200), raster(0.1, 6, 1, 784)
    result, _ = EventEngine(network, cores=cores).run(inputs)
    np.testing.assert_array_equal(result.spike_counts, ReferenceEngine(network).run(inputs)[0].spike_counts)


def test_engines_of_as_many_threads_share_their_cores() -> None:
    network = stack(20)
    assert EventEngine(network, 2).cores is EventEngine(network, 2).cores is shared(2)
    assert EventEngine(network, 3).cores is not shared(2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own() -> None:
    cores = SPLIT[2]
    with cores:
        cores.share(cores.helpers(1e6, 8), int)  # so that its thread runs, which the child has not
    child = os.fork()
    if child == 0:
        together = threading.Barrier(2)
        with cores:
            cores.share(cores.helpers(1e6, 8), lambda: together.wait(timeout=60))
        os._exit(0 if together.broken is False else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
