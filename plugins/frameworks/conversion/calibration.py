"""Calibration of a spiking network for a number of steps, by samples that pass through it beside its source.

Layer after layer, as in Li et al., 2021 ("A free lunch from ANN"): each channel gets the threshold with which the
squared error of rounding and clipping its values is least, and then a constant current that takes back by how much its
mean current, of the spikes that really arrive, is off. Where there are many more samples of a layer's inputs than
weights to an output, as in a convolution, the weights move first to those with the least squared error (ridge
regression to the source's weights). No label is looked at and no gradient is taken.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from spikeserve.models.coding import encode
from spikeserve.models.engines.torch.connections import join
from spikeserve.models.engines.torch.network import SpikingNetwork
from spikeserve.models.spec import INPUT
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.nodes import Conv1d, Conv2d, Linear, MaxPool, Node
from spikeserve.plugins.frameworks.conversion.source import ceiling
from spikeserve.plugins.frameworks.conversion.spiking import Fit, over, spiking_network
from spikeserve.training.errors import InvalidData
from spikeserve.training.fit.gptq import MOST_INPUTS, gathered

SAMPLES = 512
VALUES = 2**26  # of the widest layer over all samples and steps, at once
OF_CHANNEL = 4096  # values that a threshold is chosen by, at most
ROWS = 2**14  # inputs of a connection that its weights are moved by, at most
PER_WEIGHT = 16  # of them for each weight of an output, at least
RIDGE = 0.01  # of the mean square of an input: how much a weight that no sample used is held
TRIED = np.linspace(0.2, 1.0, 33)  # thresholds, as shares of a channel's highest value


@torch.inference_mode()
def calibrated(source: Network, samples: FloatArray, time_steps: int) -> Network:
    """Return the spiking network of a network of ReLUs (see `read_source`), for so many steps.

    `samples` (n, *input shape) are raw values as a client sends them, of which as many are taken as SAMPLES and VALUES
    allow. Raises InvalidInput for those that the input refuses, and InvalidData for none.
    """
    spec, fits, tensors = source.spec, dict[str, Fit](), dict(source.tensors)
    module, steady = SpikingNetwork.of(source).float().eval(), {INPUT}  # float64 takes twice as long
    places = {node.name: place for place, node in enumerate(spec.nodes)}
    most = max(1, min(SAMPLES, VALUES // ((1 + time_steps) * spec.widest)))
    chosen = samples[:: max(1, -(-len(samples) // most))]
    if not len(chosen):
        raise InvalidData("calibration: there is no sample, expected some hundred")

    def apply(node: Node, arriving: Tensor) -> Tensor:
        # Step 0 is what the source computes, and those behind it are the spiking network's, in the source's units.
        highest = ceiling(node)
        if highest:
            fits[node.name], spikes = _fitted(arriving, highest, time_steps)
            return torch.cat([arriving[:1].clamp(0, highest), spikes])
        if isinstance(node, MaxPool) and not steady.issuperset(spec.sources[node.name]):
            sums = torch.cat([arriving[:1], arriving[1:].cumsum(0)])
            pooled = module.connect(node, sums)
            return torch.cat([pooled[:2], pooled[2:] - pooled[1:-1]])
        if steady.issuperset(spec.sources[node.name]):
            steady.add(node.name)
            same = module.connect(node, arriving[:1])
            return same.expand(len(arriving), *same.shape[1:])
        if isinstance(node, Linear | Conv1d | Conv2d):
            targets = module.connect(node, arriving[:1])
            weight = f"{node.name}.weight"
            tensors[weight] = _moved(node, tensors[weight], arriving[1:].mean(0), targets[0])
            module.get_parameter(f"layers.{places[node.name]}.weight").copy_(torch.tensor(tensors[weight]))
            return torch.cat([targets, module.connect(node, arriving[1:])])
        return module.connect(node, arriving)

    values = torch.from_numpy(encode(chosen, spec).steps).expand(1 + time_steps, -1, *spec.input.shape)
    for _, _, output in spec.propagate(values, apply, join):  # noqa: B007  (the last is read)
        pass
    if (bias := f"{spec.nodes[-1].name}.bias") in tensors:
        tensors[bias] = tensors[bias] + _off(output).numpy()
    return spiking_network(Network(spec, tensors), fits, time_steps)


def _off(values: Tensor) -> Tensor:
    """Return by how much the mean of each channel is off, of values (1 + time_steps, batch, channels, …)."""
    return (values[0] - values[1:].mean(0)).transpose(0, 1).flatten(1).mean(1)


def _moved(node: Linear | Conv1d | Conv2d, weight: FloatArray, inputs: Tensor, outputs: Tensor) -> FloatArray:
    """Return the weight (out, in / groups, …) with which inputs (batch, *shape) best give the variation of `outputs`.

    Their means are left to a constant current. Where there are too few samples it stays as it is.
    """
    rows = gathered(node, inputs)  # (groups, rows, inputs)
    stride = rows.shape[1] // ROWS | 1
    rows = rows[:, ::stride]
    if rows.shape[2] > MOST_INPUTS or rows.shape[1] < PER_WEIGHT * rows.shape[2]:
        return weight
    groups = len(rows)
    targets = outputs.flatten(2) if outputs.ndim > 2 else outputs.unsqueeze(2)  # (batch, out, places)
    targets = targets.reshape(len(targets), groups, -1, targets.shape[2]).permute(1, 0, 3, 2).flatten(1, 2)[:, ::stride]
    own = torch.from_numpy(weight.copy()).reshape(groups, -1, rows.shape[2])
    rows, targets = (each - each.mean(1, keepdim=True) for each in (rows, targets))
    products = (rows.mT @ rows).double()
    damping = RIDGE * products.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] + 2.0**-40
    damped = products + damping * torch.eye(rows.shape[2], dtype=torch.float64)
    change = torch.linalg.solve(damped, (rows.mT @ (targets - rows @ own.mT)).double()).mT
    return (own + change).float().reshape(weight.shape).numpy()


def _fitted(arriving: Tensor, highest: float, time_steps: int) -> tuple[Fit, Tensor]:
    """Choose the thresholds and drives for currents (1 + time_steps, batch, channels, …); return also the output."""
    shape = arriving.shape[2:]
    own = arriving[0].transpose(0, 1).flatten(1).clamp(0, highest)  # (channels, batch × places)
    top = own.amax(1)
    own = own[:, :: own.shape[1] // OF_CHANNEL | 1]  # an odd stride goes through all columns of an image
    top = torch.where(top > 0, top, top.amax().clamp(min=2.0**-20))  # a silent channel's is that of the loudest
    threshold, least = top, torch.full_like(top, torch.inf)
    for share in TRIED.tolist():
        tried = top * share
        unit = (tried / time_steps)[:, None]
        error = (((own / unit + 0.5).floor().clamp(max=time_steps) * unit - own) ** 2).mean(1)
        threshold, least = torch.where(error < least, tried, threshold), torch.minimum(error, least)
    off = _off(arriving)
    fit = Fit(threshold.numpy(), off.numpy())
    at, drive = over(threshold, len(shape)), over(off, len(shape))
    membrane, spikes = (at / 2).expand(arriving.shape[1:]).clone(), list[Tensor]()
    for current in arriving[1:]:
        membrane += current + drive
        fired = at * (membrane >= at)
        membrane -= fired
        spikes.append(fired)
    return fit, torch.stack(spikes)
