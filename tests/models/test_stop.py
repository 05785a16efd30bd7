"""A run that is asked to stop does so at its next check, on every engine."""

import threading
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from spikeserve.models.coding import DenseInputs, encode
from spikeserve.models.engines import ENGINES, Stop, create
from spikeserve.models.engines.event import call
from spikeserve.models.engines.event.call import Call
from spikeserve.models.engines.event.engine import EventEngine
from spikeserve.models.engines.event.table import NEEDS_ROOM, STOPPED
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


def test_a_batch_is_left_between_two_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    stop, begun = Stop(), []

    class Watched(Call):
        def run_part(self, first: int, end: int) -> None:
            begun.append(first)
            super().run_part(first, end)
            if len(begun) == 2:
                stop.request()

    monkeypatch.setattr("spikeserve.models.engines.event.call.CHUNK_BYTES", 1)
    monkeypatch.setattr("spikeserve.models.engines.event.engine.Call", Watched)
    inputs = DenseInputs(np.ones((1, 40, 2), np.float32), 3)
    with pytest.raises(Stopped):
        EventEngine(toy()).run(inputs, stop=stop)
    assert begun == [0, 1, 2]


def test_a_run_is_left_between_two_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call, "ARENA", 4)
    monkeypatch.setattr(call._room, "arena", np.empty(4, np.uint8))
    stop, rows = Stop(), []

    class Watched(Call):
        def attend(self, reason: int, run: Any) -> NDArray[Any]:  # the first node lacks room
            rows.append((reason, int(run["row"])))
            stop.request()
            return super().attend(reason, run)

    monkeypatch.setattr("spikeserve.models.engines.event.engine.Call", Watched)
    with pytest.raises(Stopped):
        EventEngine(toy()).run(DenseInputs(np.ones((1, 1, 2), np.float32), 3), stop=stop)
    assert rows == [(NEEDS_ROOM, 0), (STOPPED, 0)]


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
