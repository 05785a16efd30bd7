"""Flags of every import for its input and its answer: own data arrives over HTTP, and numbers are answered."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest
from typer.testing import CliRunner

from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.coding import encode
from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec import Input, OutOfRange, Readout, Scores
from spikeserve.training.__main__ import app
from spikeserve.training.importers.options import Options
from tests.nir_graphs import lif, stack, written
from tests.sources import ROOT


def run(*arguments: str | Path | int) -> str:
    result = CliRunner().invoke(app, ["import", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_what_is_listed_in_a_command_or_a_file_becomes_a_field_of_the_input(tmp_path: Path) -> None:
    np.save(tmp_path / "mean.npy", np.array([[[1.0]], [[2.0]]]))  # as PyTorch broadcasts it, 2×1×1
    (tmp_path / "low.json").write_text("[[-1, -2], [-3, -4]]")
    assert input_fields(low=f"@{tmp_path}/low.json", high="1", out_of_range=OutOfRange.CLIP) == {
        "low": (-1.0, -2.0, -3.0, -4.0), "high": 1.0, "out_of_range": OutOfRange.CLIP,
    }  # fmt: skip
    # (value - mean) / std = value / std - mean / std
    standardised = input_fields(mean=f"@{tmp_path}/mean.npy", std="4")
    assert standardised == {"scale": 0.25, "offset": (-0.25, -0.5)}
    assert input_fields(std="2,4") == {"scale": (0.5, 0.25), "offset": (0.0, 0.0)}
    assert input_fields() == {}


def input_fields(**flags: Any) -> dict[str, Any]:
    return Options.read(flags).declared


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"low": "1,,2"}, "--low is '1,,2', expected one number"),
        ({"std": "nan"}, "--std is nan, expected more than 0"),
        ({"speed": "1"}, "speed: extra inputs are not permitted, got '1'"),
        ({"events": "{"}, "--events is '{': Invalid JSON: EOF"),
        ({"events": "{}"}, "--events is '{}': step_us: field required"),
        ({"events": '{"step_us": 0, "sensor": [2]}'}, "step_us: input should be greater than or equal to 1, got 0"),
        ({"events": '{"step_us": 1, "sensor": [2], "speed": 1}'}, "speed: extra inputs are not permitted"),
    ],
)
def test_flags_that_say_nothing_are_refused_in_a_sentence(flags: dict[str, str], sentence: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(sentence)):
        input_fields(**flags)


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_nets.py").write_text(
        "from torch import nn\n\ndef factory():\n    return nn.Sequential(nn.Flatten(), nn.Linear(18, 3))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "own_nets", raising=False)
    return tmp_path


def test_an_import_says_which_values_its_input_takes_and_others_are_refused(nets: Path) -> None:
    command = ("torch", "own_nets:factory", "--input-shape", "2,3,3", "--time-steps", 12, "--coding", "current",
               "--repository", "r", "--name", "a")  # fmt: skip
    assert "Input: 2×3×3 values from 0 to 1; others are refused. For other data give --low and --high" in run(*command)
    spec = ModelRepository(nets / "r").read("a").network.spec
    with pytest.raises(InvalidInput, match=r"expected 0 to 1, since its spec declares no other range \(import has --l"):
        encode(np.full((1, 12, 2, 3, 3), 20, np.float32), spec)
    said = run(*command, "--low", "0,-1000", "--high", "40,1000", "--mean", "20,-300", "--std", "0.5,80")
    assert "Input: 2×3×3 values from -1000 to 1000, each feature with its own range; the network sees" in said


def test_every_import_takes_every_flag_of_the_input(nets: Path) -> None:
    graph = written(nets, stack((2,), (2,), lif=lif(2)))
    events = {"step_us": 5000, "window_steps": 6, "polarity": "merged", "origin": "zero"}
    (nets / "events.json").write_text(json.dumps(events | {"sensor": [2]}))
    camera = {"step_us": 1000, "sensor": [6, 6], "bin": 2, "rule": "count"}
    flags = ("--low", "-8,-4", "--high", "8", "--mean", "2,0.5", "--std", "2,0.5", "--out-of-range", "clip",
             "--repository", "r", "--coding", "spikes", "--time-steps", 6, "--events")  # fmt: skip
    run("nir", graph, "--name", "nir", "--dialect", "nir", "--dt", "0.005", "--reset", "zero", *flags, "@events.json")
    run("torch", "own_nets:factory", "--input-shape", "2,3,3", "--name", "torch", *flags, json.dumps(camera))
    fields = {"low": (-8, -4), "high": 8, "scale": (0.5, 2), "offset": (-1, -1), "out_of_range": "clip"}
    for name, shape, binning in (("nir", (2,), events | {"sensor": [2]}), ("torch", (2, 3, 3), camera)):
        declared = {"shape": shape, "events": binning, **fields}
        assert ModelRepository(Path("r")).read(name).task.input == Input.model_validate(declared)


def test_without_a_name_the_importer_that_is_surest_of_the_file_takes_it(tmp_path: Path) -> None:
    graph = written(tmp_path, stack((2,), (2,), lif=lif(2)))
    other = graph.rename(tmp_path / "graph.h5")  # by what stands in it
    rules = ("--dialect", "nir", "--dt", "0.25", "--reset", "zero", "--repository", tmp_path / "r")
    run("--name", "a", other, *rules)
    run(other.rename(graph), "--name", "b", *rules)
    assert ModelRepository(tmp_path / "r").names() == ["a", "b"]
    h5py.File(other, "w").close()
    for source, may in ((other, "lava or nir"), ("nets:make", "anything")):
        with pytest.raises(InvalidInput, match=rf"'{source}' may be {may}, expected the name of its importer first: "):
            run(source, *rules)


@pytest.mark.parametrize(
    ("words", "loads"), [("import --help", set()), ("check graph.nir --dialect nir --dt 1 --reset zero", {"h5py"})]
)
def test_an_importer_is_loaded_once_its_flags_are_needed_and_torch_once_it_publishes(
    tmp_path: Path, words: str, loads: set[str]
) -> None:
    written(tmp_path, stack((2,), (2,), lif=lif(2)))
    command = [sys.executable, "-X", "importtime", "-m", "spikeserve", *words.split()]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert {"h5py", "torch", "onnx", "numba", "sklearn"} & {*done.stderr.split()} == loads


def test_our_own_nir_file_keeps_its_input_and_readout_but_for_what_is_said(tmp_path: Path) -> None:
    graph = written(tmp_path, stack((2,), (2,), fc=nir.Linear(np.eye(2)), lif=lif(2)))
    rules = ("--dialect", "nir", "--dt", "0.25", "--reset", "zero", "--coding", "direct", "--low", "-3", "--std", "0.5")
    answer = ("--readout", "last_membrane", "--scores", "values", "--units", "V,V", "--repository", tmp_path / "r")
    run("nir", graph, *rules, *answer, "--name", "a")
    result = CliRunner().invoke(
        app, ["export", "nir", "a", str(tmp_path / "a.nir"), "--repository", str(tmp_path / "r")]
    )
    assert result.exit_code == 0, result.output
    run("nir", tmp_path / "a.nir", "--repository", tmp_path / "r", "--name", "b", "--mean", "4", "--std", "8")
    kept = ModelRepository(tmp_path / "r").read("b").network.spec
    assert json.loads(kept.input.model_dump_json(exclude_defaults=True)) == {
        "shape": [2], "low": -3.0, "scale": 0.125, "offset": -0.5,
    }  # fmt: skip
    assert (kept.coding, kept.readout, kept.scores, kept.units) == (
        "direct", Readout.LAST_MEMBRANE, Scores.VALUES, ("V", "V"),
    )  # fmt: skip
