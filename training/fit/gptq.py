"""Rounding to few bits by the currents of calibration samples: each weight makes up for those rounded before it.

A weight that is rounded changes a current wherever its input is not 0, and an input that is often there together with
it can take that back. GPTQ (Frantar et al., 2022, https://arxiv.org/abs/2210.17323) rounds the weights of an output one
after the other, and moves those still to be rounded, and at last the bias, so that the squares of what changes in the
currents add up to the least. It needs of the samples only how often each two inputs are there together.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (its usual name)

from spikeserve.models.coding import encode
from spikeserve.models.engines.torch.network import SpikingNetwork
from spikeserve.models.engines.torch.operations import HardThreshold
from spikeserve.models.spec.network import Network
from spikeserve.models.spec.nodes import Conv1d, Conv2d, Linear, Spiking
from spikeserve.models.spec.parameters import WeightBits
from spikeserve.training.data.dataset import Split
from spikeserve.training.fit.exact import powers, round_to_bits, round_to_grid

SAMPLES, BATCH = 1024, 16
ROWS = 1024  # of a connection's inputs in a batch's step: places of a convolution that are looked at
MOST_INPUTS = 4096  # of an output: a matrix of them, squared, is inverted
DAMPING = 0.01  # of the mean square of an input, added to each: a weight that no sample used stays near its value

Products = Mapping[str, Tensor]  # weights by name to (groups, inputs + 1, inputs + 1)
NOTHING_KNOWN: Products = {}


@torch.inference_mode()
def input_products(network: Network, split: Split) -> Products:
    """Run the samples of a split, and sum up the products of each two inputs that an output of a connection adds up.

    The last input is the bias's, 1. Left out are transposed convolutions and outputs of more than MOST_INPUTS inputs.
    """
    module = SpikingNetwork.of(network).eval()
    products = dict[str, Tensor]()

    def add(name: str, inputs: Tensor) -> None:  # (groups, rows, inputs)
        if inputs.shape[2] <= MOST_INPUTS:
            # An odd stride goes through all columns of an image.
            biased = F.pad(inputs[:, :: inputs.shape[1] // ROWS | 1], (0, 1), value=1.0)
            products[name] = products.get(name, 0.0) + (biased.mT @ biased).double()

    chosen = split[:: max(1, len(split) // SAMPLES)][:SAMPLES]  # throughout: they may be in order of their classes
    for _, part in chosen.batches(BATCH):
        inputs = encode(part.samples, network.spec)
        activities = module(torch.from_numpy(inputs.steps), inputs.time_steps, HardThreshold(), None, None)
        for node, arriving, leaving, *_ in activities:
            if isinstance(node, Linear | Conv1d | Conv2d):
                for step in arriving:
                    add(f"{node.name}.weight", gathered(node, step))
            if isinstance(node, Spiking) and node.recurrent:
                for step in leaving[:-1]:
                    add(f"{node.name}.recurrent.weight", step.flatten(1)[None])
    return products


def gathered(node: Linear | Conv1d | Conv2d, step: Tensor) -> Tensor:
    """Give the inputs of each output, (groups, rows, inputs), of a step (samples, *shape)."""
    if isinstance(node, Linear):
        return step.reshape(1, -1, node.in_features)
    windows = node.windows
    padded = F.pad(step, [side for window in reversed(windows) for side in (window.before, window.after)])
    extent, dilation, stride = zip(*((each.extent, each.dilation, each.stride) for each in windows), strict=True)
    if isinstance(node, Conv1d):
        padded, extent, dilation, stride = padded.unsqueeze(2), (1, *extent), (1, *dilation), (1, *stride)
    patches = F.unfold(padded, extent, dilation, stride=stride)  # (samples, channels × kernel, places)
    return patches.view(len(step), node.groups, -1, patches.shape[2]).permute(1, 0, 3, 2).flatten(1, 2)


def round_together(
    weight: Tensor, bias: Tensor | None, products: Tensor, bits: int, *, sparse: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Round weights (outputs, …) to `bits` bits, so that the currents of the samples change least; move the bias along.

    Of an output's powers of two it takes the one that loses least so. Of `sparse` ones those that are 0 stay so.
    """
    groups, inputs, most = len(products), products.shape[1] - 1, 2 ** (bits - 1) - 1
    rows = weight.double().reshape(groups, -1, inputs)  # (groups, outputs, inputs)
    whole = rows if bias is None else torch.cat([rows, bias.double().view(groups, -1, 1)], 2)
    damping = DAMPING * products.diagonal(dim1=1, dim2=2).mean(1)  # never 0, as the bias's input is 1
    damped = products + damping[:, None, None] * torch.eye(inputs + 1, dtype=torch.float64)
    used = slice(whole.shape[2])
    factor = torch.linalg.cholesky(torch.linalg.inv(damped[:, used, used]), upper=True)
    best, least = whole, torch.full_like(whole[:, :, :1], torch.inf)
    for power in powers(rows, bits):
        tried, lost = whole.clone(), torch.zeros_like(least)
        for i in range(inputs):
            rounded = (tried[:, :, i : i + 1] / power).round().clamp(-most, most) * power
            if sparse:
                rounded *= whole[:, :, i : i + 1] != 0
            error = (tried[:, :, i : i + 1] - rounded) / factor[:, i : i + 1, i : i + 1]
            tried[:, :, i + 1 :] -= error * factor[:, i : i + 1, i + 1 :]
            tried[:, :, i : i + 1] = rounded
            lost += error.square()
        best, least = torch.where(lost < least, tried, best), torch.minimum(lost, least)
    moved = None if bias is None else best[:, :, inputs].float().reshape(bias.shape)
    return best[:, :, :inputs].float().reshape(weight.shape), moved


def quantised(network: Network, bits: Mapping[str, WeightBits], products: Products = NOTHING_KNOWN) -> Network:
    """Return a network whose weights are of few bits, by the names of their tensors; a layer's sums stay exact.

    Weights that are not named, or whose bits are None, are float32. Those whose inputs' `products` are known make up
    for each other, with their bias; of others each is rounded to the nearest.
    """
    tensors = {name: torch.from_numpy(values.copy()) for name, values in network.tensors.items()}
    for name, each in bits.items():
        if each is not None and name in products:
            biased = name.removesuffix("weight") + "bias"
            sparse = name in network.spec.nonzero
            tensors[name], bias = round_together(
                tensors[name], tensors.get(biased), products[name], each, sparse=sparse
            )
            tensors |= {} if bias is None else {biased: bias}
        elif each is not None:
            tensors[name] = round_to_bits(tensors[name], each)
    arrays = {name: values.numpy() for name, values in tensors.items()}
    spec = network.spec.with_weight_bits(bits).with_nonzero({})  # some become 0
    return round_to_grid(Network(spec, arrays)).network
