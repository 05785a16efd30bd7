"""Weights that are mostly 0: stored and added up as those that are not, with the bits that all of them give."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from spikeserve.models.bundle import Bundle, File
from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines import ENGINES
from spikeserve.models.engines.event.connections import SPARSE
from spikeserve.models.engines.event.engine import EventEngine
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.errors import EngineUnavailable, InvalidSpec
from spikeserve.models.spec.network import Network
from spikeserve.models.spec.parameters import WeightBits
from spikeserve.models.spec.price import LoadLimits, Price
from spikeserve.plugins.onnx.graph import build
from spikeserve.plugins.report.complexity import Complexity
from tests.bundles import publish
from tests.models.test_wide import layer
from tests.networks import network_of, task
from tests.same import EVERYTHING, assert_same_runs

INPUTS, TAPS, NEURONS = 60, 5, 90
OTHERS = [name for name in ENGINES if name != "event"]


def delayed(bits: WeightBits = None) -> Network:
    """Return a layer whose synapses have a delay each, of few bits, and of which few are not 0; see test_wide."""
    network = layer("4 bits", INPUTS, NEURONS, share=0.009, taps=TAPS)
    tensors = {**network.tensors, "fc.bias": np.full(NEURONS, 0.5, np.float32)}
    return Network(network.spec.with_weight_bits({"fc.weight": bits}), tensors)


@pytest.mark.parametrize("stored", [False, True])
def test_what_is_infinite_makes_nan_of_a_sum_without_its_weight(stored: bool) -> None:
    # An integrator of 3e38 a step is infinite at the second, and infinity times the 0 of all outputs but one is NaN.
    weight = np.zeros((40, 2))
    weight[7, 0] = weight[8, 1] = 1
    network = network_of(
        [
            {"type": "Scale", "name": "large", "scale": 3e38},
            {"type": "I", "name": "sum"},
            {"type": "Linear", "name": "fc", "in_features": 2, "out_features": 40, "bias": False},
            {"type": "LI", "name": "out", "decay": 0.0},
        ],
        {"fc.weight": weight},
        **task(2, 3, 40, "spikes", readout="last_membrane"),
    )
    network = network.compact() if stored else network
    inputs = DenseInputs(np.array([[[1, 0]], [[1, 0]], [[0, 1]]], np.float32), 3)
    engine = EventEngine(network)
    assert (engine.plan.rows["kind"] == SPARSE).any()
    membranes = assert_same_runs(inputs, ReferenceEngine(network), engine).membranes["out"]
    assert np.isposinf(membranes[1, 0, 7])
    assert np.isnan(np.delete(membranes[1, 0], 7)).all()


@pytest.mark.parametrize("bits", [None, 8, 4])
def test_a_bundle_stores_by_itself_only_the_weights_that_are_not_0(tmp_path: Path, bits: WeightBits) -> None:
    network = delayed(bits)
    publish(tmp_path, network)
    folder = tmp_path / "toy" / "1"
    bundle, tensors = ModelRepository(tmp_path).read("toy", 1), load_file(folder / File.WEIGHTS)
    counts = {name: int(np.count_nonzero(network.tensors[name])) for name in ("fc.weight", "last.weight")}
    nodes = json.loads((folder / "bundle.json").read_text())["spec"]["nodes"]
    assert {node["name"]: node["nonzero"] for node in nodes if "nonzero" in node} == {
        name.removesuffix(".weight"): count for name, count in counts.items()
    }
    count = counts["fc.weight"]
    kept = {None: ("float32", (count,)), 8: ("int8", (count,)), 4: ("uint8", (1, -(-count // 2)))}
    assert (tensors["fc.weight"].dtype.name, tensors["fc.weight"].shape) == kept[bits]
    np.testing.assert_array_equal(tensors["fc.weight_position"], np.flatnonzero(network.tensors["fc.weight"]))
    complexity = Complexity(bundle.network)
    assert complexity.footprint == sum(tensor.nbytes for tensor in tensors.values())
    assert complexity.parameter_count == sum(counts.values()) + NEURONS
    assert complexity.dense == sum(counts.values())
    assert complexity.connection_sparsity == Complexity(network).connection_sparsity
    for name, tensor in network.tensors.items():
        np.testing.assert_array_equal(bundle.network.tensors[name], tensor)
    for engine in ENGINES:
        bundle.verify(bundle.engine(engine))
    dense = network.tensors["fc.weight"].size * (4 if bits is None else 1)
    assert len(build(network).SerializeToString()) < dense / 2 + 8000  # and the graph's operators
    # Each spike meets the weights that are stored: the same operations as NeuroBench's effective ones.
    result = bundle.engine("event").run(bundle.golden.inputs, record=EVERYTHING)[0]
    work = complexity.work(bundle.golden.inputs, result)
    np.testing.assert_array_equal(result.synaptic_operations, sum(work.acs.values()))


def test_what_is_not_mostly_0_is_stored_whole_as_before() -> None:
    # 4 bytes for each weight against 8 for each that is not 0: of 100 at most 49 of these.
    for kept, sparse in ((49, True), (50, False)):
        weight = np.zeros(100)
        weight[:kept] = 1
        nodes = [{"type": "Linear", "name": "fc", "in_features": 10, "out_features": 10, "bias": False}]
        network = network_of(nodes, {"fc.weight": weight.reshape(10, 10)}, **task(10, 1, 10, readout="mean"))
        assert network.compact().spec.nonzero == ({"fc.weight": kept} if sparse else {})
        assert network.compact().compact().spec == network.compact().spec


def test_a_spec_that_says_another_number_than_there_is_is_a_sentence() -> None:
    network = delayed().compact()
    spec = network.spec.with_nonzero({"fc.weight": 3})
    for tensors in (network.tensors, dict(network.tensors)):
        with pytest.raises(InvalidSpec, match=r"tensor 'fc.weight': nonzero is 3, but \d+ of its weights are not 0"):
            Network(spec, tensors)
    assert Network(network.spec.with_nonzero({}), network.tensors).parameter_count == 90 * 300 + 90 + 900


def test_the_price_counts_what_is_stored_and_all_weights_only_for_engines_that_need_them(tmp_path: Path) -> None:
    network = delayed().compact()
    publish(tmp_path, network)
    few, all_of_them = (Price.of(network.spec, dense=dense).nodes[2] for dense in (False, True))
    stored = network.spec.nonzero["fc.weight"]
    assert few.running == stored + NEURONS
    assert few.making == stored + NEURONS
    assert all_of_them == replace(few, tables=few.tables + 16 * NEURONS * TAPS * INPUTS)
    most = LoadLimits(model_bytes=200_000)
    bundle = Bundle.read(tmp_path / "toy" / "1", most)
    bundle.verify(bundle.engine("event"))
    for engine in OTHERS:
        with pytest.raises(EngineUnavailable, match=rf"on engine '{engine}', node 'fc': .* takes \d+ of the \d+ bytes"):
            bundle.engine(engine)
