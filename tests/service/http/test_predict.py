"""What POST …/predict answers: numbers worked out by hand, and the same ones whatever runs before or beside.

Where the time of an answer went: the header Server-Timing, for a request that asks for it.
"""

import json
import math
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

from spikeserve.models.bundle import Golden
from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.coding import encode
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec import Coding, Spec
from spikeserve.models.spec.network import Network
from spikeserve.service.telemetry.record import Times
from tests.bundles import contents, publish, published
from tests.networks import network_of, regression, task, toy
from tests.serving import serving

EVERYTHING = {"return": ["raster", "membrane", "spikes_per_node"]}


def counting(shape: list[int], coding: str = "direct", time_steps: int = 2, **of_input: Any) -> Network:
    """Return a network with an IF of threshold 1 for each unit of its input, which counts what that is sent."""
    return network_of(
        [{"type": "Flatten", "name": "flat"}, {"type": "IF", "name": "out"}],
        {},
        **task(shape, time_steps, [f"unit {unit}" for unit in range(math.prod(shape))], coding, **of_input),
    )


def networks() -> dict[str, Network]:
    two: dict[str, Any] = {"input": {"shape": [2], "low": 0, "high": 10}, "labels": ["left", "right"]}
    weather: dict[str, Any] = {"low": [20, 1000], "high": [30, 2000], "scale": [0.1, 0.001], "offset": [-2, -1]}
    return {
        "toy": toy(),
        "rate": toy(Coding.RATE, time_steps=50),
        "spikes": toy(Coding.SPIKES),
        "regression": regression(units=["rad", "m/s"]),
        "unitless": regression(),
        "odds": regression("probabilities"),
        "multiple": network_of([{"type": "IF", "name": "out", "fire": "multiple"}], {}, time_steps=2, **two),
        "membrane": network_of(
            [{"type": "LI", "name": "out", "decay": 0.5}], {}, **task(1, 3, ["only"], readout="last_membrane")
        ),
        "image": counting([1, 2, 2]),
        "strip": counting([1, 2], "spikes"),
        "series": counting([1, 2], "current", low=-4, high=4),
        "weather": counting([2], out_of_range="clip", resolution=2**-6, **weather),
        "camera": counting([2, 2, 3], "spikes", time_steps=4),
        "deep": network_of(
            [
                {"type": "Linear", "name": "in", "in_features": 2, "out_features": 3, "bias": False},
                {"type": "LIF", "name": "own", "decay": 0.5, "threshold": "per_neuron", "recurrent": {}},
                {"type": "Linear", "name": "out", "in_features": 3, "out_features": 2, "bias": False},
                {"type": "LIF", "name": "same", "decay": 0.5, "threshold": 2},
            ],
            {
                "in.weight": np.ones((3, 2)),
                "own.threshold": [1, 2, 0.5],
                "own.recurrent.weight": np.ones((3, 3)),
                "out.weight": np.ones((2, 3)),
            },
            time_steps=3,
            **two,
        ),
    }


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, digits_like: Network) -> Iterator[TestClient]:
    """A client of all of them, and of two versions of another, which is the default."""
    root = published(tmp_path_factory, **(networks() | {"digits": digits_like}))
    for time_steps in (3, 5):
        publish(root, toy(time_steps=time_steps), "two")
    with serving(root, versions="all", default_model="two") as client:
        yield client


def predict(client: TestClient, model: str, inputs: Any, **more: Any) -> Any:
    """Ask a model, and return the body of its answer."""
    return client.post(f"/models/{model}/predict", json={"inputs": inputs} | more).json()


def counts(client: TestClient, model: str, inputs: Any, **more: Any) -> list[list[int]]:
    """Ask a model, and return the spikes of each sample."""
    return [prediction["spike_counts"] for prediction in predict(client, model, inputs, **more)["predictions"]]


def test_an_answer_is_as_worked_out_by_hand(served: TestClient) -> None:
    # decay 0.5, threshold 1, three steps. 0.75 charges 0.75, then 0.375 + 0.75 = 1.125 (spike, 0.125 left), then
    # 0.8125: one spike. 1.0 fires at each step. The direct current meets its 2 × 2 weights once.
    # softmax of (1, 3): 1 / (1 + e²) = 0.1192.
    answer = predict(served, "toy", [[0.75, 1.0]])
    (prediction,) = answer.pop("predictions")
    assert answer == {"model": "toy", "version": 1, "engine": "event", "time_steps": 3}
    assert prediction.pop("probabilities") == pytest.approx([0.11920292, 0.88079708])
    assert prediction == {"class_index": 1, "label": "right", "spike_counts": [1, 3], "synaptic_operations": 4}


