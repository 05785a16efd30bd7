"""Weights that are mostly 0: stored and added up as those that are not, with the bits that all of them give."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from spikeserve.models.bundle import Bundle, File
from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines import ENGINES, create
from spikeserve.models.engines.event.connections import SPARSE
from spikeserve.models.engines.event.engine import EventEngine
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.errors import InvalidBundle, InvalidSpec
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.parameters import WeightBits
from spikeserve.models.spec.price import LoadLimits, Price
from spikeserve.models.spec.sums import Summation, sums_of
from spikeserve.plugins.onnx.graph import build
from spikeserve.plugins.report.complexity import Complexity
from tests.bundles import publish
from tests.networks import network_of, task
from tests.same import EVERYTHING, assert_same_runs, assert_same_state

INPUTS, TAPS, NEURONS, STEPS = 60, 5, 90, 6
OTHERS = [name for name in ENGINES if name != "event"]


def delayed(kind: str, *, taps: bool = True, bits: WeightBits = None, seed: int = 0, **fields: Any) -> Network:
    """Return a layer whose synapses have a delay each, or with no `taps` a pruned one, and a pruned one of classes.

    Weights are multiples of 1 / 8, which are of few bits, or of 1 / 1024, or any floats, by their `kind`.
    """
    rng, arriving = np.random.default_rng(seed), INPUTS * (TAPS if taps else 1)
    sizes = {"fc.weight": (NEURONS, arriving), "fc.bias": (NEURONS,), "last.weight": (4, NEURONS)}
    tensors: dict[str, FloatArray] = {}
    for name, shape in sizes.items():
        if kind == "floats":
            tensors[name] = rng.normal(0, 1, shape).astype(np.float32)
        else:
            most = 8 if kind == "eighths" else 1024
            tensors[name] = (rng.integers(1, most, shape) * rng.choice([-1, 1], shape) / most).astype(np.float32)
        if len(shape) == 2:
            tensors[name] *= rng.random(shape) < (0.009 if bits else 0.05)
    tensors["last.weight"][0, 0] = 1
    nodes: list[dict[str, Any]] = [
        *([{"type": "Delay", "name": "seen", "taps": [*range(TAPS)]}] if taps else []),
        {"type": "Linear", "name": "fc", "in_features": arriving, "out_features": NEURONS, "weight_bits": bits},
        {"type": "LIF", "name": "hidden", "decay": 0.9, "threshold": 0.5, "fire": fields.pop("fire", "at_threshold")},
        {"type": "Linear", "name": "last", "in_features": NEURONS, "out_features": 4, "bias": False},
        {"type": "LI", "name": "out", "decay": 0.9},
    ]
    given: dict[str, Any] = {"shape": [INPUTS], "low": -4, "high": 4} | fields
    around = task(INPUTS, STEPS, 4, given.pop("coding", "spikes"), readout="max_membrane")
    return network_of(nodes, tensors, **around | {"input": given})


CASES: dict[str, tuple[Network, Summation]] = {
    "float32": (delayed("ten bits"), Summation.FLOAT32),
    "few bits": (delayed("eighths", bits=4), Summation.FLOAT32),
    "integers": (delayed("floats"), Summation.INTEGER),
    "integers, pruned": (delayed("floats", taps=False), Summation.INTEGER),
    "several spikes": (delayed("floats", fire="multiple", low=-100, high=100), Summation.FLOAT64),
    "values on a grid": (delayed("floats", coding="current", resolution=2.0**-20), Summation.FLOAT64),
    "any values": (delayed("floats", coding="current"), Summation.FLOAT64),
}


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize(("network", "by"), CASES.values(), ids=CASES)
def test_every_engine_gives_the_same_bits_whole_or_cut(network: Network, by: Summation, stored: bool) -> None:
    network = network.compact() if stored else network
    assert len(network.spec.nonzero) == 2 * stored
    assert sums_of(network)["fc"].by is by
    engine = EventEngine(network)
    assert (engine.plan.rows["kind"] == SPARSE).sum() >= 1
    rng = np.random.default_rng(1)
    for density in (0.0, 0.1, 1.0):
        spikes = (rng.random((STEPS, 3, INPUTS)) < density).astype(np.float32)
        values = np.round(rng.normal(0, 1, spikes.shape).clip(-4, 4) * 2**20) / 2**20
        others = [] if by is Summation.FLOAT32 else [spikes * values, spikes * 0.5]  # which has room for whole numbers
        for steps in (spikes, spikes * rng.integers(-4, 5, spikes.shape), *others):
            inputs = DenseInputs(steps.astype(np.float32), STEPS)
            assert_same_runs(inputs, ReferenceEngine(network), engine)
            first, later = DenseInputs(inputs.steps[:2], 2), DenseInputs(inputs.steps[2:], STEPS - 2)
            assert_same_state(engine.run(later, engine.run(first)[1])[1], engine.run(inputs)[1])
    for name in ("onnx", "torch"):
        if by is not Summation.FLOAT64:
            assert_same_runs(DenseInputs(spikes, STEPS), create(name, network), engine)


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
    network = delayed("eighths", bits=bits)
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
    network = delayed("eighths").compact()
    spec = network.spec.with_nonzero({"fc.weight": 3})
    for tensors in (network.tensors, dict(network.tensors)):
        with pytest.raises(InvalidSpec, match=r"tensor 'fc.weight': nonzero is 3, but \d+ of its weights are not 0"):
            Network(spec, tensors)
    assert Network(network.spec.with_nonzero({}), network.tensors).parameter_count == 90 * 300 + 90 + 360


def test_the_price_counts_what_is_stored_and_all_weights_only_for_engines_that_need_them(tmp_path: Path) -> None:
    network = delayed("eighths").compact()
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
        with pytest.raises(InvalidBundle, match=rf"on engine '{engine}', node 'fc': .* takes \d+ of the \d+ bytes"):
            bundle.engine(engine)
