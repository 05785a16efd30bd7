"""`--readout --labels --scores --units` on imports: a regression comes in and answers numbers over HTTP."""

from __future__ import annotations

import sys
from pathlib import Path

import nir
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.errors import InvalidSpec
from spikeserve.models.spec import Readout, Scores
from spikeserve.training.__main__ import app
from tests.nir_graphs import lif, stack, written
from tests.serving import serving

NETWORK = """
import snntorch, torch
from torch import nn


def factory():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 16), snntorch.Leaky(0.75, threshold=0.25, init_hidden=True), nn.Linear(16, 2))
"""
COMMAND = ("snntorch", "own_regression:factory", "--input-shape", "4", "--time-steps", 6, "--coding", "direct",
           "--repository", "r", "--name", "arm")  # fmt: skip


def run(*arguments: str | Path | int) -> None:
    result = CliRunner().invoke(app, ["import", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output


@pytest.fixture(autouse=True)
def _network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("snntorch", reason="snntorch is not installed: ./scripts/install peers")
    (tmp_path / "own_regression.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "own_regression", raising=False)


def test_a_network_that_ends_in_a_linear_answers_the_values_that_its_framework_gives() -> None:
    run(*COMMAND, "--readout", "mean", "--scores", "values", "--units", "rad,", "--labels", "angle,speed")
    samples = np.random.default_rng(0).random((5, 4), np.float32)
    network = __import__("own_regression").factory()
    with torch.no_grad():
        expected = torch.stack([network(torch.from_numpy(samples)) for _ in range(6)]).mean(dim=0)
    with serving(Path("r")) as client:
        answer = client.post("/predict", json={"inputs": samples.tolist()}).json()
    assert (answer["names"], answer["units"]) == (["angle", "speed"], ["rad", ""])
    found = [prediction["values"] for prediction in answer["predictions"]]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    card = ModelRepository(Path("r")).read("arm").card
    assert "angle (rad), speed" in card
    assert "mean, as values" in card
    assert "Classes" not in card


def test_a_network_that_ends_in_a_linear_is_read_by_its_mean_where_nobody_says_more() -> None:
    run(*COMMAND)
    spec = ModelRepository(Path("r")).read("arm").network.spec
    assert (spec.readout, spec.scores, spec.units, spec.labels) == (Readout.MEAN, Scores.SOFTMAX, None, ("0", "1"))


def test_units_without_values_are_refused_and_nothing_is_published() -> None:
    with pytest.raises(InvalidSpec, match="scores is 'softmax', which has none"):
        run(*COMMAND, "--units", "rad,m/s")
    assert not Path("r").exists()


def test_a_nir_file_takes_the_same_flags_and_gives_back_what_it_was_exported_with(tmp_path: Path) -> None:
    graph = written(tmp_path, stack((2,), (2,), fc=nir.Linear(np.eye(2)), lif=lif(2)))
    flags = ("--readout", "last_membrane", "--scores", "values", "--units", "V,V", "--repository", "r")
    run("nir", graph, "--name", "a", "--dialect", "nir", "--dt", "0.25", "--reset", "zero", *flags)
    result = CliRunner().invoke(app, ["export", "nir", "a", "a.nir", "--repository", "r"])
    assert result.exit_code == 0, result.output
    run("nir", "a.nir", "--name", "b", "--repository", "r")
    specs = [ModelRepository(Path("r")).read(name).network.spec for name in "ab"]
    assert {(spec.readout, spec.scores, spec.units) for spec in specs} == {
        (Readout.LAST_MEMBRANE, Scores.VALUES, ("V", "V"))
    }
