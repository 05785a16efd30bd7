"""The ONNX file: standard, checked, dynamic, and it says what it is."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest

from models.coding import encode
from models.engines import create
from models.engines.declared import EngineName, available
from models.engines.onnx.engine import OnnxEngine
from models.engines.onnx.graph import build
from models.errors import EngineUnavailable, InvalidBundle
from models.spec import Coding
from models.spec.network import Network
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


@pytest.mark.parametrize("coding", list(Coding))
def test_one_file_serves_any_batch_and_number_of_steps(coding: Coding) -> None:
    network = toy(coding)
    session = onnxruntime.InferenceSession(build(network).SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    assert names == (["inputs", "time_steps"] if coding is Coding.DIRECT else ["inputs"])
    for batch, steps in ((1, 1), (5, 40)):
        shape = (batch, steps, 2) if coding is Coding.SPIKES else (batch, 2)
        inputs = encode(np.ones(shape, np.float32), network.spec, steps)
        feed = (
            {"inputs": inputs.steps[0], "time_steps": np.array(steps)}
            if inputs.constant and coding is Coding.DIRECT
            else {"inputs": inputs.steps}
        )
        counts, raster = session.run(["spike_counts", "out.raster"], feed)
        assert counts.shape == (batch, 2)
        assert raster.shape == (steps, batch, 2)


def test_a_file_for_another_network_is_refused_at_load(digits_like: Network) -> None:
    another = build(toy()).SerializeToString()
    with pytest.raises(InvalidBundle, match=r"model.onnx: its inputs are .*\[2\].* but the spec needs .*\[64\]"):
        OnnxEngine(digits_like, another)


def test_a_file_that_is_no_model_is_refused_in_one_line(digits_like: Network) -> None:
    with pytest.raises(InvalidBundle, match=r"model.onnx: is not an ONNX model: [^\n]+$"):
        OnnxEngine(digits_like, b"nonsense")


def test_a_missing_engine_or_device_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineUnavailable, match="device 'cuda': engine 'onnx' runs on 'cpu' only; use engine 'torch'"):
        create(EngineName.ONNX, toy(), device="cuda")
    monkeypatch.setattr("models.engines.declared.find_spec", lambda _: None)
    with pytest.raises(EngineUnavailable, match="engine 'torch': the package torch is not installed here"):
        create(EngineName.TORCH, toy())
    assert available() == ()
