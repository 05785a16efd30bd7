"""`import onnx`: models as PyTorch's exporters write them, or anybody, by one command each; or one sentence."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import nn
from typer.testing import CliRunner

from spikeserve.models.bundle.external import ExternalBundle
from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.errors import SpikeserveError
from spikeserve.models.spec.onnx_contract import OnnxContract
from spikeserve.training.__main__ import app
from tests.external import model_of, spikes, with_external_data
from tests.external import scores as three_scores
from tests.onnx_places import PLACES
from tests.serving import serving

SAMPLES: NDArray[np.float32] = np.random.default_rng(0).uniform(0, 8, (50, 4)).astype(np.float32)
RANGE = ("--low", "0", "--high", "8")

pytestmark = pytest.mark.usefixtures("dry_runs_here")


def imported(folder: Path, model: Path | Any, *options: str) -> tuple[OnnxContract, str]:
    """Import a file, or a model that is written to one, by one command; return its contract and what was said."""
    if not isinstance(model, Path):
        (folder / "m.onnx").write_bytes(model.SerializeToString())
        model = folder / "m.onnx"
    command = ["import", "onnx", str(model), "--name", "m", "--repository", str(folder / "r"), *options]
    outcome = CliRunner().invoke(app, command, catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    return published(folder).task, outcome.output


def published(folder: Path) -> ExternalBundle:
    bundle = ModelRepository(folder / "r").read_any("m")
    assert isinstance(bundle, ExternalBundle)
    return bundle


def answers(folder: Path, samples: NDArray[np.float32]) -> list[dict[str, Any]]:
    with serving(folder / "r") as client:
        answer = client.post("/predict", json={"inputs": samples.tolist()})
    assert answer.status_code == 200, answer.text
    predictions: list[dict[str, Any]] = answer.json()["predictions"]
    return predictions


def exported(folder: Path, network: nn.Module, batch: int | str, *, newer: bool) -> Path:
    """Write what one of PyTorch's two exporters makes of a network of four inputs, of a fixed or a free batch."""
    free = isinstance(batch, str)
    example = torch.zeros(2 if free else int(batch), 4)
    if newer:
        options: dict[str, Any] = {"dynamic_shapes": ({0: torch.export.Dim("batch")},)} if free else {}
    else:
        options = {"input_names": ["x"], "dynamic_axes": {"x": {0: "batch"}}} if free else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (example,), folder / "torch.onnx", dynamo=newer, verbose=False, **options)
    return folder / "torch.onnx"


@pytest.mark.parametrize(
    ("newer", "batch", "softmax"), [(True, "free", True), (False, 1, False)], ids=["dynamo", "script"]
)
def test_a_network_of_pytorch_gives_its_own_probabilities(
    tmp_path: Path, newer: bool, batch: int | str, softmax: bool
) -> None:
    torch.manual_seed(0)
    # 4 * 600 weights are more than the newer exporter keeps within the model.
    network = nn.Sequential(nn.Linear(4, 600), nn.ReLU(), nn.Linear(600, 3)).eval()
    whole = nn.Sequential(network, nn.Softmax(1)).eval()
    path = exported(tmp_path, whole if softmax else network, batch, newer=newer)
    contract, said = imported(tmp_path, path, *RANGE)
    assert (contract.input.shape, contract.classes) == ((4,), 3)
    assert contract.scores == ("probabilities" if softmax else "softmax")
    assert ("bytes of weights were taken in from `torch.onnx.data`" in said) == newer
    with torch.no_grad():
        expected = whole(torch.from_numpy(SAMPLES)).numpy()
    found = [each["probabilities"] for each in answers(tmp_path, SAMPLES)]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def outside(folder: Path, **where: str) -> Path:
    model = three_scores()
    weight = model.graph.initializer[0]
    (folder / "w.bin").write_bytes(weight.raw_data)
    weight.CopyFrom(with_external_data(weight, "w.bin"))
    for key, value in where.items():
        weight.external_data.add(key=key, value=value)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    return folder / "m.onnx"


