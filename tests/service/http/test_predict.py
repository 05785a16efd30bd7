"""What POST …/predict answers: numbers worked out by hand, and the same ones whatever runs before or beside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from spikeserve.models.bundle import Golden
from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.coding import encode
from spikeserve.models.engines import EngineName
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec import Coding, Spec
from spikeserve.models.spec.network import Network
from tests.bundles import contents, publish
from tests.networks import network_of, regression, toy
from tests.serving import serving


def test_an_answer_is_as_worked_out_by_hand(client: TestClient) -> None:
    # decay 0.5, threshold 1, three steps. 0.75 charges 0.75, then 0.375 + 0.75 = 1.125 (spike, 0.125 left), then
    # 0.8125: one spike. 1.0 fires at each step. The direct current meets its 2 × 2 weights once.
    # softmax of (1, 3): 1 / (1 + e²) = 0.1192.
    answer = client.post("/predict", json={"inputs": [[0.75, 1.0]]}).json()
    (prediction,) = answer.pop("predictions")
    assert answer == {"model": "toy", "version": 1, "engine": "event", "time_steps": 3}
    assert prediction.pop("probabilities") == pytest.approx([0.11920292, 0.88079708])
    assert prediction == {"class_index": 1, "label": "right", "spike_counts": [1, 3], "synaptic_operations": 4}


def test_what_return_asks_for_is_added_and_nothing_else(client: TestClient) -> None:
    request = {"inputs": [[0.75, 1.0]], "return": ["raster", "membrane", "spikes_per_node"]}
    everything = client.post("/predict", json=request).json()["predictions"][0]
    assert everything["raster"] == {"out": {"t": [0, 1, 1, 2], "unit": [1, 0, 1, 1]}}
    assert everything["membrane"] == {"out": [[0.75, 0.0], [0.125, 0.0], [0.8125, 0.0]]}
    assert everything["spikes_per_node"] == {"out": 4}
    some = client.post("/predict", json=request | {"return": ["raster"]}).json()["predictions"][0]
    assert some.keys() == everything.keys() - {"membrane", "spikes_per_node"}


def test_a_raster_says_a_neuron_as_often_as_it_fires_in_a_step(tmp_path: Path) -> None:
    # Two neurons that fire as often as their charge holds the threshold of 1: 2.5 and 0 are two spikes at step 0, and
    # with 0.5 left, three at step 1.
    several = network_of(
        [{"type": "IF", "name": "out", "fire": "multiple"}],
        {},
        input={"shape": [2], "low": 0, "high": 10},
        time_steps=2,
        labels=["left", "right"],
    )
    publish(tmp_path, several)
    with serving(tmp_path) as client:
        answer = client.post("/predict", json={"inputs": [[2.5, 0]], "return": ["raster"]}).json()
    (prediction,) = answer["predictions"]
    assert prediction["raster"] == {"out": {"t": [0, 0, 1, 1, 1], "unit": [0, 0, 0, 0, 0]}}
    assert prediction["spike_counts"] == [5, 0]


def test_a_membrane_that_is_read_out_is_returned_and_never_spikes(tmp_path: Path) -> None:
    # One leaky integrator, decay 0.5, a current of 1: its membrane is 1, 1.5, 1.75.
    readout = network_of(
        [{"type": "LI", "name": "out", "decay": 0.5}],
        {},
        input={"shape": [1]},
        time_steps=3,
        readout="last_membrane",
        labels=["only"],
    )
    publish(tmp_path, readout)
    with serving(tmp_path) as client:
        request = {"inputs": [[1]], "return": ["raster", "membrane", "spikes_per_node"]}
        prediction = client.post("/predict", json=request).json()["predictions"][0]
    assert prediction["membrane"] == {"out": [[1.0], [1.5], [1.75]]}
    assert (prediction["raster"], prediction["spikes_per_node"], prediction["spike_counts"]) == ({}, {}, [0])


def test_a_regression_answers_numbers_with_names_and_units_and_no_class(tmp_path: Path) -> None:
    # A Linear that passes both inputs on, takes 1 from the second, and is read as the mean of three equal steps. Two
    # inputs that are not 0 meet two weights each.
    publish(tmp_path, regression(units=["rad", "m/s"]))
    with serving(tmp_path) as client:
        answer = client.post("/predict", json={"inputs": [[0.25, 3], [0.5, 0]]}).json()
        described = client.get("/models/toy").json()
    assert answer.pop("predictions") == [
        {"values": [0.25, 2.0], "spike_counts": [0, 0], "synaptic_operations": 4},
        {"values": [0.5, -1.0], "spike_counts": [0, 0], "synaptic_operations": 2},
    ]
    assert (answer["names"], answer["units"]) == (["angle", "speed"], ["rad", "m/s"])
    assert (described["scores"], described["labels"]) == ("values", ["angle", "speed"])
    assert (described["readout"], described["units"]) == ("mean", ["rad", "m/s"])


def test_a_network_without_neurons_has_nothing_recorded_to_return(tmp_path: Path) -> None:
    publish(tmp_path, regression())
    request = {"inputs": [[0.25, 3]], "return": ["raster", "membrane", "spikes_per_node"]}
    with serving(tmp_path) as client:
        (prediction,) = client.post("/predict", json=request).json()["predictions"]
    assert (prediction["raster"], prediction["membrane"], prediction["spikes_per_node"]) == ({}, {}, {})


def test_values_without_units_are_answered_with_their_names_alone(tmp_path: Path) -> None:
    publish(tmp_path, regression())
    with serving(tmp_path) as client:
        answer = client.post("/predict", json={"inputs": [[0.25, 3]]}).json()
        assert client.get("/models/toy").json()["units"] is None
    assert (answer["names"], "units" in answer) == (["angle", "speed"], False)


def test_probabilities_are_answered_as_they_are_read(tmp_path: Path) -> None:
    # The outputs 0.25 and 1.75 - 1 are a distribution already, and no softmax is made of them.
    publish(tmp_path, regression("probabilities"))
    with serving(tmp_path) as client:
        (prediction,) = client.post("/predict", json={"inputs": [[0.25, 1.75]]}).json()["predictions"]
    assert (prediction["probabilities"], prediction["label"]) == ([0.25, 0.75], "speed")


def test_time_steps_say_how_long_a_request_runs(client: TestClient) -> None:
    answer = client.post("/predict", json={"inputs": [[0, 1]], "time_steps": 5}).json()
    assert answer["time_steps"] == 5
    assert answer["predictions"][0]["spike_counts"] == [0, 5]


def test_a_request_starts_from_rest_whatever_ran_before(client: TestClient) -> None:
    # A constant 0.6 charges 0.60, 0.90, 1.05: one spike.
    quiet, loud = {"inputs": [[0.6, 0.0]]}, {"inputs": [[9.0, 9.0]]}
    alone = client.post("/models/toy/predict", json=quiet).json()
    client.post("/models/toy/predict", json=loud)
    assert alone["predictions"][0]["spike_counts"] == [1, 0]
    assert client.post("/models/toy/predict", json=quiet).json() == alone


def test_a_sample_gets_the_same_answer_in_a_batch_and_alone(digits_repository: Path) -> None:
    samples = np.random.default_rng(3).random((17, 64)).tolist()
    with serving(digits_repository) as client:
        together = client.post("/predict", json={"inputs": samples}).json()["predictions"]
        alone = [client.post("/predict", json={"inputs": [sample]}).json()["predictions"][0] for sample in samples]
    assert alone == together


def test_a_seed_gives_the_same_spikes_at_any_place_in_a_batch(tmp_path: Path) -> None:
    publish(tmp_path, toy(Coding.RATE, time_steps=50))
    with serving(tmp_path) as client:

        def counts(seed: int, *samples: list[float]) -> list[list[int]]:
            answer = client.post("/predict", json={"inputs": samples, "seed": seed, "return": ["raster"]}).json()
            return [prediction["raster"] for prediction in answer["predictions"]]

        (alone,) = counts(2**64 - 1, [0.5, 0.25])
        assert counts(2**64 - 1, [1.0, 0.0], [0.5, 0.25])[1] == alone
        assert counts(7, [0.5, 0.25]) != [alone]


def test_a_sample_of_several_axes_is_nested_like_its_shape_or_flat(tmp_path: Path) -> None:
    # Each of 1 × 2 × 2 pixels straight into its neuron: those of at least 1 fire at each of the two steps.
    network = network_of(
        [{"type": "IF", "name": "eye"}, {"type": "Flatten", "name": "flat"}, {"type": "IF", "name": "out"}],
        {},
        input={"shape": [1, 2, 2]},
        time_steps=2,
        labels=["a", "b", "c", "d"],
    )
    publish(tmp_path, network)
    with serving(tmp_path) as client:
        answer = client.post("/predict", json={"inputs": [[[[1, 0], [0, 1]]]]}).json()
        assert client.post("/predict", json={"inputs": [[1, 0, 0, 1]]}).json() == answer
        both = client.post("/predict", json={"inputs": [[[[1, 0], [0, 1]]], [0, 1, 0, 0]]}).json()
        short = client.post("/predict", json={"inputs": [[1, 0, 0]]})
        ragged = client.post("/predict", json={"inputs": [[[[1, 0], [0]]]]})
    assert answer["predictions"][0]["spike_counts"] == [2, 0, 0, 2]
    assert [prediction["spike_counts"] for prediction in both["predictions"]] == [[2, 0, 0, 2], [0, 2, 0, 0]]
    assert short.json() == {"error": "inputs[0] has shape 3, expected 1×2×2, or 4 flat"}
    assert ragged.json() == {"error": "inputs[0] has rows of different lengths, expected shape 1×2×2"}


def test_the_steps_of_a_raster_may_be_flat(tmp_path: Path) -> None:
    network = network_of(
        [{"type": "Flatten", "name": "flat"}, {"type": "IF", "name": "out"}],
        {},
        input={"shape": [1, 2]},
        coding="spikes",
        time_steps=2,
        labels=["a", "b"],
    )
    publish(tmp_path, network)
    with serving(tmp_path) as client:
        nested = client.post("/predict", json={"inputs": [[[[1, 0]], [[1, 1]]]]}).json()
        assert nested["predictions"][0]["spike_counts"] == [2, 1]
        assert client.post("/predict", json={"inputs": [[[1, 0], [1, 1]]]}).json() == nested


def test_a_time_series_is_the_current_of_each_step_however_it_is_nested(tmp_path: Path) -> None:
    # Decay 1, threshold 1. The currents 0.75, 0.5, 0.5 charge 0.75, 1.25 (spike, 0.25 left), 0.75: one spike. The
    # others, -1, 2, 0, charge -1, 1 (spike, 0 left), 0: one spike. Trained with two steps, it takes three.
    network = network_of(
        [{"type": "Flatten", "name": "flat"}, {"type": "IF", "name": "out"}],
        {},
        input={"shape": [1, 2], "low": -4, "high": 4},
        coding="current",
        time_steps=2,
        labels=["a", "b"],
    )
    publish(tmp_path, network)
    flat = [[0.75, -1], [0.5, 2], [0.5, 0]]
    with serving(tmp_path) as client:
        answer = client.post("/predict", json={"inputs": [flat]}).json()
        nested = client.post("/predict", json={"inputs": [[[step] for step in flat]]}).json()
        described = client.get("/models/toy").json()
        tensor = {"name": "inputs", "shape": [1, 3, 1, 2], "datatype": "FP32", "data": [0.75, -1, 0.5, 2, 0.5, 0]}
        v2 = client.post("/v2/models/toy/infer", json={"inputs": [tensor]}).json()
        metadata = client.get("/v2/models/toy").json()
    assert answer["time_steps"] == 3
    assert answer["predictions"][0]["spike_counts"] == [1, 1]
    assert nested == answer
    assert described["coding"] == "current"
    assert metadata["inputs"][0]["shape"] == [-1, -1, 1, 2]
    assert {output["name"]: output["data"] for output in v2["outputs"]}["spike_counts"] == [1, 1]


def test_a_client_sends_raw_values_of_each_features_own_unit_and_no_value_is_too_far(tmp_path: Path) -> None:
    # 20 to 30 degrees become 0 to 1, and 1000 to 2000 hectopascal too. 25 and 2000 are 0.5 and 1, which at decay 1 and
    # threshold 1 give 1 and 2 spikes in two steps. 99 degrees and 0 hectopascal are taken for 30 and 1000: 2 and 0.
    network = network_of(
        [{"type": "IF", "name": "out"}],
        {},
        input={
            "shape": [2], "low": [20, 1000], "high": [30, 2000], "scale": [0.1, 0.001], "offset": [-2, -1],
            "out_of_range": "clip", "resolution": 2**-6,
        },
        time_steps=2,
        labels=["warm", "high"],
    )  # fmt: skip
    publish(tmp_path, network)
    with serving(tmp_path) as client:
        answer = client.post("/predict", json={"inputs": [[25, 2000], [99, 0]]}).json()
        described = client.get("/models/toy").json()["input"]
    assert [prediction["spike_counts"] for prediction in answer["predictions"]] == [[1, 2], [2, 0]]
    assert described == {"shape": [2], "low": [20, 1000], "high": [30, 2000], "out_of_range": "clip", "events": None}


@pytest.fixture
def camera() -> Network:
    """Two channels of 2 × 3 pixels, each counted by a neuron of its own."""
    return network_of(
        [{"type": "Flatten", "name": "flat"}, {"type": "IF", "name": "out"}],
        {},
        input={"shape": [2, 2, 3]},
        coding="spikes",
        time_steps=4,
        labels=[f"unit {unit}" for unit in range(12)],
    )


def test_a_raster_its_events_and_its_pixels_are_one_sample(tmp_path: Path, camera: Network) -> None:
    # Channel 1, row 0, column 2 is unit (1 * 2 + 0) * 3 + 2 = 8; it spikes at steps 0 and 3.
    publish(tmp_path, camera)
    raster = np.zeros((4, 2, 2, 3), int)
    raster[[0, 3], 1, 0, 2] = 1
    samples = [
        raster.tolist(),
        {"t": [0, 3], "unit": [8, 8]},
        {"t": [0, 3], "x": [2, 2], "y": [0, 0], "p": [1, 1]},
    ]
    with serving(tmp_path) as client:
        answer = client.post("/predict", json={"inputs": samples}).json()
    first, *others = answer["predictions"]
    assert answer["time_steps"] == 4
    assert first["label"] == "unit 8"
    assert first["spike_counts"][8] == 2
    assert others == [first, first]


def test_a_pixel_counts_row_by_row_where_the_input_is_not_square(tmp_path: Path, camera: Network) -> None:
    # Of 2 rows of 3 columns: channel 0, row 1, column 0 is unit (0 * 2 + 1) * 3 + 0 = 3, and channel 1, row 1, column 2
    # is unit (1 * 2 + 1) * 3 + 2 = 11. The first spikes once, the second twice.
    publish(tmp_path, camera)
    sample = {"t": [0, 1, 2], "x": [0, 2, 2], "y": [1, 1, 1], "p": [0, 1, 1]}
    with serving(tmp_path) as client:
        counts = client.post("/predict", json={"inputs": [sample]}).json()["predictions"][0]["spike_counts"]
    assert {unit: count for unit, count in enumerate(counts) if count} == {3: 1, 11: 2}


def test_a_raster_runs_for_as_long_as_it_is(tmp_path: Path) -> None:
    publish(tmp_path, toy(Coding.SPIKES))
    with serving(tmp_path) as client:
        answer = client.post("/predict", json={"inputs": [[[0, 1]] * 7]}).json()
    assert answer["time_steps"] == 7
    assert answer["predictions"][0]["spike_counts"] == [0, 7]


def test_a_path_without_a_version_means_the_newest(repository: Path) -> None:
    publish(repository, toy(time_steps=4))
    with serving(repository, versions="all") as client:
        body = {"inputs": [[0, 1]]}
        answers = [
            client.post(path, json=body).json()
            for path in ("/predict", "/models/toy/predict", "/models/toy/versions/1/predict")
        ]
    assert [(answer["version"], answer["time_steps"]) for answer in answers] == [(2, 4), (2, 4), (1, 3)]


@pytest.mark.parametrize("engine", [name.value for name in EngineName])
def test_every_engine_answers_what_the_reference_computes(
    engine: str, digits_repository: Path, digits_like: Network
) -> None:
    samples = np.random.default_rng(5).random((3, 64), np.float32)
    expected, _ = ReferenceEngine(digits_like).run(encode(samples, digits_like.spec))
    with serving(digits_repository, engine=engine) as client:
        answer = client.post("/predict", json={"inputs": samples.tolist()}).json()
    assert answer["engine"] == engine
    assert [each["spike_counts"] for each in answer["predictions"]] == expected.spike_counts.tolist()
    counted = [each["synaptic_operations"] for each in answer["predictions"]]
    np.testing.assert_array_equal(expected.synaptic_operations, counted)


def test_the_examples_of_a_model_are_its_golden_samples_as_a_request(tmp_path: Path) -> None:
    network = toy(Coding.SPIKES)
    publish(tmp_path, network)
    golden = contents(network).golden
    with serving(tmp_path) as client:
        examples = client.get("/models/toy/examples").json()
        answer = client.post("/predict", json=examples).json()
    assert [prediction["spike_counts"] for prediction in answer["predictions"]] == golden.spike_counts.tolist()
    assert sum(len(example["t"]) for example in examples["inputs"]) == golden.inputs.steps.sum() > 0


@pytest.mark.parametrize("coding", [Coding.DIRECT, Coding.CURRENT])
def test_examples_that_are_no_spikes_are_the_raw_values(coding: Coding, tmp_path: Path) -> None:
    # Normalised as 3.7 × value − 1.1, each operation in float32, whose inverse often rounds to a neighbour.
    normalised = {"shape": [2], "high": 10, "scale": 3.7, "offset": -1.1}
    spec = Spec.read(toy(coding).spec.model_dump(mode="json") | {"input": normalised})
    raw = np.random.default_rng(3).random((20, 3, 2) if coding is Coding.CURRENT else (20, 2), np.float32) * 10
    bundle = contents(Network(spec, toy().tensors), samples=raw)
    ModelRepository(tmp_path).publish(bundle)
    with serving(tmp_path) as client:
        examples = client.get("/models/toy/examples").json()
        answer = client.post("/predict", json=examples).json()
        assert client.get("/models/other/examples").status_code == 404
    np.testing.assert_allclose(examples["inputs"], raw, rtol=1e-5)
    told = encode(np.array(examples["inputs"], np.float32), spec)
    np.testing.assert_array_equal(told.steps, bundle.golden.inputs.steps)
    assert [prediction["spike_counts"] for prediction in answer["predictions"]] == bundle.golden.spike_counts.tolist()


@pytest.mark.parametrize("coding", [Coding.RATE, Coding.LATENCY])
@pytest.mark.parametrize("time_steps", [1, 2, 7])
def test_examples_of_rate_and_latency_coding_give_the_same_spikes(
    coding: Coding, time_steps: int, tmp_path: Path
) -> None:
    # Raw values of 2 to 10 are normalised to 0 to 1, 0.125 × value − 0.25, both ends among them.
    raw = np.random.default_rng(3).uniform(2, 10, (20, 2)).astype(np.float32)
    raw[0], raw[1] = 2, 10
    declared = {"shape": [2], "low": 2, "high": 10, "scale": 0.125, "offset": -0.25}
    spec = Spec.read(toy(coding, time_steps).spec.model_dump(mode="json") | {"input": declared})
    bundle = contents(Network(spec, toy().tensors), samples=raw)
    ModelRepository(tmp_path).publish(bundle)
    with serving(tmp_path) as client:
        examples = client.get("/models/toy/examples").json()
        answer = client.post("/predict", json=examples).json()
    told = np.array(examples["inputs"], np.float32)
    np.testing.assert_array_equal(encode(told, spec).steps, bundle.golden.inputs.steps)
    assert [prediction["spike_counts"] for prediction in answer["predictions"]] == bundle.golden.spike_counts.tolist()
    assert told[0].tolist() == [2, 2]  # nothing spikes
    assert told[1].tolist() == [10, 10]  # all that can does


def test_spikes_that_no_value_gives_are_no_examples(tmp_path: Path) -> None:
    # Drawn by the seed 1, of which those of 7 steps are hardly those of any value by the seed 0; a silent sample is.
    network = toy(Coding.RATE, 7)
    drawn = encode(np.array([[0.5, 0.5], [0, 0]], np.float32), network.spec, seed=1)
    result, _ = ReferenceEngine(network).run(drawn)
    golden = Golden(drawn, result.spike_counts, result.readout)
    ModelRepository(tmp_path).publish(replace(contents(network), golden=golden))
    with serving(tmp_path) as client:
        assert client.get("/models/toy/examples").json() == {"inputs": [[0, 0]]}


def test_a_description_says_the_thresholds_and_what_a_dense_network_does(tmp_path: Path) -> None:
    # A Linear of 2 × 3 weights that sees the same current at each step, and so counts once; a recurrent LIF of 3
    # neurons, 9 weights at each step, with a threshold of each; and a Linear of 3 × 2.
    network = network_of(
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
        input={"shape": [2], "low": 0, "high": 10},
        time_steps=3,
        labels=["left", "right"],
    )
    publish(tmp_path, network)
    with serving(tmp_path) as client:
        described = client.get("/models/toy").json()
    assert [node["threshold"] for node in described["nodes"]] == [None, [1, 2, 0.5], None, 2]
    assert described["dense_operations"] == {"once": 6, "per_step": 9 + 6}


def test_each_version_has_a_description(tmp_path: Path) -> None:
    publish(tmp_path, toy())
    publish(tmp_path, toy(time_steps=5))
    with serving(tmp_path, versions="all") as client:
        described = [client.get(f"/models/toy/versions/{version}") for version in (1, 2, 3)]
        assert described[1].json() == client.get("/models/toy").json()
    assert [each.status_code for each in described] == [200, 200, 404]
    assert [(each.json()["version"], each.json()["time_steps"]) for each in described[:2]] == [(1, 3), (2, 5)]
