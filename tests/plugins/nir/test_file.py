"""Files of any make: what the nir package of any version writes, and what must not be read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest

from spikeserve.plugins.nir import reader
from spikeserve.plugins.nir.file import read, write
from spikeserve.plugins.nir.graph import GraphNode, NestedGraph
from spikeserve.training.errors import InvalidGraph
from tests.nir_graphs import lif, read_here, stack, written


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


def test_fields_that_the_installed_nir_does_not_know_are_read(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["node/nodes/lif/v_reset"] = np.array([0.5, 0.25])
    node: Any = read_here(path).graph.nodes["lif"]
    np.testing.assert_array_equal(node.array("v_reset"), [0.5, 0.25])


def test_what_we_write_the_nir_package_reads(tmp_path: Path) -> None:
    weight = np.arange(6, dtype=np.float32).reshape(3, 2)
    nodes = {
        "input": GraphNode("input", "Input", {"shape": np.array([2])}),
        "fc": GraphNode("fc", "Linear", {"weight": weight}),
        "output": GraphNode("output", "Output", {"shape": np.array([3])}),
    }
    written_graph = NestedGraph(nodes, (("input", "fc"), ("fc", "output")), {"dt": 1e-4, "dialect": "nir"})
    write(tmp_path / "ours.nir", written_graph)
    found = nir.read(tmp_path / "ours.nir")
    np.testing.assert_array_equal(found.nodes["fc"].weight, weight)
    assert found.edges == [("input", "fc"), ("fc", "output")]
    assert found.metadata == {"dt": 1e-4, "dialect": "nir"}
    assert read_here(tmp_path / "ours.nir").graph.metadata == {"dt": 1e-4, "dialect": "nir"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["ours.nir"]


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
    big = found["inner"]["deep"]["big"]
    assert (big.tolist(), big.dtype) == ([0, 1, 2], np.dtype(">i2"))


def test_what_is_no_nir_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InvalidGraph, match="cannot be read: No such file or directory"):
        read(tmp_path / "nowhere.nir")
    (tmp_path / "text.nir").write_text("no HDF5")
    with pytest.raises(InvalidGraph, match="is not a NIR file"):
        read(tmp_path / "text.nir")
    with h5py.File(tmp_path / "other.nir", "w") as file:
        file["something"] = 1
    with pytest.raises(InvalidGraph, match="has no group 'node'"):
        read_here(tmp_path / "other.nir")


def replaced(file: h5py.File, name: str, value: Any = None, **how: Any) -> None:
    """Put something else in a data set's place: a value, or a data set that is created so."""
    del file[name]
    if how:
        file.create_dataset(name, dtype=np.float64, **how)
    else:
        file[name] = value


OUTSIDE = [("/etc/passwd", 0, 16)]
REFUSED: dict[str, tuple[Callable[[h5py.File], None], str]] = {
    "a link to a file": (
        lambda file: replaced(file, "node/nodes/lif/r", h5py.ExternalLink("/etc/passwd", "/")),
        "'r' is a link, which is refused",
    ),
    "a link inside": (
        lambda file: replaced(file, "node/nodes/lif/r", h5py.SoftLink("/node/nodes/fc/weight")),
        "'r' is a link, which is refused",
    ),
    "data outside": (
        lambda file: replaced(file, "node/nodes/lif/r", shape=(2,), external=OUTSIDE),
        "'r' is not plain data inside the file",
    ),
    "a reference": (
        lambda file: replaced(file, "node/nodes/lif/r", file["node"].ref),
        "'r' holds neither numbers nor text",
    ),
    "a name that is no text": (
        lambda file: file["node/nodes"].move("lif", "l\x1bif"),
        r"the name 'l\\x1bif' is not plain text",
    ),
    "no type": (lambda file: file.pop("node/nodes/lif/type") and None, "'/node/nodes/lif': has no type"),
    "too many edges": (
        lambda file: replaced(file, "node/edges", [["input", "fc"]] * 5),
        "'/node': has more than 4 edges, which is refused",
    ),
    "too many groups": (
        lambda file: file.create_dataset("node/nodes/fifth/type", data="IF"),
        "the file has more than 6 groups, which is refused",  # those of five nodes, of all and of the graph
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_must_not_be_read_is_refused(path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    change, sentence = REFUSED[kind]
    monkeypatch.setattr(reader, "MAX_GROUPS", 6)
    monkeypatch.setattr(reader, "MAX_EDGES", 4)
    assert len(read_here(path).graph.nodes) == 4
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(InvalidGraph, match=sentence):
        read_here(path)


def test_a_file_that_unfolds_to_too_much_is_refused_before_it_does(path: Path) -> None:
    with h5py.File(path, "a") as file:
        # Chunks that were never written take no room on disk, and 8 TB in memory.
        replaced(file, "node/nodes/fc/weight", shape=(10**6, 10**6), chunks=(1000, 1000))
    with pytest.raises(InvalidGraph, match="needs more memory than a file may"):
        read(path)
