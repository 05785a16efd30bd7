"""Inference holds nobody up, and nothing that runs beside a request changes its answer."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines import Record, RunResult, State, Stop
from spikeserve.models.engines.base import Runner
from spikeserve.service.catalog.loaded import LoadedModel
from tests.serving import serving


class Waiting:
    """An engine that says when it has begun and goes on when a test lets it."""

    def __init__(self, engine: Runner) -> None:
        self.engine = engine
        self.name = engine.name
        self.begun, self.go_on = threading.Event(), threading.Event()

    def run(
        self,
        inputs: DenseInputs,
        state: State | None = None,
        *,
        record: Record = Record.NONE,
        stop: Stop | None = None,
    ) -> tuple[RunResult, State]:
        self.begun.set()
        assert self.go_on.wait(timeout=60)
        return self.engine.run(inputs, state, record=record, stop=stop)


def test_the_process_answers_while_a_model_computes(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    model: LoadedModel = client.app.state.services.catalog.get()  # type: ignore[attr-defined]
    waiting = Waiting(model.engine)
    monkeypatch.setattr(model, "engine", waiting)
    with ThreadPoolExecutor(1) as pool:
        # A thousand steps: only what is over in a moment may run where it would hold others up.
        answer = pool.submit(client.post, "/predict", json={"inputs": [[0, 1]], "time_steps": 1000})
        assert waiting.begun.wait(timeout=60)
        assert client.get("/health/live").status_code == 200
        assert not answer.done()
        waiting.go_on.set()
        assert answer.result().status_code == 200


def test_requests_beside_each_other_get_the_answers_that_they_get_alone(digits_repository: Path) -> None:
    rng = np.random.default_rng(11)
    bodies = [
        {"inputs": rng.random((size, 64)).tolist(), "time_steps": steps, "return": ["raster"]}
        for size in (1, 3, 8)
        for steps in (2, 12, 30)
    ] * 3
    with serving(digits_repository, threads=8) as client:

        def ask(body: dict[str, object]) -> object:
            return client.post("/predict", json=body).json()["predictions"]

        alone = [ask(body) for body in bodies]
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(ask, bodies)) == alone
