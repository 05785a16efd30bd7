"""The ONNX file: standard, checked, dynamic, and it says what it is."""

import json

import onnx
import pytest

from spikeserve.models.engines import create
from spikeserve.models.engines.declared import available
from spikeserve.models.errors import EngineUnavailable, InvalidInput
from spikeserve.models.spec.network import Network
from spikeserve.plugins.onnx.engine import open_session, run_session
from spikeserve.plugins.onnx.graph import build
from tests.networks import toy


def test_it_carries_the_models_name_version_and_labels(digits_like: Network) -> None:
    model = build(digits_like, "digits", 3, "1.2.3")
    onnx.checker.check_model(model, full_check=True)
    assert (model.opset_import[0].version, model.ir_version) == (21, 10)  # which ONNX Runtime 1.20 has
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
    with pytest.raises(EngineUnavailable, match=r"^engine 'onnx': ONNX Runtime cannot load the network: [^\n]+$"):
        open_session(b"nonsense", 1)
    with pytest.raises(InvalidInput, match=r"^engine 'onnx': ONNX Runtime fails on these inputs: [^\n]+$"):
        run_session(create("onnx", toy()).session, ["spike_counts"], {}, None)  # type: ignore[attr-defined]
