"""A run that is asked to stop does so at its next check, on every engine."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest

from spikeserve.models.coding import DenseInputs, encode
from spikeserve.models.engines import EngineName, RunResult, Stop, create
from spikeserve.models.engines.event import EventEngine
from spikeserve.models.engines.event.carried import Carried
from spikeserve.models.engines.event.chunk import Chunk
from spikeserve.models.engines.onnx.external import ContractEngine
from spikeserve.models.errors import Stopped
from tests.external import contract
from tests.mixing import counting
from tests.networks import toy


@pytest.mark.parametrize("engine", EngineName)
def test_every_engine_stops_when_it_is_asked_to(engine: EngineName) -> None:
    running, inputs, stop = create(engine, toy()), encode(np.array([[0, 1], [1, 0]], np.float32), toy().spec), Stop()
    asked, _ = running.run(inputs, stop=stop)
    np.testing.assert_array_equal(asked.spike_counts, running.run(inputs)[0].spike_counts)
    stop.request()
    with pytest.raises(Stopped, match="nobody waits for its answer"):
        running.run(inputs, stop=stop)


def test_a_batch_is_left_between_two_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    stop, begun = Stop(), []

    class Watched(Chunk):
        def run(self) -> tuple[RunResult, Sequence[Carried]]:
            begun.append(self.part.start)
            done = super().run()
            if len(begun) == 2:
                stop.request()
            return done

    monkeypatch.setattr("spikeserve.models.engines.event.engine.CHUNK_BYTES", 1)
    monkeypatch.setattr("spikeserve.models.engines.event.engine.Chunk", Watched)
    inputs = DenseInputs(np.ones((1, 40, 2), np.float32), 3)
    with pytest.raises(Stopped):
        EventEngine(toy()).run(inputs, stop=stop)
    assert begun == [0, 1, 2]


def test_a_long_run_is_left_between_two_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spikeserve.models.engines.event.chunk.LONG", 0.0)

    class Third(Stop):
        looks = 0

        def check(self) -> None:
            self.looks += 1
            if self.looks == 3:
                self.request()
            super().check()

    stop, inputs = Third(), DenseInputs(np.ones((1, 1, 2), np.float32), 3)
    with pytest.raises(Stopped):
        EventEngine(toy()).run(inputs, stop=stop)
    assert stop.looks == 3


def test_a_graph_is_stopped_within_a_loop() -> None:
    stop, stopped = Stop(), []
    engine, inputs = (
        ContractEngine(contract(), counting().SerializeToString()),
        encode(np.array([[1, 0]], np.float32), contract()),
    )

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
