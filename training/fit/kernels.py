"""Random kernels over time with a readout that is solved: training in seconds, for few samples.

A kernel is nine taps, of which three weigh 2 and the others -1, at a random distance, over some channels. A neuron
without a memory fires at the steps where its convolution is at least a threshold, so that its firing rate is the share
of such steps: the feature of MiniROCKET (Dempster, Schmidt and Webb, 2021). Only the readout is fitted, a ridge
regression of the rates, whose penalty is chosen by leaving out each sample once.

Here kernels are causal, what was before a sequence is 0, and thresholds are high quantiles of what training samples
give, so that a neuron fires at some 15 % of the steps.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from itertools import combinations
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spikeserve.models.engines.torch.operations import HardThreshold
from spikeserve.models.spec.network import Network
from spikeserve.training.config import KERNEL
from spikeserve.training.data.dataset import Labels, Split
from spikeserve.training.data.datasets import Dataset
from spikeserve.training.fit.architecture import Architecture, dilations
from spikeserve.training.fit.exact import round_to_grid
from spikeserve.training.fit.initialise import arriving
from spikeserve.training.fit.layers import Connection, Neurons
from spikeserve.training.fit.network import TrainingNetwork, forward
from spikeserve.training.fit.operators import dense, own_steps
from spikeserve.training.report.epochs import Epoch

LOWEST = 0.7  # the least quantile of a kernel's values that its threshold is
VALUES = 2**25  # of neurons and steps that are computed at once
PENALTIES = np.logspace(-4, 4, 9)
FACTORS = 2.0 ** np.linspace(0, 6, 13)  # of the scores, whose softmax are the probabilities

Floats: TypeAlias = NDArray[np.float64]


@torch.no_grad()
def solve_kernels(architecture: Architecture, data: Dataset, seed: int, device: torch.device) -> tuple[Network, Epoch]:
    """Draw kernels from a seed, and solve their readout on the training split; return the network and its metrics.

    Without a validation split, each training sample is validated by a readout of the others.
    """
    began, rng = time.perf_counter(), np.random.default_rng(seed)
    module = TrainingNetwork(architecture).to(device)
    connections = (layer.connection for layer in module.layers if isinstance(layer, Connection))
    kernels, readout = (each for each in connections if isinstance(each, nn.Linear))
    neurons = next(layer for layer in module.layers if isinstance(layer, Neurons))
    at_once = max(1, VALUES // (module.spec.time_steps * len(kernels.weight)))
    kernels.weight.copy_(draw_kernels(rng, kernels.weight.shape, dilations(module.spec.time_steps)))
    kernels.bias.zero_()
    some = data.training[rng.permutation(len(data.training))[:at_once]].cut()
    currents = arriving(neurons, partial(forward, module, some.samples, HardThreshold(), lengths=some.lengths))
    kernels.bias.copy_(neurons.parameter("threshold") - _quantiles(rng, *currents))
    rounded = round_to_grid(module.network()).network.tensors
    for name, values in kernels.named_parameters():
        values.copy_(torch.from_numpy(rounded[f"kernels.{name}"].copy()))
    rates, labels = _rates(module, neurons, data.training, at_once), data.training.labels
    weight, bias, left_out = solve_ridge(rates, labels, len(data.class_names))
    validated, known = left_out, labels
    if held_out := len(data.validation):
        validated, known = _rates(module, neurons, data.validation, at_once) @ weight.T + bias, data.validation.labels
    factor = min(FACTORS, key=lambda factor: _loss(factor * left_out, labels))
    readout.weight.copy_(torch.from_numpy(factor * weight))
    readout.bias.copy_(torch.from_numpy(factor * bias))
    trained = rates @ weight.T + bias
    return module.network(), Epoch(
        number=0,
        training_loss=_loss(factor * trained, labels),
        training_accuracy=float((trained.argmax(axis=1) == labels).mean()),
        validation_loss=_loss(factor * validated, known),
        validation_accuracy=float((validated.argmax(axis=1) == known).mean()),
        firing_rates={neurons.node.name: float(rates.mean())},
        seconds=time.perf_counter() - began,
        validation_samples=held_out or len(labels),
    )


def draw_kernels(rng: np.random.Generator, shape: Sequence[int], distances: Sequence[int]) -> Tensor:
    """Return the weights of random kernels, of the shape (kernels, taps * channels).

    The taps are those of all distances, in ascending order. Each kernel sees up to nine channels, few more often.
    """
    taps = {tap: place for place, tap in enumerate(sorted({k * d for d in distances for k in range(KERNEL)}))}
    weight = torch.zeros(shape[0], len(taps), shape[1] // len(taps))
    channels, triples, order = weight.shape[2], [*combinations(range(KERNEL), 3)], rng.permutation(len(weight))
    for number, each in enumerate(weight):
        distance = distances[number % len(distances)]
        high = triples[order[number] % len(triples)]
        seen = rng.choice(channels, int((min(channels, KERNEL) + 1) ** rng.random()), replace=False)
        for k in range(KERNEL):
            each[taps[k * distance], seen] = 2.0 if k in high else -1.0
    return weight.view(*shape)


def solve_ridge(rates: Floats, labels: Labels, classes: int) -> tuple[Floats, Floats, Floats]:
    """Return weights (classes, n), biases (classes,) and the scores (samples, classes) of samples that are left out.

    `rates` are (samples, n). Of a sample's classes its own is to score 1, and others -1. The penalty is that with which
    scores of samples that are left out err least.
    """
    from sklearn.linear_model import RidgeCV  # here, since it takes a second, which --help need not wait for

    targets = np.where(labels[:, np.newaxis] == np.arange(classes), 1.0, -1.0)
    level = targets.mean(axis=0)  # taken off here, as scikit-learn before 1.6 forgets it in its results
    ridge = RidgeCV(PENALTIES, scoring="neg_mean_squared_error", gcv_mode="svd", store_cv_results=True)
    ridge.fit(rates, targets - level)
    left_out = ridge.cv_results_[..., ridge.alpha_ == PENALTIES].reshape(targets.shape)
    return ridge.coef_, ridge.intercept_ + level, left_out + level


def _quantiles(rng: np.random.Generator, currents: Tensor, lengths: Tensor | None) -> Tensor:
    """Return a high value (neurons,) of the currents (time_steps, batch, neurons) of each, at the steps that count."""
    own = currents.flatten(0, 1) if lengths is None else currents[own_steps(lengths, len(currents))]
    ordered = np.sort(own.cpu().numpy().T.copy(), axis=1)  # NumPy sorts rows some twenty times as fast as PyTorch
    neurons = np.arange(len(ordered))
    shares = LOWEST + (1 - LOWEST) * rng.permutation(neurons) / len(neurons)
    quantiles = ordered[neurons, (shares * len(own)).astype(np.int64)]
    # Above a value that many steps have, such as that of dark pixels: else a neuron would fire at all of them.
    above = (ordered <= quantiles[:, np.newaxis]).sum(axis=1)
    return torch.from_numpy(ordered[neurons, np.minimum(above, len(own) - 1)]).to(currents.device)


def _rates(module: TrainingNetwork, neurons: Neurons, split: Split, at_once: int) -> Floats:
    """Return the firing rates, (samples, neurons)."""
    rates = np.empty((len(split), *neurons.shape))
    for places, part in split.batches(at_once):
        spikes = dense(forward(module, part.samples, HardThreshold()).rasters[neurons.node.name])
        rates[places] = spikes.mean(dim=0).cpu().numpy()
    return rates


def _loss(scores: Floats, labels: Labels) -> float:
    """Return the cross-entropy of scores (samples, classes)."""
    below = scores - scores.max(axis=1, keepdims=True)
    return float((np.log(np.exp(below).sum(axis=1)) - below[np.arange(len(labels)), labels]).mean())
