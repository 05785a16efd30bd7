"""Each dialect's equations: their fields worked out by hand, of which the contract of nodes holds what each computes.

Published NIR graphs, as their authors ran them: each spike, under each rule that somebody ran them by.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest
from numpy.typing import NDArray

from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines import ENGINES, Record, create
from spikeserve.models.errors import InvalidSpec
from spikeserve.models.spec.rules import ResetTiming
from spikeserve.plugins.nir.commands import IMPORTER, NirOptions
from spikeserve.plugins.nir.convert import convert
from spikeserve.plugins.nir.dialects import DialectName, GivenRules, GraphReset, Rules
from spikeserve.training.commands import imports
from spikeserve.training.errors import InvalidGraph
from spikeserve.training.importers.options import ImportedNetwork, Options
from tests.nir_graphs import converted, full, integrate_and_fire, lif, read_here, stack, written
from tests.reference_data import reference_data
from tests.serving import serving

# dt/tau is 1/4, and 1/2 for the synapse; nothing needs rounding.
DT, TAU, TAU_SYN = 0.25, 1.0, 0.5
EXP = float(np.float32(np.exp(-1.0)))


def cuba(*shape: int, r: float = 1.0, w_in: float = 1.0, leak: float = 0.0) -> Any:
    return nir.CubaLIF(
        tau_syn=full(TAU_SYN, *shape), tau_mem=full(TAU, *shape), r=full(r, *shape), v_leak=full(leak, *shape),
        v_threshold=full(1, *shape), w_in=full(w_in, *shape),
    )  # fmt: skip


def fields(folder: Path, node: Any, dialect: DialectName, reset: GraphReset, **rules: Any) -> dict[str, Any]:
    """Return the fields of the only node that differ from the defaults of our spec."""
    network = converted(folder, stack((1,), (1,), n=node), Rules(dialect, DT, reset, **rules)).network
    return network.spec.nodes[0].model_dump(mode="json", exclude_defaults=True, exclude={"name"})


SUBTRACT, ZERO = GraphReset.SUBTRACT, GraphReset.ZERO
TO_ZERO = {"reset": "value"}
ABOVE = {"fire": "above_threshold"}


@pytest.mark.parametrize(
    ("dialect", "node", "reset", "expected"),
    [
        ("nir", lif(1, r=3, leak=0.5), ZERO,
         {"charge": "euler", "rate": 0.25, "gain": 3.0, "leak": 0.5} | ABOVE | TO_ZERO),
        ("nir", integrate_and_fire(1, r=2), SUBTRACT, {"gain": 0.5} | ABOVE),
        ("nir", cuba(1, r=2, w_in=3, leak=0.5), SUBTRACT,
         {"charge": "euler", "rate": 0.25, "gain": 2.0, "leak": 0.5, "synapse": "euler",
          "syn_rate": 0.5, "syn_gain": 3.0} | ABOVE),
        ("snntorch", lif(1, r=4), SUBTRACT, {"decay": 0.75, "reset_timing": "corrected"} | ABOVE),
        ("snntorch", lif(1, r=4), ZERO, {"decay": 0.75, "reset_timing": "corrected"} | ABOVE | TO_ZERO),
        # r * dt/tau is 1/4, which divides the threshold.
        ("snntorch", lif(1), SUBTRACT, {"decay": 0.75, "threshold": 4.0, "reset_timing": "corrected"} | ABOVE),
        ("snntorch", integrate_and_fire(1), SUBTRACT, {"reset_timing": "corrected"} | ABOVE),
        ("snntorch", cuba(1, r=4, w_in=2), ZERO,
         {"decay": 0.75, "syn_decay": 0.5, "reset_timing": "corrected_charged"} | ABOVE | TO_ZERO),
        ("norse", lif(1, r=3, leak=0.5), ZERO,
            {"charge": "euler_input_first", "rate": 0.25, "gain": 3.0, "leak": 0.5, "start": 0.5} | ABOVE | TO_ZERO),
        ("norse", integrate_and_fire(1), SUBTRACT, ABOVE),
        ("norse", cuba(1), ZERO,
         {"charge": "euler_input_first", "rate": 0.25, "synapse": "euler", "syn_rate": 0.5} | ABOVE | TO_ZERO),
        # tau is one step, whatever dt is.
        ("sinabs", lif(1), SUBTRACT, {"decay": EXP, "fire": "multiple"}),
        ("sinabs", integrate_and_fire(1, threshold=2), SUBTRACT, {"threshold": 2.0, "floor": -2.0, "fire": "multiple"}),
        ("sinabs", cuba(1), SUBTRACT,
         {"decay": EXP, "synapse": "sum_then_decay", "syn_decay": float(np.float32(np.exp(-2.0))), "fire": "multiple"}),
        ("spikingjelly", lif(1), SUBTRACT, {"charge": "relax", "tau": 4.0}),
        ("spikingjelly", lif(1, r=4), ZERO, {"charge": "leak_then_add", "tau": 4.0} | TO_ZERO),
        ("spikingjelly", integrate_and_fire(1, r=4), SUBTRACT, {}),
        ("spikingjelly", cuba(1, r=4, w_in=2), ZERO, {"decay": 0.75, "syn_decay": 0.5} | TO_ZERO),
        ("spikingjelly", nir.Threshold(full(2, 1)), ZERO, {"threshold": 2.0}),
        ("sinabs", nir.Threshold(full(2, 1)), ZERO, {"threshold": 2.0}),
        ("nir", nir.Threshold(full(2, 1)), ZERO, {"threshold": 2.0} | ABOVE),
    ],
)  # fmt: skip
def test_dialects_differ(tmp_path: Path, dialect: str, node: Any, reset: GraphReset, expected: dict[str, Any]) -> None:
    assert fields(tmp_path, node, DialectName(dialect), reset) == expected


def test_a_reset_may_be_late_or_none(tmp_path: Path) -> None:
    late = fields(tmp_path, lif(1, r=4), DialectName.SNNTORCH, SUBTRACT, reset_timing="next_step")
    assert late["reset_timing"] == "next_step"
    charged = fields(tmp_path, cuba(1, r=4, w_in=2), DialectName.SNNTORCH, ZERO, reset_timing="next_step")
    assert charged["reset_timing"] == "next_step_charged"
    assert fields(tmp_path, lif(1), DialectName.SNNTORCH, GraphReset.NONE)["reset"] == "none"
    with pytest.raises((InvalidGraph, InvalidSpec), match="expected same_step, as reset 'subtract', fire 'multiple'"):
        fields(tmp_path, lif(1), DialectName.SINABS, SUBTRACT, reset_timing="next_step")


@pytest.mark.parametrize(
    ("dialect", "at_start", "joins"),
    [("nir", True, "input"), ("snntorch", True, "charge"), ("norse", False, "input"), ("sinabs", False, "input"),
     ("spikingjelly", True, "input")],
)  # fmt: skip
def test_a_recurrent_bias_and_its_place_are_dialects(tmp_path: Path, dialect: str, at_start: bool, joins: str) -> None:
    inner = stack((1,), (1,), lif=lif(1, r=4))
    inner.nodes["w_rec"] = nir.Affine(np.ones((1, 1)), np.ones(1))
    inner.edges += [("lif", "w_rec"), ("w_rec", "lif")]
    network = converted(tmp_path, inner, Rules(DialectName(dialect), DT, SUBTRACT)).network
    node: Any = network.spec.nodes[0]
    assert (node.recurrent.bias_at_start, node.recurrent.joins) == (at_start, joins)


def test_v_reset_is_used_where_it_is_asked_for_and_told_where_it_is_not(tmp_path: Path) -> None:
    path = written(tmp_path, stack((1,), (1,), lif=lif(1)))
    with h5py.File(path, "a") as file:
        file["node/nodes/lif/v_reset"] = np.array([0.5])  # which the installed nir does not know
    graph = read_here(path).graph
    asked = convert(graph, Rules(DialectName.NIR, DT, GraphReset.VALUE), Options())
    node: Any = asked.network.spec.nodes[0]
    assert (node.reset, node.reset_value, asked.warnings) == ("value", 0.5, ())
    other = convert(graph, Rules(DialectName.NIR, DT, ZERO), Options())
    node = other.network.spec.nodes[0]
    assert node.reset_value == 0
    assert "its v_reset is not 0, but reset is 'zero', which wins" in other.warnings[0]
    with pytest.raises(InvalidGraph, match="node 'lif': LIF lacks v_reset"):
        converted(tmp_path, stack((1,), (1,), lif=lif(1)), Rules(DialectName.NIR, DT, GraphReset.VALUE))


STEP = 1e-4
BRAILLE = "braille_noDelay_noBias_subtract.nir"


def publish(root: Path, file: str, name: str, rules: GivenRules, time_steps: int) -> ImportedNetwork:
    imported = IMPORTER.convert(
        str(reference_data() / "nir" / file), NirOptions(**asdict(rules), time_steps=time_steps)
    )
    imports.publish(imported, str(root), name)
    return imported


def run(root: Path, name: str, engine: str, steps: NDArray[Any], record: Record) -> Any:
    """Run the bundle on one sample, (time_steps, *shape)."""
    bundle = ModelRepository(root).read(name)
    runner = create(engine, bundle.network)
    return runner.run(DenseInputs(steps[:, np.newaxis].astype(np.float32), len(steps)), record=record)[0]


@pytest.mark.parametrize("dialect", [DialectName.NIR, DialectName.NORSE])
def test_the_norse_neuron_gives_its_published_spikes_and_membrane(tmp_path: Path, dialect: DialectName) -> None:
    rules = GivenRules(dialect, STEP, GraphReset.ZERO)
    imported = publish(tmp_path, "lif_norse.nir", "lif", rules, 1000)
    assert imported.warnings == ()
    current, membrane, spikes = np.loadtxt(reference_data() / "nir/lif_norse.csv", delimiter=",").T
    for engine in ENGINES:
        result = run(tmp_path, "lif", engine, current[:, np.newaxis], Record.RASTER | Record.MEMBRANE)
        np.testing.assert_array_equal(result.rasters["node_1"].ravel(), spikes)
        np.testing.assert_allclose(result.membranes["node_1"].ravel(), membrane, atol=1e-6, rtol=0)
    assert spikes.sum() == 4


@pytest.mark.parametrize(
    ("published", "rules", "late"),
    [
        ("hidden_spyx", GivenRules(DialectName.NIR, STEP, GraphReset.SUBTRACT), 1),
        ("hidden_spyx", GivenRules(DialectName.SPIKINGJELLY, STEP, GraphReset.SUBTRACT), 1),
        ("hidden_snntorch", GivenRules(DialectName.SNNTORCH, STEP, GraphReset.SUBTRACT), 0),
        ("hidden_norse", GivenRules(DialectName.NORSE, STEP, GraphReset.ZERO), 0),
        # The same rules over another dialect's equations: what tells the rasters apart is the reset.
        ("hidden_norse", GivenRules(DialectName.NIR, STEP, GraphReset.ZERO), 0),
        ("hidden_snntorch", GivenRules(DialectName.NIR, STEP, GraphReset.SUBTRACT, ResetTiming.CORRECTED), 0),
    ],
)
def test_the_braille_graph_spikes_as_published(tmp_path: Path, published: str, rules: GivenRules, late: int) -> None:
    imported = publish(tmp_path, BRAILLE, "braille", rules, 256)
    assert imported.warnings == ()
    data = np.load(reference_data() / "nir/braille_test0_subtract.npz")
    for engine in ENGINES:
        raster = run(tmp_path, "braille", engine, data["x"], Record.RASTER).rasters["lif1_lif"][:, 0]
        # Spyx shows a step's spikes in the step after.
        assert np.count_nonzero(raster[: len(raster) - late] != data[published][late:]) == 0
        assert raster.sum() > 100


def test_the_braille_graph_classifies_its_samples_by_http(tmp_path: Path) -> None:
    data = np.load(reference_data() / "braille7.npz")
    samples, labels = np.unpackbits(data["x"], axis=-1)[..., :12], data["y"]
    publish(tmp_path, BRAILLE, "braille", GivenRules(DialectName.NIR, STEP, GraphReset.SUBTRACT), 256)
    found = []
    with serving(tmp_path) as client:
        for start in range(0, len(samples), 64):
            answer = client.post("/models/braille/predict", json={"inputs": samples[start : start + 64].tolist()})
            assert answer.status_code == 200, answer.text
            found += [prediction["class_index"] for prediction in answer.json()["predictions"]]
    assert (np.array(found) == labels).sum() == 1127  # of 1158: 97.32 %
