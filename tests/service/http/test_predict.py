"""What a model says of itself, and its examples: its golden samples as a request.

Where the time of an answer went: the header Server-Timing, for a request that asks for it.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray

from spikeserve.models.bundle import GoldenSamples
from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.coding import encode
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec import Coding, Spec
from spikeserve.models.spec.network import Network
from spikeserve.service.telemetry.record import Times
from tests.bundles import contents, publish, published
from tests.networks import network_of, regression, task, toy
from tests.serving import serving


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A client of all of them, and of two versions of another, which is the default."""
    described = {name: network for name, (network, _) in DESCRIBED.items()}
    root = published(tmp_path_factory, spikes=toy(Coding.SPIKES), **described)
    for time_steps in (3, 5):
        publish(root, toy(time_steps=time_steps), "two")
    with serving(root, versions="all", default_model="two") as client:
        yield client


def predict(client: TestClient, model: str, inputs: Any, **more: Any) -> Any:
    """Ask a model, and return the body of its answer."""
    return client.post(f"/models/{model}/predict", json={"inputs": inputs} | more).json()


DEEP = [
    {"type": "Linear", "name": "in", "in_features": 2, "out_features": 3, "bias": False},
    {"type": "LIF", "name": "own", "decay": 0.5, "threshold": "per_neuron", "recurrent": {}},
    {"type": "Linear", "name": "out", "in_features": 3, "out_features": 2, "bias": False},
    {"type": "LIF", "name": "same", "decay": 0.5, "threshold": 2},
]
THREE: dict[str, Any] = {"own.recurrent.weight": np.ones((3, 3)), "own.threshold": [1, 2, 0.5]}
ONES: dict[str, Any] = {"in.weight": np.ones((3, 2)), "out.weight": np.ones((2, 3))} | THREE
WEATHER: dict[str, Any] = {"low": [20, 1000], "high": [30, 2000], "out_of_range": "clip"}
DESCRIBED: dict[str, tuple[Network, dict[str, Any]]] = {
    "series": (toy(Coding.CURRENT), {"coding": "current", "calibration": None}),
    "regression": (
        regression(units=["rad", "m/s"]),
        {"scores": "values", "labels": ["angle", "speed"], "readout": "mean", "units": ["rad", "m/s"]},
    ),
    "unitless": (regression(), {"units": None}),
    "weather": (
        network_of([{"type": "IF", "name": "out"}], {}, **task(2, 2, "ab", scale=[0.1, 0.001], **WEATHER)),
        {"input": {"shape": [2], "events": None, "feature_names": None} | WEATHER},
    ),
    # A Linear of 2 × 3 weights that sees the same current at each step, and so counts once; a recurrent LIF of 3
    # neurons, 9 weights at each step, with a threshold of each; and a Linear of 3 × 2.
    "deep": (network_of(DEEP, ONES, **task(2, 3, "ab")), {"dense_operations": {"once": 6, "per_step": 9 + 6}}),
}


@pytest.mark.parametrize("model", DESCRIBED)
def test_a_description_says_what_a_client_needs(served: TestClient, model: str) -> None:
    expected, described = DESCRIBED[model][1], served.get(f"/models/{model}").json()
    assert {name: described[name] for name in expected} == expected
    thresholds = [node["threshold"] for node in described["nodes"]]
    assert model != "deep" or thresholds == [None, [1, 2, 0.5], None, 2]


def test_a_regression_answers_with_names_and_units(served: TestClient) -> None:
    answer = predict(served, "regression", [[0.25, 3]])
    assert (answer["names"], answer["units"], answer["engine"]) == (["angle", "speed"], ["rad", "m/s"], "event")
    assert "units" not in predict(served, "unitless", [[0.25, 3]])


def counts(client: TestClient, model: str, inputs: Any, **more: Any) -> list[list[int]]:
    """Ask a model, and return the spikes of each sample."""
    return [prediction["spike_counts"] for prediction in predict(client, model, inputs, **more)["predictions"]]


def test_each_version_is_described_and_a_path_without_one_means_the_newest(served: TestClient) -> None:
    first, second, third = (served.get(f"/models/two/versions/{version}") for version in (1, 2, 3))
    assert (first.json()["version"], first.json()["time_steps"]) == (1, 3)
    assert second.json() == served.get("/models/two").json()
    assert third.status_code == 404


def test_the_examples_of_a_model_are_its_golden_samples_as_a_request(served: TestClient) -> None:
    golden = contents(toy(Coding.SPIKES)).golden
    examples = served.get("/models/spikes/examples").json()
    assert counts(served, "spikes", **examples) == golden.spike_counts.tolist()
    assert sum(len(example["t"]) for example in examples["inputs"]) == golden.inputs.steps.sum() > 0
    assert served.get("/models/other/examples").status_code == 404


