"""Files of any make: what the nir package of any version writes, and what must not be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest

from spikeserve.training.errors import InvalidGraph
from spikeserve.training.importers.nir.file import read, write
from spikeserve.training.importers.nir.graph import GraphNode, NestedGraph
from spikeserve.training.importers.nir.reader import Budget, Reader
from tests.nir_graphs import lif, stack, written


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
    node: Any = read(path).graph.nodes["lif"]
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
    assert read(tmp_path / "ours.nir").graph.metadata == {"dt": 1e-4, "dialect": "nir"}
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


def test_data_that_is_neither_numbers_nor_text_is_refused(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["node/metadata/place"] = file["node"].ref
    with pytest.raises(InvalidGraph, match="'place' holds neither numbers nor text"):
        read(path)


def test_a_name_that_is_no_text_is_refused(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["node/nodes"].move("lif", "l\x1bif")
    with pytest.raises(InvalidGraph, match=r"the name 'l\\x1bif' is not plain text"):
        read(path)


def test_what_is_no_nir_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InvalidGraph, match="cannot be read: No such file or directory"):
        read(tmp_path / "nowhere.nir")
    (tmp_path / "text.nir").write_text("no HDF5")
    with pytest.raises(InvalidGraph, match="is not a NIR file"):
        read(tmp_path / "text.nir")
    with h5py.File(tmp_path / "other.nir", "w") as file:
        file["something"] = 1
    with pytest.raises(InvalidGraph, match="has no group 'node'"):
        read(tmp_path / "other.nir")


def test_a_file_that_was_cut_short_is_one_sentence(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InvalidGraph) as refused:
        read(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("link", [h5py.ExternalLink("/etc/passwd", "/"), h5py.SoftLink("/node/nodes/fc/weight")])
def test_links_are_refused(path: Path, link: Any) -> None:
    with h5py.File(path, "a") as file:
        del file["node/nodes/lif/r"]
        file["node/nodes/lif/r"] = link
    with pytest.raises(InvalidGraph, match="'r' is a link, which is refused"):
        read(path)


def test_data_outside_the_file_is_refused(path: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(64))
    with h5py.File(path, "a") as file:
        del file["node/nodes/lif/r"]
        place = (str(tmp_path / "secret"), 0, 16)
        file["node/nodes/lif"].create_dataset("r", (2,), np.float64, external=[place])
    with pytest.raises(InvalidGraph, match="'r' is not plain data inside the file"):
        read(path)


def test_a_file_that_unfolds_to_too_much_is_refused_before_it_does(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["node/nodes/fc/weight"]
        # Chunks that were never written take no room on disk, and 8 TB in memory.
        file["node/nodes/fc"].create_dataset("weight", (10**6, 10**6), np.float64, chunks=(1000, 1000))
    with pytest.raises(InvalidGraph, match="unfolds to more than"):
        read(path)


def test_too_many_nodes_or_edges_are_refused(path: Path) -> None:
    # It has four nodes and three edges.
    with h5py.File(path) as file:
        Reader(Budget(nodes=4, edges=3)).file(file)
        with pytest.raises(InvalidGraph, match="nodes, which is refused"):
            Reader(Budget(nodes=3)).file(file)
        with pytest.raises(InvalidGraph, match="edges, which is refused"):
            Reader(Budget(edges=2)).file(file)


def test_a_node_without_a_type_is_named(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["node/nodes/lif/type"]
    with pytest.raises(InvalidGraph, match="'/node/nodes/lif': has no type"):
        read(path)
