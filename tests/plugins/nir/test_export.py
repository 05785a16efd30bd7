"""A network as a NIR file: it comes back bit for bit, says what it is without us, and others can run it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest
import torch

from spikeserve.models.spec.network import Network
from spikeserve.plugins.nir.convert import convert, convert_file
from spikeserve.plugins.nir.dialects import DialectName, GivenRules, GraphReset, Rules
from spikeserve.plugins.nir.export import to_graph
from spikeserve.plugins.nir.file import NirFile, write
from spikeserve.training.errors import ExportRefused
from spikeserve.training.importers.options import Options
from tests.networks import network_of, task
from tests.nir_graphs import read_here, spikes_of

DT = 2.0**-13


def exported(folder: Path, network: Network, dt: float | None = DT) -> NirFile:
    write(folder / "ours.nir", to_graph(network, dt))
    return read_here(folder / "ours.nir")


def taken_back(file: NirFile) -> Any:
    return convert_file(file, GivenRules.of(file.graph.metadata).complete(), Options())


def require_same(found: Network, expected: Network) -> None:
    assert found.spec == expected.spec
    assert {name: tensor.tobytes() for name, tensor in found.tensors.items()} == {
        name: tensor.tobytes() for name, tensor in expected.tensors.items()
    }


def network(**neuron: Any) -> Network:
    """Eight inputs, four neurons, three neurons; weights are dyadic, so that every sum is exact in any order."""
    rng = np.random.default_rng(3)
    neuron = {"type": "LIF", "threshold": 0.9} | neuron
    connections = {"fc1.weight": rng.integers(-4, 9, (4, 8)) / 4, "fc2.weight": rng.integers(-4, 9, (3, 4)) / 4}
    return network_of(
        [
            {"type": "Linear", "name": "fc1", "in_features": 8, "out_features": 4, "bias": False},
            neuron | {"name": "lif1"},
            {"type": "Linear", "name": "fc2", "in_features": 4, "out_features": 3, "bias": False},
            {key: value for key, value in neuron.items() if key != "recurrent"} | {"name": "lif2"},
        ],
        connections | ({"lif1.recurrent.weight": np.eye(4) / 2} if "recurrent" in neuron else {}),
        **task(8, 20, "abc", "spikes")
    )  # fmt: skip


@pytest.mark.parametrize(
    ("neuron", "dialect", "reset"),
    [
        ({"decay": 0.75}, "spikingjelly", "subtract"),
        ({"decay": 0.75, "fire": "above_threshold"}, "nir", "subtract"),
        ({"decay": 0.75, "fire": "above_threshold", "reset_timing": "corrected"}, "snntorch", "subtract"),
        ({"decay": 0.75, "fire": "multiple"}, "sinabs", "subtract"),
        ({"charge": "euler", "rate": 0.25, "gain": 2, "leak": 0.25, "fire": "above_threshold", "reset": "value"},
         "nir", "zero"),
        ({"charge": "euler_input_first", "rate": 0.25, "fire": "above_threshold", "reset": "value",
          "reset_value": -0.5}, "norse", "value"),
        ({"type": "IF", "gain": 0.5, "fire": "above_threshold"}, "nir", "subtract"),
        ({"type": "CubaLIF", "decay": 0.75, "syn_decay": 0.5, "recurrent": {}}, "spikingjelly", "subtract"),
        ({"type": "CubaLIF", "decay": 0.75, "syn_decay": 0.5, "synapse": "sum_then_decay"}, "spikingjelly", "subtract"),
        ({"type": "CubaLIF", "decay": 0.75, "syn_decay": 0.5, "synapse": "sum_then_decay", "fire": "multiple"},
         "sinabs", "subtract"),
    ],
)  # fmt: skip
def test_nirs_own_nodes_say_it_without_us(tmp_path: Path, neuron: dict[str, Any], dialect: str, reset: str) -> None:
    original = network(**neuron)
    file = exported(tmp_path, original)
    named = GivenRules.of(file.graph.metadata).complete()
    assert (named.dialect, named.dt, named.reset) == (dialect, DT, reset)
    by_nodes = convert(file.graph, named, Options(time_steps=20)).network
    steps = np.random.default_rng(0).integers(0, 2, (20, 8))
    expected = list(spikes_of(original, steps).values())
    found = list(spikes_of(by_nodes, steps).values())
    # A threshold of 0.9 is no sum of the weights' quarters, so that the rounding of a decay decides nothing.
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert expected[0].any()


def test_other_rules_than_the_files_are_followed_and_told(tmp_path: Path) -> None:
    file = exported(tmp_path, network(decay=0.75))
    conversion = convert_file(file, Rules(DialectName.NIR, DT, GraphReset.ZERO), Options())
    assert "other rules than its own were named" in conversion.warnings[0]
    assert conversion.network.spec.nodes[1].reset == "value"  # type: ignore[union-attr]


def test_a_file_that_was_edited_is_read_from_its_nodes_and_told(tmp_path: Path) -> None:
    exported(tmp_path, network(decay=0.75))
    with h5py.File(tmp_path / "ours.nir", "a") as file:
        file["node/nodes/fc1/weight"][...] = 2.0
    conversion = taken_back(read_here(tmp_path / "ours.nir"))
    assert "was changed since it was exported" in conversion.warnings[0]
    assert (conversion.network.tensors["fc1.weight"] == 2).all()


def test_a_file_that_went_through_the_nir_package_still_comes_back(tmp_path: Path) -> None:
    original = network(decay=0.75, recurrent={})
    exported(tmp_path, original)
    nir.write(tmp_path / "ours.nir", nir.read(tmp_path / "ours.nir"))
    conversion = taken_back(read_here(tmp_path / "ours.nir"))
    require_same(conversion.network, original)
    assert conversion.warnings == ()


def test_the_nir_package_reads_a_convolutional_network(tmp_path: Path) -> None:
    original = network_of(
        [{"type": "Conv2d", "name": "conv", "in_channels": 1, "out_channels": 2, "kernel_size": 3, "padding": "same"},
         {"type": "LIF", "name": "lif", "decay": 0.5}, {"type": "SumPool2d", "name": "pool", "kernel_size": 2},
         {"type": "Flatten", "name": "flat"}, {"type": "IF", "name": "output"}],
        {"conv.weight": np.ones((2, 1, 3, 3)), "conv.bias": [1, 2]}, **task([1, 4, 4], 1, "abcdefgh")
    )  # fmt: skip
    exported(tmp_path, original)
    nodes = nir.read(tmp_path / "ours.nir").nodes
    assert nodes["lif"].tau.shape == (2, 4, 4)
    assert list(nodes["conv"].padding) == [1, 1]
    assert nodes["flat"].output_type["output"].tolist() == [8]
    assert type(nodes["output.of_the_graph"]) is nir.Output
    require_same(taken_back(read_here(tmp_path / "ours.nir")).network, original)


def test_a_network_that_does_not_know_its_dt_is_written_with_the_usual_one(tmp_path: Path) -> None:
    assert exported(tmp_path, network(decay=0.75), dt=None).graph.metadata["dt"] == 1e-4


def test_what_a_nir_file_says_once_for_all_neurons_is_refused_where_they_differ() -> None:
    nodes = [{"type": "IF", "name": "a"}, {"type": "IF", "name": "out", "reset": "value"}]
    with pytest.raises(ExportRefused, match=r"reset in 2 ways \(subtract, zero\), but a NIR file is read under one"):
        to_graph(network_of(nodes, {}, **task(1, 1, 1)))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"decay": 1.0, "syn_decay": 0.5}, "node 'lif1': its membrane keeps all or nothing"),
        ({"decay": 0.5, "syn_decay": 1.0}, "node 'lif1': its synaptic current keeps all"),
    ],
)
def test_what_nir_has_no_time_constant_for_is_refused_by_name(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ExportRefused, match=sentence):
        to_graph(network(type="CubaLIF", **fields))


def by_norse(path: Path, dt: float) -> Callable[..., Any]:
    norse = pytest.importorskip("norse.torch")
    return norse.from_nir(nir.read(path), dt=dt)


def by_snntorch(path: Path, _: float) -> Callable[..., Any]:
    importing = pytest.importorskip("snntorch.import_nir")
    return importing.import_from_nir(nir.read(path))


CUBA = {"type": "CubaLIF", "synapse": "euler", "syn_rate": 0.5}
BOX = {"charge": "euler_input_first", "rate": 0.25, "fire": "above_threshold", "reset": "value"}
LATE = {"decay": 0.75, "fire": "above_threshold", "reset": "value", "reset_timing": "corrected"}


@pytest.mark.filterwarnings("ignore")  # of other people's libraries
@pytest.mark.parametrize(
    ("import_of", "neuron", "dt"),
    [
        (by_norse, BOX | {"threshold": 0.3}, DT),
        (by_norse, BOX | CUBA | {"threshold": 0.3}, DT),
        (by_norse, BOX | CUBA | {"threshold": 0.3, "recurrent": {}}, DT),
        # snnTorch's import takes dt to be 1e-4, resets to zero, and crashes on recurrent graphs.
        (by_snntorch, LATE, 1e-4),
        (by_snntorch, LATE | {"type": "CubaLIF", "syn_decay": 0.5, "reset_timing": "corrected_charged"}, 1e-4),
    ],
)
def test_others_read_the_file_and_fire_the_same_spikes(
    tmp_path: Path, import_of: Callable[..., Callable[..., Any]], neuron: dict[str, Any], dt: float
) -> None:
    original = network(**neuron)
    exported(tmp_path, original, dt)
    steps = np.random.default_rng(0).integers(0, 2, (20, 8))
    expected, elsewhere, state = spikes_of(original, steps)["lif2"], import_of(tmp_path / "ours.nir", dt), None
    assert expected.any()
    for step, spikes in zip(steps, expected, strict=True):
        output, state = elsewhere(torch.tensor(step[np.newaxis], dtype=torch.float32), state)
        np.testing.assert_array_equal(output[0].detach(), spikes)
