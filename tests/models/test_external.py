"""A bundle of somebody else's ONNX graph: its contract is checked as it loads, and each breach has its sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from spikeserve.models.bundle import Bundle
from spikeserve.models.bundle.external import ExternalBundle
from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.coding import encode
from spikeserve.models.engines import EngineName
from spikeserve.models.engines.onnx.external import ContractEngine
from spikeserve.models.errors import EngineUnavailable, InvalidBundle, InvalidInput, InvalidSpec
from spikeserve.models.spec.onnx_contract import OnnxContract
from tests.bundles import publish as publish_network
from tests.external import WEIGHT, contract, model_of, of_spikes, publish, scores, spikes, with_external_data
from tests.networks import toy

SAMPLES = np.array([[0.25, 1.0], [0.5, 0.0]], np.float32)
RASTERS = np.array([[[1, 0], [1, 1], [0, 0]], [[0, 1], [0, 1], [1, 1]]], np.float32)  # two samples, three steps


def engine_of(model: Any, kept: OnnxContract) -> ContractEngine:
    return ContractEngine(kept, model.SerializeToString())


def bundle_of(root: Path, model: Any, kept: OnnxContract) -> ExternalBundle:
    publish(root, model, kept)
    bundle = ModelRepository(root).read_any("external")
    assert isinstance(bundle, ExternalBundle)
    return bundle


def verified(root: Path, model: Any, kept: OnnxContract) -> None:
    bundle = bundle_of(root, model, kept)
    bundle.verify(bundle.engine(EngineName.ONNX))


def test_scores_come_out_as_the_readout() -> None:
    result, _ = engine_of(scores(), contract()).run(encode(SAMPLES, contract()))
    # x @ weight.T: the third class scores the mean of the inputs.
    np.testing.assert_array_equal(result.readout, [[0.25, 1.0, 0.625], [0.5, 0.0, 0.25]])
    assert result.spike_counts.tolist() == [[0, 0, 0], [0, 0, 0]]
    assert result.class_index.tolist() == [1, 0]
    assert result.synaptic_operations is None
    assert result.spikes_per_node == {}


@pytest.mark.parametrize(("layout", "axis"), [("time_batch", 1), ("batch_time", 0)])
def test_spikes_are_summed_over_time_in_either_layout(layout: str, axis: int) -> None:
    kept = of_spikes(input_layout=layout)
    result, _ = engine_of(spikes(axis=axis), kept).run(encode(RASTERS, kept))
    # A neuron fires at each step whose current is 1: left and right as their input does, both where both do.
    assert result.spike_counts.tolist() == [[2, 1, 1], [1, 3, 1]]
    assert result.readout.tolist() == result.spike_counts.tolist()


def test_a_direct_current_is_the_same_at_every_step() -> None:
    kept = of_spikes(coding="direct")
    result, _ = engine_of(spikes(), kept).run(encode(SAMPLES, kept, 7))
    assert result.spike_counts.tolist() == [[0, 7, 0], [0, 0, 0]]


def test_counts_and_other_types_are_read() -> None:
    model = model_of(
        [
            helper.make_node("Floor", ["x"], ["whole"]),
            helper.make_node("Cast", ["whole"], ["counts"], to=TensorProto.INT32),
        ],
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, [None, 2])],
        [helper.make_tensor_value_info("counts", TensorProto.INT32, [None, 2])],
        [],
    )
    kept = contract(input={"shape": [2], "high": 9}, labels=["a", "b"], output_name="counts", output_kind="counts")
    result, _ = engine_of(model, kept).run(encode(np.array([[3.5, 0.5]], np.float32), kept))
    assert result.spike_counts.tolist() == [[3, 0]]


def test_a_model_of_one_sample_at_a_time_takes_many(tmp_path: Path) -> None:
    model = scores(batch=1)
    verified(tmp_path, model, contract())
    result, _ = engine_of(model, contract()).run(encode(SAMPLES, contract()))
    np.testing.assert_array_equal(result.readout, [[0.25, 1.0, 0.625], [0.5, 0.0, 0.25]])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"coding": "rate"}, "coding 'rate' gives other values at each step, which the layout 'batch' has no axis for"),
        ({"any_time_steps": True}, "any_time_steps needs an input with an axis for time"),
        ({"coding": "latency", "input_layout": "time_batch", "input": {"shape": [2], "high": 2}}, "from 0 to 1"),
    ],
)
def test_a_contract_that_no_model_could_keep_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidSpec, match=sentence):
        contract(**changes)


def test_other_time_steps_are_refused_unless_the_contract_allows_them() -> None:
    with pytest.raises(InvalidInput, match="time_steps is 5, but this ONNX model runs for 4"):
        encode(SAMPLES, contract(), 5)
    with pytest.raises(InvalidInput, match="time_steps is 3, but this ONNX model runs for 4"):
        encode(RASTERS, of_spikes(any_time_steps=False))


def two_inputs() -> Any:
    model = scores()
    model.graph.input.append(helper.make_tensor_value_info("state", TensorProto.FLOAT, [1]))
    return model


def of_strings() -> Any:
    x, y = (helper.make_tensor_value_info(name, TensorProto.STRING, ["batch", 3]) for name in ("x", "y"))
    return model_of([helper.make_node("Identity", ["x"], ["y"])], [x], [y], [])


BREACHES: dict[str, tuple[Any, dict[str, Any], str]] = {
    "input name": (scores(), {"input_name": "y"}, r"its inputs are 'x', but the contract feeds only 'y'"),
    "second input": (two_inputs(), {}, r"its inputs are 'x', 'state', but the contract feeds only 'x'"),
    "output name": (scores(), {"output_name": "y"}, r"its outputs are 'scores', but the contract reads 'y'"),
    "input rank": (scores(), {"input": {"shape": [1, 2]}}, r"'x' has shape \['batch', 2\], .* says \[batch, 1, 2\]"),
    "input size": (scores(), {"input": {"shape": [3]}}, r"'x' has shape \['batch', 2\], but .* says \[batch, 3\]"),
    "fixed batch": (scores(batch=8), {}, r"'x' has shape \[8, 2\], but the contract says \[batch, 2\]"),
    "classes": (scores(), {"labels": ["a", "b"]}, r"'scores' has shape \['batch', 3\], but .* says \[batch, 2\]"),
    "input type": (
        of_strings(),
        {"input": {"shape": [3]}, "output_name": "y"},
        r"'x' is a tensor\(string\), expected one of 'tensor\(float\)'",
    ),
    "counts that are none": (scores(), {"output_kind": "counts"}, r"holds 0\.\d+, but .* says that it is whole"),
    "not finite": (scores(weight=np.full_like(WEIGHT, np.inf)), {}, "holds NaN or infinite values"),
    "not ONNX": (None, {}, "holds no operator"),
}


@pytest.mark.parametrize("breach", BREACHES)
def test_a_breach_of_the_contract_is_found_at_load(tmp_path: Path, breach: str) -> None:
    model, changes, sentence = BREACHES[breach]
    with pytest.raises(InvalidBundle, match=sentence):
        verified(tmp_path, model or model_of([], [], [], []), contract(**changes))


def test_fixed_steps_are_found_at_load(tmp_path: Path) -> None:
    with pytest.raises(InvalidBundle, match="whose time_steps are fixed, but the contract says any_time_steps"):
        verified(tmp_path, spikes(steps=4), of_spikes())
    verified(tmp_path, spikes(steps=4), of_spikes(any_time_steps=False))
    with pytest.raises(InvalidBundle, match=r"'x' has shape \[4, 'batch', 2\], but .* with time_steps 5"):
        verified(tmp_path, spikes(steps=4), of_spikes(any_time_steps=False, time_steps=5))


def test_steps_that_are_fixed_within_the_graph_are_found_at_load(tmp_path: Path) -> None:
    # It declares that any steps will do, and adds a current of its own at each of four.
    model = spikes()
    model.graph.node[0].output[0] = "own"
    model.graph.node.insert(1, helper.make_node("Add", ["own", "drive"], ["current"]))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((4, 1, 3), np.float32), "drive"))
    with pytest.raises(InvalidBundle, match=r"ONNX Runtime fails on an input of shape \[5, 1, 2\]"):
        verified(tmp_path, model, of_spikes())
    verified(tmp_path, model, of_spikes(any_time_steps=False))


def test_a_raster_is_tried_with_values_of_the_declared_range_where_0_is_not_one_of_them(tmp_path: Path) -> None:
    verified(tmp_path, spikes(), of_spikes(input={"shape": [2], "low": 1, "high": 2}))


def test_a_tensor_of_another_file_never_meets_the_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret.bin").write_bytes(WEIGHT.tobytes())
    monkeypatch.chdir(tmp_path)  # where ONNX Runtime would look
    model = scores()
    tensor = with_external_data(model.graph.initializer[0], "secret.bin")
    del model.graph.initializer[:]
    model.graph.initializer.append(tensor)
    with pytest.raises(InvalidBundle, match="keeps the tensor 'weight' in another file"):
        verified(tmp_path / "repository", model, contract())


def test_what_the_runtime_cannot_load_is_one_line(tmp_path: Path) -> None:
    model = scores()
    model.graph.node[0].op_type = "Germ"
    with pytest.raises(InvalidBundle, match=r"model\.onnx: ONNX Runtime cannot load it: [^\n]+$"):
        verified(tmp_path, model, contract())


def test_a_manifest_without_a_model_is_refused(tmp_path: Path) -> None:
    bundle_of(tmp_path, scores(), contract())
    path = tmp_path / "external/1/bundle.json"
    manifest = json.loads(path.read_text())
    del manifest["files"]["model.onnx"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(InvalidBundle, match=r"model\.onnx: not listed in bundle\.json"):
        ModelRepository(tmp_path).read_any("external")


@pytest.mark.parametrize("text", ["", "[]", '"contract"', "[" * 100_000, '{"contract": 1}'])
def test_a_manifest_that_is_none_gets_a_sentence(tmp_path: Path, text: str) -> None:
    bundle_of(tmp_path, scores(), contract())
    (tmp_path / "external/1/bundle.json").write_text(text)
    with pytest.raises(InvalidBundle, match=r"^bundle\.json: "):
        ModelRepository(tmp_path).read_any("external")


def test_either_kind_is_read_and_a_reader_of_networks_says_what_it_lacks(tmp_path: Path) -> None:
    repository = ModelRepository(tmp_path)
    publish_network(tmp_path, toy())
    assert isinstance(repository.read_any("toy"), Bundle)
    bundle_of(tmp_path, scores(), contract())
    with pytest.raises(InvalidBundle, match=r"bundle\.json: holds a contract, not a spec"):
        repository.read("external")


@pytest.mark.parametrize(
    ("engine", "device"), [*((name, "cpu") for name in EngineName if name is not EngineName.ONNX), ("onnx", "cuda")]
)
def test_only_onnx_on_the_cpu_runs_it(tmp_path: Path, engine: str, device: str) -> None:
    bundle = bundle_of(tmp_path, scores(), contract())
    with pytest.raises(EngineUnavailable, match=f"engine '{engine}' on '{device}': the model is only an ONNX graph"):
        bundle.engine(EngineName(engine), device)


def test_nothing_is_known_of_its_state_and_so_none_is_taken() -> None:
    engine = engine_of(scores(), contract())
    inputs = encode(SAMPLES, contract())
    _, state = engine.run(inputs)
    assert (state.steps.tolist(), dict(state.arrays)) == ([inputs.time_steps] * inputs.batch, {})
    with pytest.raises(
        InvalidInput, match=r"^state: holds \d+ steps, but nothing is known of an external graph's state"
    ):
        engine.run(inputs, state)