def test_what_return_asks_for_is_added_and_nothing_else(served: TestClient) -> None:
    (everything,) = predict(served, "toy", [[0.75, 1.0]], **EVERYTHING)["predictions"]
    assert everything["raster"] == {"out": {"t": [0, 1, 1, 2], "unit": [1, 0, 1, 1]}}
    assert everything["membrane"] == {"out": [[0.75, 0.0], [0.125, 0.0], [0.8125, 0.0]]}
    assert everything["spikes_per_node"] == {"out": 4}
    (some,) = predict(served, "toy", [[0.75, 1.0]], **{"return": ["raster"]})["predictions"]
    assert some.keys() == everything.keys() - {"membrane", "spikes_per_node"}


def test_a_raster_says_a_neuron_as_often_as_it_fires_in_a_step(served: TestClient) -> None:
    # Two neurons that fire as often as their charge holds the threshold of 1: 2.5 and 0 are two spikes at step 0, and
    # with 0.5 left, three at step 1.
    (prediction,) = predict(served, "multiple", [[2.5, 0]], **EVERYTHING)["predictions"]
    assert prediction["raster"] == {"out": {"t": [0, 0, 1, 1, 1], "unit": [0, 0, 0, 0, 0]}}
    assert prediction["spike_counts"] == [5, 0]


def test_a_membrane_that_is_read_out_is_returned_and_never_spikes(served: TestClient) -> None:
    # One leaky integrator, decay 0.5, a current of 1: its membrane is 1, 1.5, 1.75.
    (prediction,) = predict(served, "membrane", [[1]], **EVERYTHING)["predictions"]
    assert prediction["membrane"] == {"out": [[1.0], [1.5], [1.75]]}
    assert (prediction["raster"], prediction["spikes_per_node"], prediction["spike_counts"]) == ({}, {}, [0])


def test_a_regression_answers_numbers_with_names_and_units_and_no_class(served: TestClient) -> None:
    # A Linear that passes both inputs on, takes 1 from the second, and is read as the mean of three equal steps. Two
    # inputs that are not 0 meet two weights each. It has no neurons, and so nothing that is recorded.
    answer = predict(served, "regression", [[0.25, 3], [0.5, 0]], **EVERYTHING)
    nothing: dict[str, Any] = {"raster": {}, "membrane": {}, "spikes_per_node": {}, "spike_counts": [0, 0]}
    assert answer.pop("predictions") == [
        {"values": [0.25, 2.0], "synaptic_operations": 4} | nothing,
        {"values": [0.5, -1.0], "synaptic_operations": 2} | nothing,
    ]
    assert (answer["names"], answer["units"]) == (["angle", "speed"], ["rad", "m/s"])
    described = served.get("/models/regression").json()
    assert (described["scores"], described["labels"]) == ("values", ["angle", "speed"])
    assert (described["readout"], described["units"]) == ("mean", ["rad", "m/s"])
    without = predict(served, "unitless", [[0.25, 3]])
    assert (without["names"], "units" in without) == (["angle", "speed"], False)
    assert served.get("/models/unitless").json()["units"] is None


def test_probabilities_are_answered_as_they_are_read(served: TestClient) -> None:
    # The outputs 0.25 and 1.75 - 1 are a distribution already, and no softmax is made of them.
    (prediction,) = predict(served, "odds", [[0.25, 1.75]])["predictions"]
    assert (prediction["probabilities"], prediction["label"]) == ([0.25, 0.75], "speed")


def test_a_request_runs_for_as_long_as_it_says_or_as_its_raster_is(served: TestClient) -> None:
    for model, inputs, more in (("toy", [[0, 1]], {"time_steps": 7}), ("spikes", [[[0, 1]] * 7], {})):
        answer = predict(served, model, inputs, **more)
        assert (answer["time_steps"], answer["predictions"][0]["spike_counts"]) == (7, [0, 7])


def test_a_sample_of_several_axes_is_nested_like_its_shape_or_flat(served: TestClient) -> None:
    # Each of 1 × 2 × 2 pixels straight into its neuron: those of at least 1 fire at each of the two steps.
    both = counts(served, "image", [[[[1, 0], [0, 1]]], [0, 1, 0, 0]])
    assert both == [[2, 0, 0, 2], [0, 2, 0, 0]]
    assert counts(served, "image", [[1, 0, 0, 1]]) == counts(served, "image", [[[[1, 0], [0, 1]]]]) == both[:1]
    assert predict(served, "image", [[1, 0, 0]]) == {"error": "inputs[0] has shape 3, expected 1×2×2, or 4 flat"}
    ragged = {"error": "inputs[0] has rows of different lengths, expected shape 1×2×2"}
    assert predict(served, "image", [[[[1, 0], [0]]]]) == ragged
    # And so are the steps of a raster.
    nested = counts(served, "strip", [[[[1, 0]], [[1, 1]]]])
    assert nested == counts(served, "strip", [[[1, 0], [1, 1]]]) == [[2, 1]]


