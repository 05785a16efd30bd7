"""A run that is asked to stop does so at its next check, on every engine."""

import threading

import numpy as np
import pytest

from spikeserve.models.coding import encode
from spikeserve.models.engines import ENGINES, Stop, create
from spikeserve.models.errors import Stopped
from tests.networks import toy


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
