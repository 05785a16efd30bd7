"""A session that goes on with another worker, after its own was killed, changes no spike."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from spikeserve.models.coding.records import Records, make_records
from spikeserve.models.spec.network import Network
from tests.bundles import publish
from tests.networks import network_of
from tests.serving import Process, running

UNITS, STEPS, WINDOW = 12, 96, 4  # inputs, time steps and steps of a window


def recurrent() -> Network:
    """Recurrent neurons with a current, a leak and a delay, on dyadic weights: every kind of state that there is."""
    rng = np.random.default_rng(5)

    def weights(*shape: int) -> np.ndarray[Any, Any]:
        return rng.integers(-6, 9, shape) / 8

    return network_of(
        [
            {"type": "Linear", "name": "fc", "in_features": UNITS, "out_features": 16, "bias": False},
            {"type": "CubaLIF", "name": "hidden", "syn_decay": 0.5, "decay": 0.75, "recurrent": {"bias": True}},
            {"type": "Delay", "name": "delay", "delay": 3},
            {"type": "Linear", "name": "out", "in_features": 16, "out_features": 4, "bias": False},
            {"type": "LIF", "name": "classes", "decay": 0.875},
        ],
        {
            "fc.weight": weights(16, UNITS),
            "hidden.recurrent.weight": weights(16, 16) / 8,
            "hidden.recurrent.bias": weights(16),
            "out.weight": weights(4, 16),
        },
        input={
            "shape": [UNITS],
            "events": {"step_us": 1000, "window_steps": WINDOW, "sensor": [UNITS], "polarity": "merged"},
        },
        coding="spikes",
        time_steps=STEPS,
        labels=["a", "b", "c", "d"],
    )


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    publish(tmp_path, recurrent(), "net")
    return tmp_path


def events() -> tuple[Records, np.ndarray[Any, Any]]:
    """Return a stream of records, and the raster of them."""
    raster = (np.random.default_rng(8).random((STEPS, UNITS)) < 0.3).astype(int)
    raster[0, 0] = 1  # so that the stream begins with step 0
    t, unit = raster.nonzero()
    return make_records(t * 1000, unit), raster


def whole(service: Process, raster: np.ndarray[Any, Any]) -> dict[str, Any]:
    answer = httpx.post(f"{service.url}/models/net/predict", json={"inputs": [raster.tolist()]}, timeout=60)
    prediction: dict[str, Any] = answer.json()["predictions"][0]
    return prediction


def open_stream(service: Process) -> ClientConnection:
    return connect(f"ws{service.url.removeprefix('http')}/models/net/stream")


class Traveller:
    """A client that keeps its state, and sends again what comes after it."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self.state: dict[str, Any] | None = None
        self.lines: dict[int, dict[str, Any]] = {}

    def go_on(self, service: Process, windows: int) -> None:
        """Go on with a server for some windows, and take the state along."""
        with open_stream(service) as connection:
            start = 0
            if self.state is not None:
                connection.send(json.dumps({"type": "state", "state": self.state["state"]}))
                start = self.state["t"]
            until = start + windows * WINDOW * 1000
            left = self.records[self.records["t"] >= start]
            connection.send(left[left["t"] < until].tobytes())
            connection.send(json.dumps({"type": "time", "t": until}))
            for _ in range(windows):
                line = json.loads(connection.recv())
                self.lines[line["window"]] = line
            connection.send(json.dumps({"type": "state"}))
            self.state = json.loads(connection.recv())


def test_a_client_goes_on_with_another_worker_after_its_own_was_killed(repository: Path) -> None:
    records, raster = events()
    with running(repository, "--workers", "2") as service:
        service.wait_for("model_ready")  # the other worker's: both have said that they started, and both are killed
        traveller = Traveller(records)
        traveller.go_on(service, 7)
        workers = {entry["worker"] for entry in service.entries if entry["event"] == "worker_started"}
        assert len(workers) == 2
        with open_stream(service) as connection, pytest.raises(ConnectionClosed):  # noqa: PT012
            connection.send(json.dumps({"type": "state", "state": traveller.state["state"]}))  # type: ignore[index]
            for worker in workers:
                os.kill(worker, signal.SIGKILL)
            while True:
                connection.recv()
        for _ in workers:
            service.wait_for("model_ready")
        traveller.go_on(service, STEPS // WINDOW - 7)
        expected = whole(service, raster)
    assert traveller.lines[STEPS // WINDOW - 1]["spike_counts"] == expected["spike_counts"]
