"""A workload made concrete: weights that fire, and inputs whose spikes do not hang on how a sum was rounded.

Each layer's weights are scaled, first to last, until it fires as wanted. A library that computes the same equation in
another order rounds differently, and a membrane within rounding of its threshold then falls on the other side. So a
sample is kept only where a slightly lower and a slightly higher threshold give the same spikes: on what is kept, equal
rules give equal counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from benchmarks.workloads import GRID, THRESHOLD, Activity, Workload, is_dense
from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines import RunResult
from spikeserve.models.engines.base import Counts
from spikeserve.models.engines.torch.engine import TorchEngine
from spikeserve.models.spec import Spec
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.nodes import Spiking, Weighted

SPARSE, DENSE = 0.06, 0.5  # spikes per neuron and step that a layer's weights are scaled to
CLOSE = 0.1  # how far from that they may stay, relatively
TRIALS = 4  # samples to scale on
MARGIN = 2.0**-19  # relative; far above what a float32 membrane gathers in rounding
PIXELS = 0.2  # of a direct input's values that are not 0, as in a picture of a digit
CHUNK = 32  # samples that are run at once


@dataclass(frozen=True)
class Case:
    """A network with inputs, and what its counts should be.

    `activity` is non-zero values per element and step, a fraction by name, of the input and of each spiking node.
    `synaptic_operations` is one run's, over all samples.
    """

    workload: Workload
    input_activity: Activity
    network: Network
    inputs: DenseInputs
    spike_counts: Counts
    activity: Mapping[str, float]
    synaptic_operations: int

    def first(self, samples: int) -> Case:
        """Return the same case with the first few samples."""
        return self.only(np.arange(samples))

    def only(self, which: NDArray[np.intp]) -> Case:
        """Return the same case with the samples of these indices."""
        steps = np.ascontiguousarray(self.inputs.steps[:, which])
        return _case(self.workload, self.input_activity, self.network, DenseInputs(steps, self.inputs.time_steps))


def build(workload: Workload, activity: Activity, batch: int, bits: int | None = None) -> Case:
    """Return a case of `batch` samples, with weights of so many bits if that is given.

    The first samples are the same whatever the batch.
    """
    network = _network(workload, activity, bits)
    steady = _steady(workload, activity, network, at_once=min(batch, CHUNK))
    samples = np.stack(list(islice(steady, batch)), axis=1)
    return _case(workload, activity, network, DenseInputs(samples, workload.time_steps))


def _case(workload: Workload, activity: Activity, network: Network, inputs: DenseInputs) -> Case:
    result = _run(network, inputs)
    return Case(
        workload=workload,
        input_activity=activity,
        network=network,
        inputs=inputs,
        spike_counts=result.spike_counts,
        activity={"input": float((inputs.steps != 0).mean())} | _activity(network.spec, result),
        synaptic_operations=int(np.asarray(result.synaptic_operations).sum()),
    )


def _run(network: Network, inputs: DenseInputs) -> RunResult:
    engine = TorchEngine(network)
    parts = [engine.run(inputs[start : start + CHUNK])[0] for start in range(0, inputs.batch, CHUNK)]
    return RunResult(
        spike_counts=np.concatenate([part.spike_counts for part in parts]),
        readout=np.concatenate([part.readout for part in parts]),
        synaptic_operations=np.concatenate([part.synaptic_operations for part in parts]),
        spikes_per_node={
            name: np.concatenate([part.spikes_per_node[name] for part in parts]) for name in parts[0].spikes_per_node
        },
    )


def _activity(spec: Spec, result: RunResult) -> dict[str, float]:
    slots = {node.name: spec.time_steps * math.prod(spec.output_shapes[node.name]) for node in spec.spiking_nodes}
    return {name: float(result.spikes_per_node[name].mean()) / size for name, size in slots.items()}


def _network(workload: Workload, activity: Activity, bits: int | None) -> Network:
    spec, target = workload.spec(activity), DENSE if is_dense(activity) else SPARSE
    weights = _weights(spec, workload.seed, mean=0.1 if is_dense(activity) else 0.0)
    trials = np.stack(list(islice(_samples(workload, activity), TRIALS)), axis=1)
    inputs = DenseInputs(trials, spec.time_steps)
    gain, feeding = workload.recurrent_gain, list[str]()
    if gain is not None:
        weights = {name: gain * weight if ".recurrent." in name else weight for name, weight in weights.items()}
    for node in spec.nodes:
        if isinstance(node, Weighted):
            feeding.append(f"{node.name}.weight")
        if not isinstance(node, Spiking):
            continue
        names = [*feeding, *([f"{node.name}.recurrent.weight"] if node.recurrent and gain is None else [])]
        low, high = -12.0, 12.0  # the weights' factor is a power of two of these
        for _ in range(30):
            middle = (low + high) / 2
            scaled = weights | {name: weights[name] * 2.0**middle for name in names}
            network = Network(spec, {name: _rounded(weight, bits) for name, weight in scaled.items()})
            rate = _activity(spec, _run(network, inputs))[node.name]
            if abs(rate / target - 1) <= CLOSE:
                break
            low, high = (middle, high) if rate < target else (low, middle)
        else:
            raise ValueError(f"workload '{workload.name}': node '{node.name}' fires {rate:.1%}, expected {target:.0%}")
        weights, feeding = scaled, []
    return network


def _weights(spec: Spec, seed: int, mean: float) -> dict[str, NDArray[np.float64]]:
    """Return normal weights of a standard deviation of 1 / sqrt(fan in)."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.standard_normal(shape) + mean) / math.sqrt(math.prod(shape[1:]))
        for name, shape in spec.tensor_shapes.items()
    }


def _rounded(weight: NDArray[np.float64], bits: int | None) -> FloatArray:
    """Round weights to the grid, or to whole numbers of so many bits times a power of two for each output."""
    if bits is None:
        return (np.round(weight / GRID) * GRID).astype(np.float32)
    most, rows = 2 ** (bits - 1) - 1, weight.reshape(len(weight), -1)
    scales = 2.0 ** np.ceil(np.log2(np.abs(rows).max(axis=1, keepdims=True) / most))
    return (np.round(rows / scales) * scales).reshape(weight.shape).astype(np.float32)


def _samples(workload: Workload, activity: Activity) -> Iterator[FloatArray]:
    """Yield samples (time_steps, *shape) of spikes, or (1, *shape) of values in sixteenths, without end."""
    rng = np.random.default_rng([workload.seed, 1])
    while True:
        if activity == "direct":
            lit = rng.random(workload.input) < PIXELS
            yield (lit * rng.integers(1, 17, workload.input) / 16).astype(np.float32)[np.newaxis]
        else:
            yield (rng.random((workload.time_steps, *workload.input)) < activity / 100).astype(np.float32)


def _steady(workload: Workload, activity: Activity, network: Network, at_once: int) -> Iterator[FloatArray]:
    """Yield the samples whose spikes a slightly different threshold does not change."""
    specs = [workload.spec(activity, threshold) for threshold in (THRESHOLD * (1 - MARGIN), THRESHOLD * (1 + MARGIN))]
    low, high = (Network(spec, network.tensors) for spec in specs)
    samples = _samples(workload, activity)
    while True:
        drawn = np.stack(list(islice(samples, at_once)), axis=1)
        inputs = DenseInputs(drawn, workload.time_steps)
        one, other = _run(low, inputs), _run(high, inputs)
        same = (one.spike_counts == other.spike_counts).all(axis=1)
        for name, spikes in one.spikes_per_node.items():
            same &= spikes == other.spikes_per_node[name]
        yield from drawn[:, same].swapaxes(0, 1)
