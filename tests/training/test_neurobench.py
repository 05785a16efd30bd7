"""The metrics of NeuroBench's own harness, and ours, of networks that run the same samples: equal whole numbers.

The networks are snnTorch's, which the harness runs by its hooks, and their bundles, which our engines run. Weights and
inputs are dyadic, so that every sum is exact.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from models.complexity import Complexity
from models.engines import EngineName, create
from models.spec import Coding
from models.spec.network import FloatArray, Network
from models.spec.parameters import Shape
from tests.training.test_peers import dyadic, of, peer
from training.data.datasets import Split
from training.importers.builder import Options
from training.importers.frameworks.convert import convert
from training.report import neurobench

SAMPLES, STEPS, CLASSES = 13, 9, 4

Build = Callable[[np.random.Generator], nn.Module]


def harness(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("neurobench", reason="neurobench is not installed: ./scripts/install peers")
        return of(f"neurobench.{name}")


def drawn(rng: np.random.Generator, network: nn.Module, zeros: float = 0.0) -> nn.Module:
    """Give a network dyadic weights, of which a share is 0."""
    for parameter in network.parameters():
        there = torch.from_numpy(rng.random(parameter.shape) >= zeros)
        parameter.data = dyadic(rng, *parameter.shape, most=4) * there
    return network


def leaky(**fields: Any) -> nn.Module:
    neurons: nn.Module = of("snntorch").Leaky(beta=0.875, init_hidden=True, **fields)
    return neurons


def dense(rng: np.random.Generator) -> nn.Module:
    return drawn(rng, nn.Sequential(nn.Linear(20, 30), leaky(), nn.Linear(30, CLASSES), leaky(output=True)))


def convolutional(rng: np.random.Generator) -> nn.Module:
    # The average of spikes is no spike, so that the second convolution multiplies at some steps and adds at others.
    layers = [
        *(nn.Conv2d(2, 4, 3, padding=1), leaky(threshold=0.5), nn.AvgPool2d(2)),
        *(nn.Conv2d(4, 6, 3, padding=1, stride=2, groups=2), leaky(threshold=0.5), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(6, CLASSES), leaky(output=True)),
    ]
    return drawn(rng, nn.Sequential(*layers))


def pruned_and_recurrent(rng: np.random.Generator) -> nn.Module:
    snn = of("snntorch")
    layers = [
        *(nn.Linear(20, 30), snn.RLeaky(beta=0.875, init_hidden=True, linear_features=30)),
        *(nn.Linear(30, 12), snn.Synaptic(alpha=0.75, beta=0.875, init_hidden=True)),
        *(nn.Linear(12, CLASSES), leaky(output=True)),
    ]
    return drawn(rng, nn.Sequential(*layers), zeros=0.6)


def raster(rng: np.random.Generator, shape: Shape) -> FloatArray:
    return (rng.random((SAMPLES, STEPS, *shape)) < 0.4).astype(np.float32)


def values(rng: np.random.Generator, shape: Shape) -> FloatArray:
    """Return samples with a value for each step, some steps of which hold nothing but 0 and 1."""
    drawn_values = rng.integers(0, 9, (SAMPLES, STEPS, *shape)).astype(np.float32) / np.float32(8)
    some_rounded = np.where(rng.random((1, STEPS, *(1 for _ in shape))) < 0.3, drawn_values.round(), drawn_values)
    return some_rounded.astype(np.float32)


def image(rng: np.random.Generator, shape: Shape) -> FloatArray:
    return rng.integers(0, 9, (SAMPLES, *shape)).astype(np.float32) / np.float32(8)


CASES: dict[str, tuple[Build, Shape, Coding, Callable[[np.random.Generator, Shape], FloatArray]]] = {
    "dense": (dense, (20,), Coding.SPIKES, raster),
    "dense on values": (dense, (20,), Coding.CURRENT, values),
    "convolutional": (convolutional, (2, 8, 8), Coding.SPIKES, raster),
    "convolutional on images": (convolutional, (2, 8, 8), Coding.DIRECT, image),
    "pruned and recurrent": (pruned_and_recurrent, (20,), Coding.SPIKES, raster),
}


def imported(module: nn.Module, shape: Shape, coding: Coding) -> Network:
    framework = peer("snntorch")
    module.eval().requires_grad_(False)
    return convert(module, framework, Options(shape, STEPS, coding, high=1.0)).network


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("case", list(CASES))
def test_the_harness_counts_the_same_whole_numbers(case: str, batch: int) -> None:
    peer("snntorch")
    workload, static = harness("metrics.workload"), harness("metrics.static")
    build, shape, coding, draw = CASES[case]
    rng = np.random.default_rng(7)
    module, samples = build(rng), draw(rng, shape)
    network = imported(module, shape, coding)
    labels = rng.integers(0, CLASSES, SAMPLES)

    split = Split(samples, labels)
    measured = neurobench.measure(Complexity(network), create(EngineName.EVENT, network), split, batch)

    steps = samples if coding.per_step else np.repeat(samples[:, np.newaxis], STEPS, axis=1)
    data = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.from_numpy(steps), torch.from_numpy(labels)), batch_size=batch
    )
    metrics = [
        [static.Footprint, static.ConnectionSparsity, static.ParameterCount],
        [
            *(workload.ActivationSparsity, workload.ActivationSparsityByLayer, workload.SynapticOperations),
            *(workload.MembraneUpdates, workload.ClassificationAccuracy),
        ],
    ]
    model = harness("models").SNNTorchModel(module)
    benchmark = harness("benchmarks").Benchmark(model, data, [], [lambda spikes: spikes.sum(1).argmax(1)], metrics)
    theirs = benchmark.run(quiet=True)

    counted = measured.counted
    assert counted["Effective_ACs"] > 1000
    assert (counted["Effective_MACs"] > 100) == (case not in ("dense", "pruned and recurrent"))
    for name in ("Effective_MACs", "Effective_ACs", "Dense"):
        # The harness divides whole numbers by the number of samples.
        assert round(theirs["SynapticOperations"][name] * SAMPLES) == counted[name], name
        assert theirs["SynapticOperations"][name] == measured.metrics["SynapticOperations"][name], name
    assert round(theirs["MembraneUpdates"] * SAMPLES) == counted["MembraneUpdates"]
    assert theirs["MembraneUpdates"] == measured.metrics["MembraneUpdates"]
    assert round(theirs["ActivationSparsity"] * counted["activations"]) == (
        counted["activations"] - counted["activations_not_0"]
    )
    by_layer = measured.metrics["ActivationSparsityByLayer"]
    assert list(theirs["ActivationSparsityByLayer"].values()) == pytest.approx(list(by_layer.values()), abs=1e-12)
    assert round(theirs["ClassificationAccuracy"] * SAMPLES) == counted["right"]
    assert theirs["ConnectionSparsity"] == measured.metrics["ConnectionSparsity"]
    assert theirs["ParameterCount"] == measured.metrics["ParameterCount"]
    # The harness adds the buffers of snnTorch's neurons: beta, threshold and the like, which our spec has as numbers.
    buffers = sum(buffer.nbytes for name, buffer in module.named_buffers() if buffer.ndim == 0)
    assert theirs["Footprint"] - buffers == measured.metrics["Footprint"]
