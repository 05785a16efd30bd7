"""A server with a model of events, for the tests of sessions."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect

from spikeserve.models.coding.records import make_records
from spikeserve.models.spec.network import Network
from tests.bundles import publish, published
from tests.networks import network_of, task
from tests.serving import Process, running

INFER = "/v2/models/pairs/infer"
ONE = {"name": "inputs", "shape": [1, 1, 2], "datatype": "FP32", "data": [1, 0]}  # one step with one event


def pairs(**events: object) -> Network:
    """Two units, each into a neuron of its own that spikes at every second event: weight 0.5, no leak, threshold 1."""
    return network_of(
        [
            {"type": "Linear", "name": "fc", "in_features": 2, "out_features": 2, "bias": False},
            {"type": "IF", "name": "out"},
        ],
        {"fc.weight": [[0.5, 0], [0, 0.5]]},
        **task(
            2,
            4,
            ["left", "right"],
            "spikes",
            events={"step_us": 1000, "window_steps": 2, "sensor": [2], "polarity": "merged", **events},
        ),
    )


def check_one_message(url: str) -> None:
    """Send one message that closes 20 windows of 'pairs', and fail unless a line of each comes back.

    The server runs them by the engine `event`, many at once.
    """
    with connect(f"ws{url.removeprefix('http')}/models/pairs/stream") as connection:
        connection.send(make_records([0, 40_000], [0, 0]).tobytes())
        connection.send('{"type": "end"}')
        *lines, end = map(json.loads, connection)
    assert [(line["window"], line["events"]) for line in lines] == [(n, int(n in (0, 20))) for n in range(21)]
    assert (end["windows"], end["events"]) == (21, 2)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A server of the model 'pairs', whose windows last 2 ms."""
    root = published(tmp_path_factory, pairs=pairs())
    with running(root) as process:
        yield process


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository of the model 'pairs'."""
    publish(tmp_path, pairs(), "pairs")
    return tmp_path