def test_a_time_series_is_the_current_of_each_step_however_it_is_nested(served: TestClient) -> None:
    # Decay 1, threshold 1. The currents 0.75, 0.5, 0.5 charge 0.75, 1.25 (spike, 0.25 left), 0.75: one spike. The
    # others, -1, 2, 0, charge -1, 1 (spike, 0 left), 0: one spike. Trained with two steps, it takes three.
    flat = [[0.75, -1], [0.5, 2], [0.5, 0]]
    answer = predict(served, "series", [flat])
    assert answer["time_steps"] == 3
    assert answer["predictions"][0]["spike_counts"] == [1, 1]
    assert predict(served, "series", [[[step] for step in flat]]) == answer
    assert served.get("/models/series").json()["coding"] == "current"
    tensor = {"name": "inputs", "shape": [1, 3, 1, 2], "datatype": "FP32", "data": [0.75, -1, 0.5, 2, 0.5, 0]}
    v2 = served.post("/v2/models/series/infer", json={"inputs": [tensor]}).json()
    assert {output["name"]: output["data"] for output in v2["outputs"]}["spike_counts"] == [1, 1]
    assert served.get("/v2/models/series").json()["inputs"][0]["shape"] == [-1, -1, 1, 2]


def test_a_client_sends_raw_values_of_each_features_own_unit_and_no_value_is_too_far(served: TestClient) -> None:
    # 20 to 30 degrees become 0 to 1, and 1000 to 2000 hectopascal too. 25 and 2000 are 0.5 and 1, which at decay 1 and
    # threshold 1 give 1 and 2 spikes in two steps. 99 degrees and 0 hectopascal are taken for 30 and 1000: 2 and 0.
    assert counts(served, "weather", [[25, 2000], [99, 0]]) == [[1, 2], [2, 0]]
    described = served.get("/models/weather").json()["input"]
    assert described == {"shape": [2], "low": [20, 1000], "high": [30, 2000], "out_of_range": "clip", "events": None}


def test_a_raster_its_events_and_its_pixels_are_one_sample(served: TestClient) -> None:
    # Channel 1, row 0, column 2 is unit (1 * 2 + 0) * 3 + 2 = 8; it spikes at steps 0 and 3.
    raster = np.zeros((4, 2, 2, 3), int)
    raster[[0, 3], 1, 0, 2] = 1
    pixels = {"t": [0, 3], "x": [2, 2], "y": [0, 0], "p": [1, 1]}
    answer = predict(served, "camera", [raster.tolist(), {"t": [0, 3], "unit": [8, 8]}, pixels])
    first, *others = answer["predictions"]
    assert (answer["time_steps"], first["label"], first["spike_counts"][8]) == (4, "unit 8", 2)
    assert others == [first, first]
    # Of 2 rows of 3 columns: channel 0, row 1, column 0 is unit (0 * 2 + 1) * 3 + 0 = 3, and channel 1, row 1, column 2
    # is unit (1 * 2 + 1) * 3 + 2 = 11. The first spikes once, the second twice.
    (found,) = counts(served, "camera", [{"t": [0, 1, 2], "x": [0, 2, 2], "y": [1, 1, 1], "p": [0, 1, 1]}])
    assert {unit: count for unit, count in enumerate(found) if count} == {3: 1, 11: 2}


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
    golden = Golden(drawn, result.spike_counts, result.readout)
    ModelRepository(tmp_path).publish(replace(contents(network), golden=golden))
    with serving(tmp_path) as client:
        assert client.get("/models/toy/examples").json() == {"inputs": [[0, 0]]}


def test_a_description_says_the_thresholds_and_what_a_dense_network_does(served: TestClient) -> None:
    # A Linear of 2 × 3 weights that sees the same current at each step, and so counts once; a recurrent LIF of 3
    # neurons, 9 weights at each step, with a threshold of each; and a Linear of 3 × 2.
    described = served.get("/models/deep").json()
    assert [node["threshold"] for node in described["nodes"]] == [None, [1, 2, 0.5], None, 2]
    assert described["dense_operations"] == {"once": 6, "per_step": 9 + 6}


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
