"""A batch on several cores: its parts on threads give the same bits, and no more threads run than may."""

import math
import os
import threading
from typing import Any

import numpy as np
import pytest

from spikeserve.models.engines.event.cores import Cores, Idle
from spikeserve.models.engines.event.engine import EventEngine
from spikeserve.models.engines.reference import ReferenceEngine
from tests.models.test_parity import SPLIT
from tests.models.test_wide import layer, raster
from tests.same import assert_same_runs


@pytest.mark.parametrize("count", SPLIT)
def test_the_samples_of_a_batch_are_shared(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network, cores, helpers = layer(neurons=421), SPLIT[count], list[int]()
    share = cores.share

    def noted(number: int, *arguments: Any) -> None:
        helpers.append(number)
        share(number, *arguments)

    monkeypatch.setattr(cores, "share", noted)
    for batch in (1, 5):
        assert_same_runs(raster(0.36, batch, network), ReferenceEngine(network), EventEngine(network, cores=cores))
    assert max(helpers, default=0) == cores.started == count - 1


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
    network, inputs = layer(neurons=200), raster(0.1, 2, layer())
    result, _ = EventEngine(network, cores=cores).run(inputs)
    np.testing.assert_array_equal(result.spike_counts, ReferenceEngine(network).run(inputs)[0].spike_counts)


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
