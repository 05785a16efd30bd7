"""NIR files: what the nir package of any version writes, what is written back, and what must not be read.

Damaged and hostile files: each is one sentence, whatever HDF5 does with it, and within bounds.
"""

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
from spikeserve.plugins.nir import reader
from spikeserve.plugins.nir.convert import convert
from spikeserve.plugins.nir.dialects import DialectName, GivenRules, GraphReset
from spikeserve.plugins.nir.file import read, write
from spikeserve.plugins.nir.graph import GraphNode, NestedGraph, flatten
from spikeserve.training.errors import InvalidGraph, TrainingError
from spikeserve.training.importers.options import Options
from tests.apps import app
from tests.nir_graphs import ends, graph, lif, read_here, stack, written

RULES = ("--dialect", "nir", "--dt", "1e-4", "--reset", "zero")


def command(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_import_tells_on_standard_error_and_in_the_card_what_it_mended(tmp_path: Path) -> None:
    nodes = ends((2,), (2,)) | {"lif": lif(2), "probe": lif(2)}
    path = written(tmp_path, graph(nodes, [("input", "lif"), *[("lif", "output")] * 2, ("lif", "probe")]))
    result = command("import", "nir", path, "--dialect", "nir", "--dt", "0.25", "--reset", "zero",
                     "--repository", tmp_path, "--name", "toy")  # fmt: skip
    sentence = "node 'probe': no path leads from it to the output; it is left out"
    assert f"warning: {sentence}" in result.stderr
    bundle = ModelRepository(tmp_path).read("toy")
    assert sentence in bundle.card
    assert [node.name for node in bundle.network.spec.nodes] == ["lif"]


def test_export_gives_a_file_that_import_takes_back_without_being_told_anything(tmp_path: Path) -> None:
    weight = np.array([[1, -3, 0, 7], [0.5, 0.125, -0.25, 0]])  # of 4 bits: times 1, and 4, 1, -2, 0 times 1/8
    path = written(tmp_path, stack((4,), (2,), fc=nir.Linear(weight), lif=lif(2, tau=2e-4, threshold=0.25)))
    into = ("--repository", tmp_path, "--name", "toy")
    assert command("import", "nir", path, *RULES, *into).exit_code == 0
    for arguments in (("toy", tmp_path / "a.nir", "--repository", tmp_path), (tmp_path / "toy/1", tmp_path / "b.nir")):
        result = command("export", "nir", *arguments)
        assert result.exit_code == 0, result.output
        assert "dialect nir, dt 0.0001 s, reset zero" in result.output
        assert "Its weights of few bits have the same values there, as float32: four times the bytes" in result.output
    assert (tmp_path / "a.nir").read_bytes() == (tmp_path / "b.nir").read_bytes()
    assert command("check", tmp_path / "a.nir").exit_code == 0
    assert command("import", "nir", tmp_path / "a.nir", *into).exit_code == 0
    first, second = (ModelRepository(tmp_path).read("toy", version) for version in (1, 2))
    assert first.network.spec == second.network.spec
    assert first.network.spec.weight_bits == {"fc.weight": 4}
    assert (first.network.tensors["fc.weight"] == weight).all()
    assert (second.network.tensors["fc.weight"] == weight).all()
    assert "such: whole numbers of 4 bits times a power of two" in first.card


SECONDS = 2.0  # some ten times what a whole file takes
NIR_RULES = GivenRules(DialectName.NIR, 1e-4, GraphReset.ZERO)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return written(tmp_path, stack((2,), (2,), fc=nir.Linear(np.ones((2, 2), np.float32)), lif=lif(2)))


def test_a_file_is_read_with_its_version_its_types_and_its_digest(path: Path) -> None:
    file = read(path)
    assert file.version == str(nir.version)
    assert len(file.sha256) == 64
    node: Any = file.graph.nodes["fc"]
    assert (node.type, node.parameters["weight"].dtype) == ("Linear", np.float32)
    assert file.graph.edges == (("input", "fc"), ("fc", "lif"), ("lif", "output"))


def test_metadata_of_every_kind_comes_back(tmp_path: Path) -> None:
    metadata = {
        "text": "größe",
        "texts": ["a", "b"],
        "none": np.empty((0, 2), np.float32),
        "number": 1e-4,
        "flags": np.array([True, False]),
        "inner": {"deep": {"big": np.arange(3, dtype=">i2")}},
    }
    write(tmp_path / "ours.nir", NestedGraph({}, (), metadata))
    found: Any = read(tmp_path / "ours.nir").graph.metadata
    assert list(found) == sorted(metadata)
    assert (found["text"], found["texts"].tolist(), found["number"]) == ("größe", ["a", "b"], 1e-4)
    assert (found["none"].shape, found["none"].dtype, found["flags"].tolist()) == ((0, 2), np.float32, [True, False])
    assert [entry.name for entry in tmp_path.iterdir()] == ["ours.nir"]
    big = found["inner"]["deep"]["big"]
    assert (big.tolist(), big.dtype) == ([0, 1, 2], np.dtype(">i2"))


def test_a_graph_of_too_many_edges_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_EDGES", 2)  # of the three that it has
    with pytest.raises(InvalidGraph, match="'/node': has more than 2 edges, which is refused"):
        read_here(path)


def places(content: bytearray, signature: bytes) -> Iterator[int]:
    """Return where HDF5's blocks of one kind begin."""
    at = content.find(signature)
    while at >= 0:
        yield at
        at = content.find(signature, at + 1)


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


def test_edges_that_multiply_as_nested_graphs_are_made_flat_are_refused() -> None:
    # 150 nodes lead into the inner graph and 150 out of it, where nothing lies between: 22,500 edges.
    ports = {kind: GraphNode(kind, kind, {}) for kind in ("Input", "Output")}
    outer = {f"{side}{index}": GraphNode("", "LIF", {}) for side in ("from", "to") for index in range(150)}
    into = tuple((f"from{index}", "inner") for index in range(150))
    out = tuple(("inner", f"to{index}") for index in range(150))
    inner = NestedGraph(ports, (("Input", "Output"),))
    with pytest.raises(InvalidGraph, match="made flat has more than 20,000 edges"):
        flatten(NestedGraph({**outer, "inner": inner}, into + out))
