"""Files of any make: what the nir package of any version writes, and what must not be read."""

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


def test_a_graph_of_too_many_edges_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_EDGES", 2)  # of the three that it has
    with pytest.raises(InvalidGraph, match="'/node': has more than 2 edges, which is refused"):
        read_here(path)
