"""NeuroBench's metrics of snnTorch networks: those of its own harness beside those of our report, as a Markdown table.

Each network is small and random, with weights and inputs that are multiples of 1/8, so that every sum is exact. The
harness runs the network's modules by its hooks, and our report the bundle that they become. Whole numbers are compared,
over all samples; the command fails where two differ.

    python -m benchmarks.neurobench

It needs snnTorch and NeuroBench, which `./scripts/install peers` installs.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.machine import machine
from benchmarks.tables import markdown
from spikeserve.models.engines import create
from spikeserve.models.spec import Coding
from spikeserve.models.spec.network import FloatArray
from spikeserve.models.spec.parameters import Shape
from spikeserve.plugins.frameworks.convert import convert
from spikeserve.plugins.frameworks.framework import find
from spikeserve.plugins.frameworks.options import FrameworkOptions
from spikeserve.plugins.report.complexity import Complexity
from spikeserve.plugins.report.neurobench import NeuroBenchMetrics, measure
from spikeserve.training.data.datasets import Split

SAMPLES, STEPS, CLASSES = 13, 9, 4
# What is compared: over all samples, where the harness has it for each. `activations` are the outputs other than 0, and
# `Footprint` is without the buffers of the modules.
NUMBERS = (
    *("Effective_MACs", "Effective_ACs", "Dense", "MembraneUpdates", "Effective Neuron Ops", "Neuron Dense Ops"),
    *("activations", "right", "ParameterCount", "Footprint"),
)

Generator = np.random.Generator


@dataclass(frozen=True)
class Case:
    """A network and its samples: `build` makes the modules, and `draw` samples of `shape`."""

    build: Callable[[Generator], nn.Module]
    shape: Shape
    coding: Coding
    draw: Callable[[Generator, Shape], FloatArray]
    operations_of_neurons: bool = True  # whether the harness has numbers for its neurons; else it answers 0


@dataclass(frozen=True)
class Compared:
    """The harness's metrics, ours, and the bytes of the modules' buffers of one number each, which are in no bundle."""

    theirs: Mapping[str, Any]
    ours: NeuroBenchMetrics
    buffers: int

    @property
    def whole_numbers(self) -> dict[str, tuple[int, int]]:
        """The harness's and our whole number of each of `NUMBERS` that the harness has."""
        theirs, counted, metrics = self.theirs, self.ours.counted, self.ours.metrics
        for_each = dict(theirs["SynapticOperations"]) | {"MembraneUpdates": theirs["MembraneUpdates"]}
        for_each |= theirs.get("NeuronOperations", {})
        not_0 = (1 - theirs["ActivationSparsity"]) * counted["activations"]
        return {
            **{name: (round(value * self.ours.samples), counted[name]) for name, value in for_each.items()},
            "activations": (round(not_0), counted["activations_not_0"]),
            "right": (round(theirs["ClassificationAccuracy"] * self.ours.samples), counted["right"]),
            "ParameterCount": (theirs["ParameterCount"], metrics["ParameterCount"]),
            "Footprint": (theirs["Footprint"] - self.buffers, metrics["Footprint"]),
        }


def _drawn(rng: Generator, network: nn.Module, zeros: float = 0.0) -> nn.Module:
    """Give a network weights of -4/8 to 4/8, of which a share is 0."""
    for parameter in network.parameters():
        there = rng.random(parameter.shape) >= zeros
        eighths = rng.integers(-4, 5, parameter.shape) / 8
        parameter.data = torch.from_numpy((eighths * there).astype(np.float32))
    return network


def _leaky(**fields: Any) -> nn.Module:
    neurons: nn.Module = import_module("snntorch").Leaky(beta=0.875, init_hidden=True, **fields)
    return neurons


def _dense(rng: Generator) -> nn.Module:
    return _drawn(rng, nn.Sequential(nn.Linear(20, 30), _leaky(), nn.Linear(30, CLASSES), _leaky(output=True)))


def _convolutional(rng: Generator) -> nn.Module:
    # The average of spikes is no spike, so that the second convolution multiplies at some steps and adds at others.
    layers = [
        *(nn.Conv2d(2, 4, 3, padding=1), _leaky(threshold=0.5), nn.AvgPool2d(2)),
        *(nn.Conv2d(4, 6, 3, padding=1, stride=2, groups=2), _leaky(threshold=0.5), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(6, CLASSES), _leaky(output=True)),
    ]
    return _drawn(rng, nn.Sequential(*layers))


def _pruned_and_recurrent(rng: Generator) -> nn.Module:
    snn = import_module("snntorch")
    layers = [
        *(nn.Linear(20, 30), snn.RLeaky(beta=0.875, init_hidden=True, linear_features=30)),
        *(nn.Linear(30, 12), snn.Synaptic(alpha=0.75, beta=0.875, init_hidden=True)),
        *(nn.Linear(12, CLASSES), _leaky(output=True)),
    ]
    return _drawn(rng, nn.Sequential(*layers), zeros=0.6)


