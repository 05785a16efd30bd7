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


def test_every_field_and_value_of_the_contract_is_listed() -> None:
    fields = OnnxContract.model_fields.keys() - Task.model_fields.keys()
    values = [*AxisLayout, *OutputKind, *fields]
    assert [value for value in values if f"`{value}`" not in PAGE] == []
    assert f"{MAX_BYTES // 2**20} MiB" in PAGE