def examples_of(root: Path, spec: Spec, raw: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the examples of a toy with these golden samples, once they are known to give the same spikes."""
    bundle = contents(Network(spec, toy().tensors), samples=raw)
    ModelRepository(root).publish(bundle)
    with serving(root) as client:
        examples = client.get("/models/toy/examples").json()
        assert counts(client, "toy", **examples) == bundle.golden.spike_counts.tolist()
    told = np.array(examples["inputs"], np.float32)
    np.testing.assert_array_equal(encode(told, spec).steps, bundle.golden.inputs.steps)
    return told


@pytest.mark.parametrize("coding", [Coding.DIRECT, Coding.CURRENT])
def test_examples_that_are_no_spikes_are_the_raw_values(coding: Coding, tmp_path: Path) -> None:
    # Normalised as 3.7 × value − 1.1, each operation in float32, whose inverse often rounds to a neighbour.
    normalised = {"shape": [2], "high": 10, "scale": 3.7, "offset": -1.1}
    spec = Spec.read(toy(coding).spec.model_dump(mode="json") | {"input": normalised})
    raw = np.random.default_rng(3).random((20, 3, 2) if coding is Coding.CURRENT else (20, 2), np.float32) * 10
    np.testing.assert_allclose(examples_of(tmp_path, spec, raw), raw, rtol=1e-5)


@pytest.mark.parametrize("coding", [Coding.RATE, Coding.LATENCY])
@pytest.mark.parametrize("time_steps", [1, 2, 7])
def test_examples_of_rate_and_latency_coding_are_the_same(coding: Coding, time_steps: int, tmp_path: Path) -> None:
    # Raw values of 2 to 10 are normalised to 0 to 1, 0.125 × value − 0.25, both ends among them.
    raw = np.random.default_rng(3).uniform(2, 10, (20, 2)).astype(np.float32)
    raw[0], raw[1] = 2, 10
    declared = {"shape": [2], "low": 2, "high": 10, "scale": 0.125, "offset": -0.25}
    spec = Spec.read(toy(coding, time_steps).spec.model_dump(mode="json") | {"input": declared})
    told = examples_of(tmp_path, spec, raw)
    assert told[:2].tolist() == [[2, 2], [10, 10]]  # nothing spikes, and all that can does


def test_spikes_that_no_value_gives_are_no_examples(tmp_path: Path) -> None:
    # Drawn by the seed 1, of which those of 7 steps are hardly those of any value by the seed 0; a silent sample is.
    network = toy(Coding.RATE, 7)
    drawn = encode(np.array([[0.5, 0.5], [0, 0]], np.float32), network.spec, seed=1)
    result, _ = ReferenceEngine(network).run(drawn)
    golden = GoldenSamples(drawn, result.spike_counts, result.readout)
    ModelRepository(tmp_path).publish(replace(contents(network), golden=golden))
    with serving(tmp_path) as client:
        assert client.get("/models/toy/examples").json() == {"inputs": [[0, 0]]}


PARTS = ["decode", "queue", "encode", "run", "render"]
ASKED = {"X-Server-Timing": "1"}
BODY = {"inputs": [[0, 1]]}
INFER = {"inputs": [{"name": "inputs", "shape": [1, 2], "datatype": "FP32", "data": [0, 1]}]}


def parts_of(header: str) -> dict[str, float]:
    return {name: float(value) for name, value in re.findall(r"(\w+);dur=([\d.]+)(?:, |$)", header)}


def test_the_parts_are_those_of_the_times() -> None:
    # Decoded in 1 ms, encoded from 4 to 7 ms, run from 9 to 15 ms in three runs side by side: 9 - 1 - 3 were waited.
    now = perf_counter()
    times = Times(now - 0.020, decode_seconds=0.001, encode_began=now - 0.016, encode_ended=now - 0.013)
    times.ran(now - 0.0105, now - 0.006)
    times.ran(now - 0.011, now - 0.005)
    times.ran(now - 0.010, now - 0.007)
    parts = parts_of(times.timing(now).decode())
    assert list(parts) == PARTS
    assert [parts[part] for part in PARTS[:4]] == pytest.approx([1, 5, 3, 6], abs=0.002)
    assert parts["render"] == pytest.approx(5, abs=0.002)


@pytest.mark.parametrize(("path", "body"), [("/predict", BODY), ("/v2/models/toy/infer", INFER)])
@pytest.mark.parametrize("padding", [0, 2**15])  # a longer body goes to another thread
def test_an_answer_has_its_times_if_asked(client: TestClient, path: str, body: dict[str, object], padding: int) -> None:
    content = json.dumps(body) + " " * padding
    sent = {"Content-Type": "application/json"}
    began = perf_counter()
    answer = client.post(path, content=content, headers=sent | ASKED)
    took = 1000 * (perf_counter() - began)
    parts = parts_of(answer.headers["Server-Timing"])
    assert list(parts) == PARTS
    assert 0 < sum(parts.values()) <= took
    assert all(parts[part] > 0 for part in ("decode", "encode", "run"))
    assert "Server-Timing" not in client.post(path, content=content, headers=sent).headers
