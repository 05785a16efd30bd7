"""Round weights: to few bits, and to a dyadic grid, on which a network gives the same spikes on every engine.

A float32 sum depends on its order, and a matrix product may sum in any order: with the same weights, another engine,
machine or batch size can put a membrane on the other side of its threshold. A sum does not depend on its order if every
term is a multiple of one power of two and every partial sum fits 24 bits. Spikes are 0 or 1, so it is enough to round
each layer's weights to the finest grid that leaves room for its largest sum. That is usually 2**-15 or finer, too fine
to change the accuracy. Then all engines agree in every spike. An engine may add a recurrent current weight by weight to
the input current, so both share one grid.

The proof needs raw values that are integers (pixels, counts, spikes) and a normalisation by factors of few bits; or a
normalisation with a `resolution`, which any raw values end on. It fails for other factors, and after an average over a
window whose size is not a power of two; `exact` is then False.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.nodes import Neuron, Node, Scale, Spiking, Weighted
from spikeserve.models.spec.sums import MANTISSA, SPIKES, Multiples, incoming, joined, largest_sum, names_of, passed

POWERS = 3  # of each output that are tried: the one that holds its largest weight, and those below, which cut it off
LOWEST, HIGHEST = -126, 120  # exponents of powers that are tried: normal float32, whose product with 127 is finite


@dataclass(frozen=True)
class RoundedNetwork:
    """A network whose weights are on their grids, and whether each of its sums is exact in any order."""

    network: Network
    exact: bool


def round_to_grid(network: Network) -> RoundedNetwork:
    """Return the network with each weight and bias rounded to the finest grid that keeps its layer's sums exact.

    Weights that are mostly 0 become sparse ones.
    """
    tensors = dict(network.tensors)
    exact = True
    beside = _recurrent_bounds(network)

    def apply(node: Node, arriving: Multiples) -> Multiples:
        nonlocal exact
        if len(network.spec.sources[node.name]) > 1:
            exact = exact and arriving.fit
        if isinstance(node, Neuron):
            if isinstance(node, Spiking) and node.recurrent:
                returning = _round(tensors, f"{node.name}.recurrent", SPIKES, arriving.bound)
                exact = exact and (arriving + returning).fit
            if isinstance(node, Spiking) and node.several:  # the number of spikes has no bound
                exact = False
            return SPIKES
        if isinstance(node, Weighted):
            leaving = _round(tensors, node.name, arriving, beside.get(node.name, 0.0))
        else:
            leaving = passed(network, node, arriving)
            if isinstance(node, Scale):
                exact = exact and leaving.fit
        exact = exact and leaving.step > 0
        return leaving

    source = incoming(network.spec.input, network.spec.coding, whole=True)
    for _ in network.spec.propagate(source, apply, partial(joined, network)):
        pass
    return RoundedNetwork(Network(network.spec.with_nonzero({}), tensors).compact(), exact)


def _recurrent_bounds(network: Network) -> dict[str, float]:
    """Return, for each node that feeds a recurrent layer, the bound of that layer's recurrent current."""
    bounds: dict[str, float] = {}
    for node in network.spec.spiking_nodes:
        if node.recurrent:
            bound = largest_sum(_in_float64(network.tensors, f"{node.name}.recurrent"), SPIKES)
            bounds |= {name: max(bound, bounds.get(name, 0.0)) for name in network.spec.sources[node.name]}
    return bounds


def _in_float64(tensors: Mapping[str, FloatArray], connection: str) -> dict[str, NDArray[np.float64]]:
    return {name: tensors[name].astype(np.float64) for name in names_of(tensors, connection)}


def _round(tensors: dict[str, FloatArray], connection: str, arriving: Multiples, beside: float = 0.0) -> Multiples:
    """Round a connection's weight and bias in place; return the values of its sums. `beside` bounds what is added."""
    unrounded = _in_float64(tensors, connection)
    largest = largest_sum(unrounded, arriving)
    if not (arriving.step and largest):
        return Multiples(arriving.step, largest)
    step = 2.0 ** (math.ceil(math.log2(largest + beside)) - MANTISSA)
    while True:  # once or twice, since rounding may raise a sum above the limit
        rounded = {
            name: np.round(values / grid) * grid
            for name, values in unrounded.items()
            for grid in [step if name.endswith("bias") else step / arriving.step]
        }
        if largest_sum(rounded, arriving) + beside <= step * 2**MANTISSA:
            break
        step *= 2
    tensors.update({name: values.astype(np.float32) for name, values in rounded.items()})
    return Multiples(step, largest_sum(rounded, arriving))


@torch.no_grad()
def round_to_bits(weight: Tensor, bits: int) -> Tensor:
    """Return weights (outputs, …) rounded to `bits` bits, by the power of two that loses least of each output.

    Least is the sum of the squares of what rounding changes.
    """
    rows, most = weight.flatten(1), 2 ** (bits - 1) - 1
    best, least = torch.zeros_like(rows), torch.full_like(rows[:, :1], torch.inf)
    for power in powers(rows, bits):
        tried = (rows / power).round().clamp(-most, most) * power
        lost = (tried - rows).square().sum(1, keepdim=True)
        best, least = torch.where(lost < least, tried, best), torch.minimum(lost, least)
    return best.view_as(weight)


def powers(rows: Tensor, bits: int) -> Iterator[Tensor]:
    """Yield the powers of two to try, (…, 1), for outputs of these weights (…, inputs), in float32.

    They are the same to the bit on any device: an exponent is a field of a float32.
    """
    exponents = torch.frexp(rows.float().abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1))[1]
    for lower in range(POWERS):
        yield (((exponents - lower).clamp(LOWEST, HIGHEST).int() + 127) << 23).view(torch.float32)
