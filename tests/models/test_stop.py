"""A run that is asked to stop does so at its next check, on every engine."""

import threading

import numpy as np
import pytest
from hypothesis import given

from spikeserve.models.coding import encode
from spikeserve.models.engines import ENGINES, Stop, create
from spikeserve.models.engines.event.cores import Cores
from spikeserve.models.engines.event.engine import EventEngine
from spikeserve.models.errors import Stopped
from tests.networks import Case, dyadic_cases, toy


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_stops_when_it_is_asked_to(engine: str) -> None:
    running, inputs, stop = create(engine, toy()), encode(np.array([[0, 1], [1, 0]], np.float32), toy().spec), Stop()
    asked, _ = running.run(inputs, stop=stop)
    np.testing.assert_array_equal(asked.spike_counts, running.run(inputs)[0].spike_counts)
    stop.request()
    with pytest.raises(Stopped, match="nobody waits for its answer"):
        running.run(inputs, stop=stop)


def test_a_graph_is_stopped_within_a_loop() -> None:
    stop, stopped = Stop(), []
    engine = create("onnx", toy())
    inputs = encode(np.array([[1, 0]], np.float32), toy().spec, 2**24)

    def run() -> None:
        with pytest.raises(Stopped):
            engine.run(inputs, stop=stop)
        stopped.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    stop.request()
    thread.join(timeout=60)
    assert stopped == [True]


def test_a_library_is_told_whichever_comes_first_the_run_or_the_request() -> None:
    told: list[str] = []
    before, after = Stop(), Stop()
    before.request()
    before.notify(lambda: told.append("before"))
    after.notify(lambda: told.append("after"))
    after.request()
    assert told == ["before", "after"]


@given(dyadic_cases())
def test_a_run_of_events_ends_once_it_has_more_operations_than_it_may(case: Case) -> None:
    engine = create("event", case.network)
    whole, _ = engine.run(case.inputs)
    operations = int(whole.synaptic_operations.sum())
    # Spikes of the last step that would come back to a recurrent layer are counted, though no step follows.
    returns = any(getattr(node, "recurrent", None) for node in case.network.spec.nodes)
    ample, _ = engine.run(case.inputs, stop=Stop(10**9 if returns else max(1, operations)))
    np.testing.assert_array_equal(ample.readout, whole.readout)
    if operations > 1:
        stop = Stop(operations - 1)
        with pytest.raises(Stopped, match="or it has more operations than it may"):
            engine.run(case.inputs, stop=stop)
        assert stop.requested


def test_the_operations_of_a_run_are_those_of_all_its_parts() -> None:
    network, cores = toy(), Cores(2)
    engine, inputs = EventEngine(network, cores=cores), encode(np.ones((64, 2), np.float32), network.spec)
    cores.enough = 0  # so that two threads share even this
    operations = int(engine.answer(inputs).synaptic_operations.sum())
    engine.answer(inputs, stop=Stop(operations))
    with pytest.raises(Stopped):
        engine.answer(inputs, stop=Stop(operations // 4))
