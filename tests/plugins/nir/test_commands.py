"""`import nir`, `check` and `export nir` as a user types them.

Damaged and hostile NIR files: each is one sentence, whatever HDF5 does with it, and within bounds.
"""

import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.errors import SpikeserveError
from spikeserve.plugins.nir.convert import convert
from spikeserve.plugins.nir.dialects import DialectName, GivenRules, GraphReset
from spikeserve.plugins.nir.file import read
from spikeserve.plugins.nir.graph import GraphNode, NestedGraph, flatten
from spikeserve.training.errors import InvalidGraph, TrainingError
from spikeserve.training.importers.options import Options
from tests.apps import app
from tests.nir_graphs import converted, ends, graph, lif, read_here, stack, written

RULES = ("--dialect", "nir", "--dt", "1e-4", "--reset", "zero")


def command(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    weight = np.random.default_rng(0).normal(size=(3, 4))
    return written(tmp_path, stack((4,), (3,), fc=nir.Linear(weight), lif=lif(3, tau=2e-4, threshold=0.25)))


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


SECONDS = 2.0  # some ten times what a whole file takes
NIR_RULES = GivenRules(DialectName.NIR, 1e-4, GraphReset.ZERO)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return written(tmp_path, stack((2,), (2,), fc=nir.Linear(np.ones((2, 2), np.float32)), lif=lif(2)))


def places(content: bytearray, signature: bytes) -> Iterator[int]:
    """Return where HDF5's blocks of one kind begin."""
    at = content.find(signature)
    while at >= 0:
        yield at
        at = content.find(signature, at + 1)


def refusal(path: Path) -> str | None:
    """Return why a file is refused, or None where it is read."""
    try:
        read(path, SECONDS)
    except InvalidGraph as refused:
        return str(refused)
    return None


def convert_file(path: Path) -> None:
    """Convert a file under its own rules, and NIR's where it names none."""
    graph = read_here(path).graph
    convert(graph, GivenRules.of(graph.metadata).over(NIR_RULES).complete(), Options())


def test_a_file_that_takes_too_long_is_given_up(path: Path) -> None:
    with pytest.raises(InvalidGraph, match=r"graph.nir': it could not be read within 0.001 s"):
        read(path, 0.001)


# The next two files do that to HDF5 2.0; a version that finds the damage itself says that it is no NIR file.


def test_a_file_that_sends_hdf5_round_a_circle_is_given_up(path: Path) -> None:
    content = bytearray(path.read_bytes())
    # A heap of texts: "GCOL", version, its size (8 bytes); then each text's index and count, and its size at offset 8.
    # The next one begins 16 bytes and that size further on: with 2**64 - 16, where it is already.
    heap = next(places(content, b"GCOL"))
    struct.pack_into("<Q", content, heap + 16 + 8, 2**64 - 16)
    path.write_bytes(content)
    with pytest.raises(InvalidGraph, match=r"graph.nir': it (could not be read within 2 s|is not a NIR file)"):
        read(path, SECONDS)


def test_a_file_that_crashes_hdf5_crashes_another_process(path: Path) -> None:
    content = bytearray(path.read_bytes())
    # A group's tree: "TREE", kind, level, entries, two neighbours, a key, and at offset 32 where its first child is.
    # The third group is that of the nodes; its tree is made its own child, and HDF5 descends until its stack is full.
    _, _, tree, *_ = places(content, b"TREE")
    content[tree + 5] = 1
    struct.pack_into("<Q", content, tree + 32, tree)
    path.write_bytes(content)
    with pytest.raises(InvalidGraph, match=r"graph.nir': (the process that read it crashed|it is not a NIR file)"):
        read(path)


def test_damage_of_any_kind_is_one_sentence_or_none(path: Path) -> None:
    whole = path.read_bytes()
    drawn = random.Random(5)  # noqa: S311
    refusals = []
    for _ in range(16):
        content = bytearray(whole)
        for _ in range(drawn.choice([1, 4, 16])):
            content[drawn.randrange(4000)] = drawn.randrange(256)
        path.write_bytes(content)
        refusals.append(refusal(path))
    sentences = [sentence for sentence in refusals if sentence is not None]
    assert len(sentences) > 2
    assert [sentence for sentence in sentences if "\n" in sentence or not sentence.startswith(f"'{path}': ")] == []


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("nodes/input/shape", np.array([10**12]), "the input has shape 1000000000000, expected at most 67,108,864"),
        ("nodes/pad/padding", np.array([10**9, 10**9]), "node 'pad': its output has shape 1×2000000002×2000000002"),
        ("nodes/lif/tau", np.empty((0, 2**40)), "node 'lif': tau is empty, expected numbers"),
        ("nodes/lif/tau", np.full((20, 20), 1j), r"node 'lif': tau is array\(\[\[0"),
        ("nodes/lif/type", "LIF\n\x1b[31m", r"'/node/nodes/lif': the name 'LIF\\n\\x1b\[31m' is not plain text"),
        ("metadata/dt", "soon\n", r"the file's dt is 'soon\\n', expected a number of seconds"),
        ("metadata/dialect", "none\n", r"the file's dialect is 'none\\n', expected one of"),
    ],
)
def test_a_field_of_too_much_or_nonsense_is_a_sentence(tmp_path: Path, field: str, value: Any, sentence: str) -> None:
    pad = nir.Conv2d((4, 4), np.ones((1, 1, 3, 3)), 1, 1, 1, 1, np.zeros(1))
    path = written(tmp_path, stack((1, 4, 4), (1, 4, 4), pad=pad, lif=lif(1, 4, 4)))
    with h5py.File(path, "a") as file:
        if f"node/{field}" in file:
            del file[f"node/{field}"]
        file[f"node/{field}"] = value
    with pytest.raises(TrainingError, match=sentence) as refused:
        convert_file(path)
    assert "\n" not in str(refused.value)


def test_an_edge_from_a_large_layer_to_itself_is_refused(tmp_path: Path) -> None:
    # 10,000 neurons would be 100,000,000 weights.
    nodes = ends((10_000,), (10_000,)) | {"large": lif(10_000)}
    made = graph(nodes, [("input", "large"), ("large", "large"), ("large", "output")])
    with pytest.raises(InvalidGraph, match="'large': feeds itself through a weight that has shape 10000×10000"):
        converted(tmp_path, made)


def test_edges_that_multiply_as_nested_graphs_are_made_flat_are_refused() -> None:
    # 150 nodes lead into the inner graph and 150 out of it, where nothing lies between: 22,500 edges.
    ports = {kind: GraphNode(kind, kind, {}) for kind in ("Input", "Output")}
    outer = {f"{side}{index}": GraphNode("", "LIF", {}) for side in ("from", "to") for index in range(150)}
    into = tuple((f"from{index}", "inner") for index in range(150))
    out = tuple(("inner", f"to{index}") for index in range(150))
    inner = NestedGraph(ports, (("Input", "Output"),))
    with pytest.raises(InvalidGraph, match="made flat has more than 20,000 edges"):
        flatten(NestedGraph({**outer, "inner": inner}, into + out))
