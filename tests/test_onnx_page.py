"""docs/onnx.md tells the truth: its model is made, imported, served and answers as it stands there."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spikeserve.models.engines.onnx.fields import MAX_BYTES
from spikeserve.models.spec import Task
from spikeserve.models.spec.onnx_contract import AxisLayout, OnnxContract, OutputKind
from spikeserve.training.__main__ import app
from tests.pages import ROOT, blocks, section
from tests.serving import serving

PAGE = (ROOT / "docs/onnx.md").read_text()


def test_the_example_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    example = section(PAGE, "An example")
    (program,) = blocks(example, "python")
    commands, request = blocks(example, "sh")
    (answer,) = blocks(example, "json")
    Path("make.py").write_text(program)
    subprocess.run([sys.executable, "make.py"], check=True)
    (importing,) = re.findall(r"^spikeserve (import .*)$", commands, re.MULTILINE)
    outcome = CliRunner().invoke(app, shlex.split(importing), catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    (body,) = re.findall(r"-d '(.*)'", request)
    with serving(tmp_path / "repository") as client:
        given, said = client.post("/predict", content=body).json(), json.loads(answer)
    # 2 and 0 spikes: a softmax of 1 / (1 + exp(-2)), whose last digit is the machine's.
    for each in (given, said):
        assert each["predictions"][0].pop("probabilities") == pytest.approx([0.880797, 0.119203], abs=1e-6)
    assert given == said


def test_a_model_of_scikit_learn_comes_in_by_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    part = section(PAGE, "From scikit-learn and PyTorch")
    (program,), (command,) = blocks(part, "python"), blocks(part, "sh")
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True)
    outcome = CliRunner().invoke(app, shlex.split(command)[1:], catch_exceptions=False)
    assert "Output: 'output_probability', probabilities: 0, 1, 2" in outcome.output
    # A flower with short petals is a setosa, the first kind; scikit-learn gives it 0.98.
    with serving(tmp_path / "repository") as client:
        (prediction,) = client.post("/predict", json={"inputs": [[5.1, 3.5, 1.4, 0.2]]}).json()["predictions"]
    assert prediction["probabilities"][0] == pytest.approx(0.98, abs=0.005)


def test_every_field_and_value_of_the_contract_is_listed() -> None:
    fields = OnnxContract.model_fields.keys() - Task.model_fields.keys()
    values = [*AxisLayout, *OutputKind, *fields]
    assert [value for value in values if f"`{value}`" not in PAGE] == []
    assert f"{MAX_BYTES // 2**20} MiB" in PAGE