def test_weights_that_lie_beside_a_model_and_nowhere_else_are_taken_in(tmp_path: Path) -> None:
    imported(tmp_path, outside(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "w.bin").rename(tmp_path / "elsewhere/w.bin")
    for link in (None, "w.bin"):
        if link is not None:
            (tmp_path / link).symlink_to(tmp_path / "elsewhere/w.bin")
        with pytest.raises(
            SpikeserveError, match=r"m\.onnx: keeps the tensor 'weight' in 'w\.bin', which is no file beside"
        ):
            imported(tmp_path, tmp_path / "m.onnx")
    for place in ("elsewhere/w.bin", f"{tmp_path}/elsewhere/w.bin", "../w.bin", "elsewhere/../w.bin", ""):
        model = three_scores()
        model.graph.initializer[0].CopyFrom(with_external_data(model.graph.initializer[0], place))
        (tmp_path / "n.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(SpikeserveError, match="keeps the tensor 'weight' in another file"):
            imported(tmp_path, tmp_path / "n.onnx")


@pytest.mark.parametrize("where", [{"offset": "8"}, {"length": "25"}, {"offset": "-1"}, {"length": "x"}])
def test_weights_beyond_the_end_of_the_file_beside_are_refused(tmp_path: Path, where: dict[str, str]) -> None:
    # The file has 24 bytes, for 3×2 weights; from the 8th on there are too few, which ONNX Runtime says.
    with pytest.raises(SpikeserveError, match=r"cannot be read from 'w\.bin'|ONNX Runtime cannot load it"):
        imported(tmp_path, outside(tmp_path, **where))


def unsaid(inputs: list[Any], outputs: list[Any]) -> Any:
    """Return a model that gives what it takes, of sizes as said."""
    return model_of(
        [helper.make_node("Identity", ["x"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, inputs)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, outputs)],
        [],
    )


def test_a_single_output_is_a_value(tmp_path: Path) -> None:
    contract, said = imported(tmp_path, unsaid(["n", 1], ["n", 1]), "--labels", "width", "--units", "cm")
    assert (contract.scores, contract.labels, contract.units) == ("values", ("width",), ("cm",))
    assert "Output: 'y', values: width" in said
    contract, _ = imported(tmp_path, tmp_path / "m.onnx")
    assert (contract.scores, contract.labels) == ("values", ("0",))


def two_outputs() -> Any:
    model = three_scores()
    model.graph.output.append(model.graph.output[0])
    model.graph.output[1].name = "own"
    model.graph.node.append(model.graph.node[0])
    model.graph.node[1].output[0] = "own"
    return model


@pytest.mark.parametrize(
    ("model", "options", "sentence"),
    [
        (unsaid(["n", "width"], ["n", 3]), (), r"--input-shape is missing, and .* input 'x' \[n, width\] does not"),
        (unsaid(["n"], ["n"]), (), r"--input-shape is missing, and the model's input 'x' \[n\]"),
        (unsaid(["n", "width"], ["n", "width"]), ("--input-shape", "3"), r"--labels is missing, .* 'y' \[n, width\]"),
        (unsaid([7, 3], [7, 3]), (), r"input 'x' \[7, 3\] takes 7 samples at a time, expected a free axis"),
        (unsaid(["n", 3], ["n", 3]), ("--scores", "probabilities", "--high", "0.25"), r"'y' adds up to 0\.\d+, but"),
        (unsaid(["n", 3], ["n", 3]), ("--scores", "probabilities"), r"'y' adds up to \S+, but the contract says that"),
        (unsaid(["n", 3], ["n", 3]), ("--scores", "probabilities", "--high", "9"), r"'y' holds .* it is probabilities"),
        (unsaid(["n", 3], ["n", 3]), ("--scores", "values", "--output-kind", "counts"), "scores is 'values', but outp"),
        (three_scores(), ("--labels", "a,b"), r"its output 'scores' has shape \['batch', 3\], but the contract says"),
        (three_scores(), ("--input-shape", "2x2"), "--input-shape is '2x2', expected sizes with commas"),
        (three_scores(), ("--input-shape", "0"), r"--input-shape is '0', expected sizes"),
        (three_scores(), ("--labels", "a,,c"), r"the contract is invalid: labels\.1: "),
        (three_scores(), ("--low", "2"), "low is 2 and high is 1"),
        (two_outputs(), (), "--output-name is missing, and the model has 2 outputs: scores, own"),
        (PLACES["branch"], ("--labels", "a,b,c"), "keeps the tensor 'weight' in another file"),
    ],
)  # fmt: skip
def test_what_a_model_does_not_say_is_asked_for_in_a_sentence(
    tmp_path: Path, model: Any, options: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(SpikeserveError, match=sentence):
        imported(tmp_path, model, *options)
    assert not (tmp_path / "r").exists()


def test_the_steps_of_a_model_are_those_of_its_axis(tmp_path: Path) -> None:
    kinds = ("--layout", "batch_time", "--output-kind", "spikes_per_step", "--coding", "spikes")
    contract, _ = imported(tmp_path, spikes(steps=5, axis=0), *kinds)
    assert (contract.time_steps, contract.input.shape, contract.labels) == (5, (2,), ("0", "1", "2"))


def test_names_are_taken_from_a_graph_with_one_input_and_one_output(tmp_path: Path) -> None:
    contract, _ = imported(tmp_path, three_scores(), "--labels", "left,right,both")
    assert (contract.input_name, contract.output_name) == ("x", "scores")
    assert contract.labels == ("left", "right", "both")
    card = published(tmp_path).card
    assert "- **Operators**: Gemm" in card
    assert "- **Operator sets**: ai.onnx 17" in card


def test_every_option_reaches_the_contract(tmp_path: Path) -> None:
    contract, _ = imported(
        tmp_path, spikes(axis=0), "--input-shape", "2", "--labels", "a,b,c", "--coding", "rate", "--time-steps", "7",
        "--any-time-steps",
        "--independent-rows",
        "--low", "-1", "--high", "3", "--mean", "-1", "--std", "4", "--layout", "batch_time",
        "--output-kind", "spikes_per_step", "--output-name", "spikes",
    )  # fmt: skip
    assert contract.model_dump(mode="json") == {
        "input": {"shape": [2], "low": -1, "high": 3, "scale": 0.25, "offset": 0.25}
        | {"out_of_range": "refuse", "resolution": None},
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


def test_an_output_is_chosen_by_its_name(tmp_path: Path) -> None:
    assert imported(tmp_path, two_outputs(), "--output-name", "own")[0].output_name == "own"


def test_a_name_in_a_file_controls_no_terminal(tmp_path: Path) -> None:
    # An escape sequence would colour the terminal, and a line break make a line of its own.
    model = three_scores()
    model.graph.node[0].output[0] = model.graph.output[0].name = "\x1b[31mred\nforged"
    _, said = imported(tmp_path, model)
    assert r"Output: '\x1b[31mred\nforged', softmax: 0, 1, 2" in said
    assert "\x1b" not in said


def test_a_model_that_is_whole_keeps_every_byte(tmp_path: Path) -> None:
    imported(tmp_path, three_scores())
    assert (tmp_path / "r/m/1/model.onnx").read_bytes() == (tmp_path / "m.onnx").read_bytes()
    assert onnx.load(tmp_path / "r/m/1/model.onnx").graph.node[0].op_type == "Gemm"
