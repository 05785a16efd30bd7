"""`import onnx`: from somebody's file to a bundle that serves, or to one sentence and nothing written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from spikeserve.models.bundle.external import ExternalBundle
from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.errors import SpikeserveError
from spikeserve.training.__main__ import app
from tests.external import scores, spikes
from tests.onnx_places import PLACES

pytestmark = pytest.mark.usefixtures("dry_runs_here")


def imported(tmp_path: Path, model: Any, *options: str) -> ExternalBundle:
    (tmp_path / "theirs.onnx").write_bytes(model.SerializeToString())
    repository = tmp_path / "repository"
    command = ["import", "onnx", str(tmp_path / "theirs.onnx"), "--name", "theirs", "--repository", str(repository)]
    shape = [] if "--input-shape" in options else ["--input-shape", "2"]
    outcome = CliRunner().invoke(app, [*command, *shape, *options], catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    assert "Published theirs version 1" in outcome.output.replace("\n", "")
    bundle = ModelRepository(repository).read_any("theirs")
    assert isinstance(bundle, ExternalBundle)
    return bundle


def test_names_are_taken_from_a_graph_with_one_input_and_one_output(tmp_path: Path) -> None:
    bundle = imported(tmp_path, scores(), "--labels", "left,right,both")
    assert (bundle.task.input_name, bundle.task.output_name) == ("x", "scores")
    assert bundle.task.labels == ("left", "right", "both")
    assert "- **Operators**: Gemm" in bundle.card
    assert "- **Operator sets**: ai.onnx 17" in bundle.card


def test_every_option_reaches_the_contract(tmp_path: Path) -> None:
    bundle = imported(
        tmp_path, spikes(axis=0), "--labels", "a,b,c", "--coding", "rate", "--time-steps", "7", "--any-time-steps",
        "--independent-rows",
        "--low", "-1", "--high", "3", "--mean", "-1", "--std", "4", "--layout", "batch_time",
        "--output-kind", "spikes_per_step", "--output-name", "spikes",
    )  # fmt: skip
    assert bundle.task.model_dump(mode="json") == {
        "input": {
            "shape": [2],
            "low": -1,
            "high": 3,
            "scale": 0.25,
            "offset": 0.25,
            "out_of_range": "refuse",
            "resolution": None,
        },
        "coding": "rate",
        "time_steps": 7,
        "labels": ["a", "b", "c"],
        "scores": "softmax",
        "units": None,
        "input_name": "x",
        "input_layout": "batch_time",
        "output_name": "spikes",
        "output_kind": "spikes_per_step",
        "any_time_steps": True,
        "independent_rows": True,
    }


def two_outputs() -> Any:
    model = scores()
    model.graph.output.append(model.graph.output[0])
    model.graph.output[1].name = "own"
    model.graph.node.append(model.graph.node[0])
    model.graph.node[1].output[0] = "own"
    return model


@pytest.mark.parametrize(
    ("model", "options", "sentence"),
    [
        (scores(), ["--labels", "a,b"], r"its output 'scores' has shape \['batch', 3\], but the contract says"),
        (scores(), ["--labels", "a,b,c", "--input-shape", "2x2"], "--input-shape is '2x2', expected sizes with commas"),
        (scores(), ["--labels", "a,b,c", "--input-shape", "0"], r"--input-shape is '0', expected sizes"),
        (scores(), ["--labels", "a,,c"], r"the contract is invalid: labels\.1: "),
        (scores(), ["--labels", "a,b,c", "--low", "2"], "low is 2 and high is 1"),
        (two_outputs(), ["--labels", "a,b,c"], "--output-name is missing, and the model has 2 outputs: scores, own"),
        (PLACES["branch"], ["--labels", "a,b,c"], "keeps the tensor 'weight' in another file"),
    ],
)
def test_what_cannot_be_served_is_refused_before_anything_is_written(
    tmp_path: Path, model: Any, options: list[str], sentence: str
) -> None:
    with pytest.raises(SpikeserveError, match=sentence):
        imported(tmp_path, model, *options)
    assert not (tmp_path / "repository").exists()


def test_an_output_is_chosen_by_its_name(tmp_path: Path) -> None:
    assert imported(tmp_path, two_outputs(), "--labels", "a,b,c", "--output-name", "own").task.output_name == "own"


def test_a_name_in_a_file_controls_no_terminal(tmp_path: Path) -> None:
    # An escape sequence would colour the terminal, and a line break make a line of its own.
    model = scores()
    model.graph.node[0].output[0] = model.graph.output[0].name = "\x1b[31mred\nforged"
    (tmp_path / "theirs.onnx").write_bytes(model.SerializeToString())
    command = ["import", "onnx", str(tmp_path / "theirs.onnx"), "--name", "theirs", "--input-shape", "2"]
    outcome = CliRunner().invoke(app, [*command, "--repository", str(tmp_path / "repository")], catch_exceptions=False)
    assert r"Output: '\x1b[31mred\nforged', softmax: 0, 1, 2" in outcome.output
    assert "\x1b" not in outcome.output
