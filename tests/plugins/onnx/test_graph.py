"""The ONNX file: standard, checked, dynamic, and it says what it is."""

import json

import numpy as np
import onnx
import pytest

from spikeserve.models.engines import create
from spikeserve.models.engines.declared import available
from spikeserve.models.errors import EngineUnavailable, InvalidBundle, InvalidInput
from spikeserve.models.spec.network import Network
from spikeserve.plugins.onnx.engine import open_session, run_session
from spikeserve.plugins.onnx.graph import build
from tests.networks import toy


def test_it_carries_the_models_name_version_and_labels(digits_like: Network) -> None:
    model = build(digits_like, "digits", 3, "1.2.3")
    onnx.checker.check_model(model, full_check=True)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["name"] == model.graph.name == "digits"
    assert metadata["version"] == "3"
    assert json.loads(metadata["labels"]) == [str(digit) for digit in range(10)]
    assert (model.producer_name, model.producer_version, model.model_version) == ("spikeserve", "1.2.3", 3)
    assert {node.domain for node in model.graph.node} == {""}


def test_a_missing_engine_or_device_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineUnavailable, match="device 'cuda': engine 'onnx' runs on 'cpu' only; use engine 'torch'"):
        create("onnx", toy(), device="cuda")
    monkeypatch.setattr("spikeserve.models.door.find_spec", lambda _: None)
    with pytest.raises(EngineUnavailable, match="engine 'torch': the package torch is not installed here"):
        create("torch", toy())
    assert available() == ()


def test_what_onnx_runtime_refuses_is_told_in_one_line() -> None:
    with pytest.raises(InvalidBundle, match=r"^engine 'onnx': ONNX Runtime cannot load the network: [^\n]+$"):
        open_session(b"nonsense", 1)
    with pytest.raises(InvalidInput, match=r"^engine 'onnx': ONNX Runtime fails on these inputs: [^\n]+$"):
        run_session(create("onnx", toy()).session, ["spike_counts"], {}, None)  # type: ignore[attr-defined]


def test_a_reciprocal_and_a_product_round_one_after_the_other() -> None:
    info, rng = onnx.helper.make_tensor_value_info, np.random.default_rng(3)
    values = [info(name, onnx.TensorProto.FLOAT, [100]) for name in ("a", "b", "out")]
    nodes = [onnx.helper.make_node("Div", ["one", "a"], ["inverse"])]
    nodes += [onnx.helper.make_node("Mul", ["inverse", "b"], ["out"])]
    one = onnx.numpy_helper.from_array(np.float32(1), "one")
    graph = onnx.helper.make_graph(nodes, "rounding", values[:2], values[2:], [one])
    opset = onnx.helper.make_opsetid("", 17)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9)
    a, b = rng.random((2, 100), np.float32) + np.float32(1)
    (found,) = open_session(model.SerializeToString(), 1).run(None, {"a": a, "b": b})
    assert np.array_equal(found, np.float32(1) / a * b)
    assert not np.array_equal(found, b / a)