def _every_reset(rng: Generator) -> nn.Module:
    """Return each neuron and reset that the harness counts operations for, but Lapicque, which becomes a LIF here."""
    snn = import_module("snntorch")
    synaptic, alpha = {"alpha": 0.75, "beta": 0.875}, {"alpha": 0.875, "beta": 0.75, "threshold": 0.25}
    layers = [
        *(nn.Linear(20, 30), snn.Synaptic(**synaptic, init_hidden=True, reset_mechanism="zero")),
        *(nn.Linear(30, 20), snn.Synaptic(**synaptic, init_hidden=True)),
        *(nn.Linear(20, 20), snn.Alpha(**alpha, init_hidden=True, reset_mechanism="zero")),
        *(nn.Linear(20, 12), snn.Alpha(**alpha, init_hidden=True)),
        *(nn.Linear(12, 10), _leaky(reset_mechanism="zero"), nn.Linear(10, CLASSES), _leaky(output=True)),
    ]
    return _drawn(rng, nn.Sequential(*layers))


def _raster(rng: Generator, shape: Shape) -> FloatArray:
    return (rng.random((SAMPLES, STEPS, *shape)) < 0.4).astype(np.float32)


def _values(rng: Generator, shape: Shape) -> FloatArray:
    """Return samples with a value for each step, some steps of which hold nothing but 0 and 1."""
    drawn = rng.integers(0, 9, (SAMPLES, STEPS, *shape)).astype(np.float32) / np.float32(8)
    some_rounded = np.where(rng.random((1, STEPS, *(1 for _ in shape))) < 0.3, drawn.round(), drawn)
    return some_rounded.astype(np.float32)


def _image(rng: Generator, shape: Shape) -> FloatArray:
    return rng.integers(0, 9, (SAMPLES, *shape)).astype(np.float32) / np.float32(8)


CASES: Mapping[str, Case] = {
    "dense": Case(_dense, (20,), Coding.SPIKES, _raster),
    "dense on values": Case(_dense, (20,), Coding.CURRENT, _values),
    "convolutional": Case(_convolutional, (2, 8, 8), Coding.SPIKES, _raster),
    "convolutional on images": Case(_convolutional, (2, 8, 8), Coding.DIRECT, _image),
    "every neuron and reset": Case(_every_reset, (20,), Coding.SPIKES, _raster),
    "pruned and recurrent": Case(_pruned_and_recurrent, (20,), Coding.SPIKES, _raster, operations_of_neurons=False),
}


def compare(case: Case) -> Compared:
    """Run a case in the harness, sample by sample, and here; raises ImportError without snnTorch or NeuroBench."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        framework = find("snntorch")
        workload, static = (import_module(f"neurobench.metrics.{kind}") for kind in ("workload", "static"))
        models, benchmarks = (import_module(f"neurobench.{part}") for part in ("models", "benchmarks"))
    rng = np.random.default_rng(7)
    module, samples = case.build(rng), case.draw(rng, case.shape)
    module.eval().requires_grad_(False)
    options = FrameworkOptions(input_shape=case.shape, time_steps=STEPS, coding=case.coding, high=1.0)
    network = convert(module, framework, options).network
    labels = rng.integers(0, CLASSES, SAMPLES)
    ours = measure(Complexity(network), create("event", network), Split(samples, labels))

    steps = samples if case.coding.per_step else np.repeat(samples[:, np.newaxis], STEPS, axis=1)
    data = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.from_numpy(steps), torch.from_numpy(labels)), batch_size=1
    )
    metrics = [
        [static.Footprint, static.ConnectionSparsity, static.ParameterCount],
        [
            *(workload.ActivationSparsity, workload.ActivationSparsityByLayer, workload.SynapticOperations),
            *(workload.MembraneUpdates, workload.ClassificationAccuracy),
            *([workload.NeuronOperations] if case.operations_of_neurons else []),
        ],
    ]
    model = models.SNNTorchModel(module)
    benchmark = benchmarks.Benchmark(model, data, [], [lambda spikes: spikes.sum(1).argmax(1)], metrics)
    buffers = sum(buffer.nbytes for buffer in module.buffers() if buffer.ndim == 0)
    return Compared(benchmark.run(quiet=True), ours, buffers)


def table() -> tuple[str, int]:
    """Return the Markdown table of all cases, one row where both count the same, and how many whole numbers differ."""
    rows, names, differ = [], [*NUMBERS], 0
    for name, case in CASES.items():
        found = compare(case).whole_numbers
        apart = sum(theirs != ours for theirs, ours in found.values())
        differ += apart
        for side, who in enumerate(("NeuroBench", "ours") if apart else ("both",)):
            numbers = [f"{found[number][side]:,}" if number in found else "" for number in names]
            rows.append([name, who, *numbers])
    return markdown(["network", "counted by", *names], rows, left=2), differ


def main() -> int:
    """Print the table; return 1 where a whole number differs."""
    printed, differ = table()
    print(printed)
    print(f"\n{SAMPLES} samples of {STEPS} steps: {differ} whole numbers differ")
    print(machine(("neurobench", "snntorch", "torch")))
    return int(differ > 0)


if __name__ == "__main__":
    sys.exit(main())
