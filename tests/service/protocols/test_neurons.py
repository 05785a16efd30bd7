"""Neurons of every kind behind the service: several spikes a step, membranes of readouts, absent parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spikeserve.service.catalog import limits
from tests.bundles import publish
from tests.networks import network_of
from tests.serving import serving

NODES: list[dict[str, Any]] = [
    {"type": "Delay", "name": "delay", "delay": 1},
    {"type": "Scale", "name": "scale", "scale": 2.0},
    {"type": "Threshold", "name": "several", "fire": "multiple"},
    {"type": "Linear", "name": "fc", "in_features": 2, "out_features": 2, "bias": False},
    {"type": "CubaLI", "name": "out", "decay": 0.5, "syn_decay": 0.5},
]


def test_several_spikes_of_a_step_are_as_many_events(tmp_path: Path) -> None:
    network = network_of(
        NODES,
        {"fc.weight": [[1, 0], [0, 1]]},
        input={"shape": [2], "low": 0, "high": 4},
        coding="spikes",
        time_steps=3,
        readout="last_membrane",
        labels=["a", "b"],
    )
    publish(tmp_path, network)
    body = {"inputs": [[[1.75, 0.5], [0, 0], [4, 4]]], "return": ["raster", "membrane", "spikes_per_node"]}
    with serving(tmp_path) as client:
        answer = client.post("/models/toy/predict", json=body).json()["predictions"][0]
        described = client.get("/models/toy").json()
    # One step later and doubled: 3.5 gives 3 spikes, 1.0 gives 1. They charge j = 3, 1.5 and v = 3, 0.5 * 3 + 1.5; the
    # other neuron a third of that.
    assert answer["raster"] == {"several": {"t": [1, 1, 1, 1], "unit": [0, 0, 0, 1]}}
    assert answer["spikes_per_node"] == {"several": 4}
    assert answer["membrane"]["out"] == [[0, 0], [3, 1], [3, 1]]
    assert (answer["label"], answer["spike_counts"]) == ("a", [0, 0])
    assert answer["synaptic_operations"] == 4
    assert [(node["name"], node["type"]) for node in described["nodes"]] == [
        (node["name"], node["type"]) for node in NODES
    ]


def test_more_spikes_in_a_step_than_can_be_counted_are_422_for_the_request_that_asks_for_them(tmp_path: Path) -> None:
    # A value of 4 has room for a threshold of 2**-23 2**25 times; one of 1 has it 2**23 times, which can be counted.
    network = network_of(
        [{"type": "Threshold", "name": "many", "fire": "multiple", "threshold": 2.0**-23}],
        {},
        input={"shape": [1], "low": 0, "high": 4},
        time_steps=2,
        labels=["only"],
    )
    publish(tmp_path, network)
    with serving(tmp_path) as client:
        refused = client.post("/models/toy/predict", json={"inputs": [[4]]})
        answered = client.post("/models/toy/predict", json={"inputs": [[1]]})
    assert (refused.status_code, refused.json()["error"].partition(",")[0]) == (
        422,
        "node 'many': a neuron fires 33554432 times in one step",
    )
    assert answered.json()["predictions"][0]["spike_counts"] == [2**24]


def test_a_raster_of_more_spikes_than_may_be_recorded_is_422(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A value of 3 has room for a threshold of 1/4 twelve times, at each of two steps: 24 spikes of one neuron.
    network = network_of(
        [{"type": "Threshold", "name": "many", "fire": "multiple", "threshold": 0.25}],
        {},
        input={"shape": [1], "low": 0, "high": 4},
        time_steps=2,
        labels=["only"],
    )
    publish(tmp_path, network)
    body = {"inputs": [[3]], "return": ["raster"]}
    monkeypatch.setattr(limits, "RECORDED_VALUES", 24)
    with serving(tmp_path) as client:
        assert len(client.post("/models/toy/predict", json=body).json()["predictions"][0]["raster"]["many"]["t"]) == 24
    monkeypatch.setattr(limits, "RECORDED_VALUES", 23)
    with serving(tmp_path) as client:
        refused = client.post("/models/toy/predict", json=body)
    assert refused.status_code == 422
    assert refused.json() == {
        "error": "return has 'raster', which for these inputs holds 24 spikes, expected at most 23"
    }
