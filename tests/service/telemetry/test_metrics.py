"""The metrics of a model, worked out by hand, and that no client can make them grow."""

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from tests.bundles import rewrite
from tests.inside import Inside
from tests.serving import serving

BODY = {"inputs": [[0.75, 1.0]]}


def samples(client: TestClient, name: str) -> dict[tuple[str, ...], float]:
    """Return a metric's values by those of its labels but the model and version, which are toy's."""
    found = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            if sample.name == name:
                labels = dict(sample.labels)
                assert (labels.pop("model", "toy"), labels.pop("version", "1")) == ("toy", "1")
                found[tuple(labels.values())] = sample.value
    return found


def test_a_layers_firing_rate_is_its_spikes_by_its_neuron_steps(client: TestClient) -> None:
    # decay 0.5, threshold 1, three steps: 0.75 fires once and 1.0 three times. Two such samples, of two neurons each.
    client.post("/predict", json={"inputs": [[0.75, 1.0]] * 2})
    assert samples(client, "spikeserve_layer_spikes_total") == {("out",): 8}
    assert samples(client, "spikeserve_layer_neuron_steps_total") == {("out",): 2 * 3 * 2}
    # A direct input meets its two weights once each; both samples make one request.
    assert samples(client, "spikeserve_request_synaptic_operations_sum") == {(): 8}
    assert samples(client, "spikeserve_request_synaptic_operations_count") == {(): 1}
    assert samples(client, "spikeserve_dense_synaptic_operations_total") == {(): 8}  # no input was 0
    client.post("/predict", json={"inputs": [[0.75, 0.0]]})
    assert samples(client, "spikeserve_request_synaptic_operations_sum") == {(): 8 + 2}
    assert samples(client, "spikeserve_dense_synaptic_operations_total") == {(): 8 + 4}


def test_the_firing_rates_of_the_training_are_told_before_any_request(repository: Path) -> None:
    def state(manifest: dict[str, Any]) -> None:
        manifest["metrics"] |= {"firing_rate.out": 0.125, "firing_rate.gone": 0.5, "other.out": 0.75}

    rewrite(repository / "toy" / "1", state)
    with serving(repository) as client:
        # The network has one layer, "out"; a rate of a layer that it has not is no series.
        assert samples(client, "spikeserve_layer_training_firing_rate") == {("out",): 0.125}
        client.post("/v2/repository/models/toy/unload")
        assert samples(client, "spikeserve_layer_training_firing_rate") == {}


def test_every_version_is_shown_with_its_state(repository: Path) -> None:
    damaged = repository / "toy" / "1" / "weights.safetensors"
    with serving(repository) as client:
        assert samples(client, "spikeserve_model_versions") == {("ready",): 1}
    damaged.write_bytes(b"")
    with serving(repository) as client:
        assert samples(client, "spikeserve_model_versions") == {("failed",): 1}


def test_nothing_that_clients_send_becomes_a_label(client: TestClient) -> None:
    def series() -> set[str]:
        lines = client.get("/metrics").text.splitlines()
        return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}

    def ask(index: int) -> None:
        client.post("/predict", json=BODY, headers={"X-Request-ID": f"id{index}"})
        client.post(f"/models/model{index}/predict", json=BODY)
        client.post(f"/models/toy/versions/{index + 2}/predict", json=BODY)
        client.get(f"/nothing/{index}?query={index}")
        client.request(f"METHOD{index}", "/predict")
        client.post("/predict", json={f"field{index}": 1})

    ask(0)
    series()
    before = series()
    for index in range(1, 50):
        ask(index)
    assert series() == before


def test_a_version_that_is_gone_is_forgotten(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    client.post("/predict", json=BODY)
    client.post("/predict", json={})
    assert 'model="toy"' in client.get("/metrics").text
    catalog = Inside(client.app).catalog
    served = catalog.models
    monkeypatch.setattr(catalog, "models", {})
    assert "toy" not in client.get("/metrics").text
    monkeypatch.setattr(catalog, "models", served)
    client.post("/predict", json=BODY)
    assert samples(client, "spikeserve_model_requests_total") == {("200",): 1}
    assert samples(client, "spikeserve_layer_spikes_total") == {("out",): 4}


def test_what_is_watched_for_is_there_before_it_happens(client: TestClient) -> None:
    assert samples(client, "spikeserve_queue_depth") == {(): 0}
    for counted in ("shed", "abandoned", "expired"):
        assert samples(client, f"spikeserve_requests_{counted}_total") == {(): 0}
    for told in ("sessions", "session_windows_total", "sessions_refused_total"):
        assert samples(client, f"spikeserve_{told}") == {(): 0}
    refused = {("400",): 0, ("408",): 0, ("431",): 0}
    assert samples(client, "spikeserve_connections_refused_total") == refused


def test_whether_it_is_ready_and_a_load_has_failed_is_told_meanwhile(client: TestClient, repository: Path) -> None:
    def told() -> list[dict[tuple[str, ...], float]]:
        return [samples(client, f"spikeserve_{name}") for name in ("ready", "model_load_failed", "model_versions")]

    assert told() == [{(): 1}, {(): 0}, {("ready",): 1}]
    weights = repository / "toy" / "1" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes() + b"?")
    assert client.post("/v2/repository/models/toy/load").status_code == 400
    assert told() == [{(): 1}, {(): 1}, {("ready",): 1}]
    client.post("/v2/repository/models/toy/unload")
    assert told() == [{(): 0}, {}, {}]
