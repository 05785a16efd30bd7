"""`import nir`, `check` and `export nir` as a user types them."""

from __future__ import annotations

from pathlib import Path

import h5py
import nir
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.engines import available, create
from spikeserve.models.errors import SpikeserveError
from spikeserve.training.__main__ import app
from tests.nir_graphs import ends, graph, lif, stack, written

RULES = ("--dialect", "nir", "--dt", "1e-4", "--reset", "zero")


def command(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    weight = np.random.default_rng(0).normal(size=(3, 4))
    return written(tmp_path, stack((4,), (3,), fc=nir.Linear(weight), lif=lif(3, tau=2e-4, threshold=0.25)))


def test_import_publishes_a_bundle_that_every_engine_verifies(file: Path, tmp_path: Path) -> None:
    root = tmp_path / "repository"
    for version in (1, 2):
        result = command("import", "nir", file, *RULES, "--repository", root, "--name", "toy", "--time-steps", "20")
        assert result.exit_code == 0, result.output
        assert f"Published toy version {version}" in result.output
    bundle = ModelRepository(root).read("toy")
    for engine in available():
        bundle.verify(create(engine, bundle.network))
    assert bundle.golden.spike_counts.sum() > 0
    assert bundle.network.spec.time_steps == 20
    assert "**Dialect**: nir" in bundle.card
    assert "**dt**: 0.0001 s" in bundle.card
    assert "**Reset**: zero" in bundle.card


def test_import_tells_on_standard_error_and_in_the_card_what_it_mended(tmp_path: Path) -> None:
    nodes = ends((2,), (2,)) | {"lif": lif(2), "probe": lif(2)}
    path = written(tmp_path, graph(nodes, [("input", "lif"), ("lif", "output"), ("lif", "probe")]))
    result = command("import", "nir", path, "--dialect", "nir", "--dt", "0.25", "--reset", "zero",
                     "--repository", tmp_path, "--name", "toy")  # fmt: skip
    sentence = "node 'probe': no path leads from it to the output; it is left out"
    assert f"warning: {sentence}" in result.stderr
    assert sentence in ModelRepository(tmp_path).read("toy").card


def test_weights_that_are_whole_multiples_come_in_of_few_bits_and_leave_as_float32(tmp_path: Path) -> None:
    weight = np.array([[1, -3, 0, 7], [0.5, 0.125, -0.25, 0]])  # times 1, and times 1/8: 4, 1, -2, 0
    path = written(tmp_path, stack((4,), (2,), fc=nir.Linear(weight), lif=lif(2, tau=2e-4, threshold=0.25)))
    into = ("--repository", tmp_path, "--name", "toy", "--time-steps", "5")
    assert command("import", "nir", path, *RULES, *into).exit_code == 0
    said = command("export", "nir", "toy", tmp_path / "again.nir", "--repository", tmp_path).output
    assert "Its weights of few bits have the same values there, as float32: four times the bytes, or eight." in said
    assert command("import", "nir", tmp_path / "again.nir", *into[:4]).exit_code == 0
    for version in (1, 2):
        bundle = ModelRepository(tmp_path).read("toy", version)
        assert bundle.network.spec.weight_bits == {"fc.weight": 4}
        np.testing.assert_array_equal(bundle.network.tensors["fc.weight"], weight)
    assert "such: whole numbers of 4 bits times a power of two" in ModelRepository(tmp_path).read("toy", 1).card


def test_import_without_rules_is_refused_and_publishes_nothing(file: Path, tmp_path: Path) -> None:
    result = command("import", "nir", file, "--dt", "1e-4", "--repository", tmp_path / "r", "--name", "toy")
    assert isinstance(result.exception, SpikeserveError)
    assert "does not name its dialect, reset, which NIR leaves out: give --dialect --reset" in str(result.exception)
    assert not (tmp_path / "r").exists()


def test_check_shows_nodes_edges_and_cycles_and_passes_what_can_be_served(tmp_path: Path) -> None:
    nodes = ends((2,), (2,)) | {"lif": lif(2, tau=np.array([0.001, 0.002])), "w_rec": nir.Linear(np.eye(2))}
    path = written(tmp_path, graph(nodes, [("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")]))
    result = command("check", path, *RULES)
    assert result.exit_code == 0
    for shown in ("LIF", "0.001, 0.002", "input → lif", "Cycles: lif → w_rec → lif", "Can be served."):
        assert shown in result.output
    assert [entry.name for entry in tmp_path.iterdir()] == ["graph.nir"]


def test_check_exits_with_3_where_only_rules_are_missing(file: Path) -> None:
    result = command("check", file)
    assert result.exit_code == 3
    assert "Missing rules: dialect, dt, reset" in result.output
    assert "Can be served once these are named." in result.output


@pytest.mark.parametrize("rules", [(), RULES])
def test_check_exits_with_1_where_the_graph_cannot_be_served_under_any(tmp_path: Path, rules: tuple[str, ...]) -> None:
    result = command("check", written(tmp_path, stack((2,), (2,), lif=lif(2, threshold=-1.0))), *rules)
    assert result.exit_code == 1
    assert "Cannot be served: node 'lif': v_threshold is -1, expected more than 0" in result.output


def test_check_names_a_type_that_it_does_not_know(file: Path) -> None:
    with h5py.File(file, "a") as opened:
        del opened["node/nodes/lif/type"]
        opened["node/nodes/lif/type"] = "Izhikevich"
    result = command("check", file, *RULES)
    assert result.exit_code == 1
    assert "node 'lif': Izhikevich is not served" in result.output


def test_export_gives_a_file_that_import_takes_back_without_being_told_anything(file: Path, tmp_path: Path) -> None:
    root = tmp_path / "repository"
    command("import", "nir", file, *RULES, "--repository", root, "--name", "toy")
    for arguments in (("toy", tmp_path / "a.nir", "--repository", root), (root / "toy/1", tmp_path / "b.nir")):
        result = command("export", "nir", *arguments)
        assert result.exit_code == 0, result.output
        assert "dialect nir, dt 0.0001 s, reset zero" in result.output
    assert (tmp_path / "a.nir").read_bytes() == (tmp_path / "b.nir").read_bytes()
    assert command("check", tmp_path / "a.nir").exit_code == 0
    again = command("import", "nir", tmp_path / "a.nir", "--repository", root, "--name", "again")
    assert again.exit_code == 0, again.output
    first, second = (ModelRepository(root).read(name) for name in ("toy", "again"))
    assert first.network.spec == second.network.spec
    assert (root / "toy/1/weights.safetensors").read_bytes() == (root / "again/1/weights.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("nir", "nowhere", "x.nir"), "bundle: 'nowhere' is no bundle's folder and no model of ./repository"),
        (("nir", "toy", "x.nir", "--repository", "nowhere"), "model 'toy' is not in the repository"),
        (("nowhere",), "run: 'nowhere' is not a run's folder"),
        (("--name", "toy", "nowhere"), "run: 'nowhere' is not a run's folder"),
        (("run", "nowhere"), "run: 'nowhere' is not a run's folder"),
    ],
)
def test_export_takes_a_run_with_and_without_naming_the_command(arguments: tuple[str, ...], sentence: str) -> None:
    result = command("export", *arguments)
    assert isinstance(result.exception, SpikeserveError)
    assert sentence in str(result.exception)
