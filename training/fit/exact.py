"""Round weights to a dyadic grid, so that a trained network gives the same spikes on every engine.

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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from models.spec import Coding, Input
from models.spec.network import FloatArray, Network
from models.spec.nodes import (
    AvgPool,
    Concatenate,
    Delay,
    Fire,
    JoinBase,
    MatMul,
    MaxPool,
    Moved,
    Multiply,
    Neuron,
    Node,
    Scale,
    Spiking,
    SumPool,
    Weighted,
)
from training.errors import InvalidConfig

MANTISSA = 24  # bits of a float32's significand


@dataclass(frozen=True)
class Multiples:
    """The numbers k * step with |k * step| <= bound; `step` is a power of two, or 0 for numbers that are on no grid."""

    step: float
    bound: float

    def __add__(self, other: Multiples) -> Multiples:
        return Multiples(min(self.step, other.step), self.bound + other.bound)

    @property
    def fit(self) -> bool:
        """Whether float32 holds each of them exactly."""
        return self.bound <= self.step * 2**MANTISSA


@dataclass(frozen=True)
class RoundedNetwork:
    """A network whose weights are on their grids, and whether each of its sums is exact in any order."""

    network: Network
    exact: bool


def round_to_grid(network: Network) -> RoundedNetwork:
    """Return the network with each weight and bias rounded to the finest grid that keeps its layer's sums exact."""
    tensors = dict(network.tensors)
    exact = True
    beside = _recurrent_bounds(network)

    def apply(node: Node, arriving: Multiples) -> Multiples:
        nonlocal exact
        if len(network.spec.sources[node.name]) > 1:
            exact = exact and arriving.fit
        if isinstance(node, Neuron):
            if isinstance(node, Spiking) and node.recurrent:
                returning = _round(tensors, node.name, "recurrent.", Multiples(1.0, 1.0), arriving.bound)
                exact = exact and (arriving + returning).fit
            if isinstance(node, Spiking) and node.fire is Fire.MULTIPLE:  # the number of spikes has no bound
                exact = False
            return Multiples(1.0, 1.0)
        if isinstance(node, Weighted):
            leaving = _round(tensors, node.name, "", arriving, beside.get(node.name, 0.0))
        elif isinstance(node, Scale):
            leaving = _scaled(network, node, arriving)
            exact = exact and leaving.fit
        else:
            leaving = _pooled(node, arriving)
        exact = exact and leaving.step > 0
        return leaving

    def join(node: Node, inputs: Sequence[Multiples]) -> Multiples:
        first = network.spec.output_shapes[network.spec.sources[node.name][0]]
        return _joined(node, inputs, first[-1])

    for _ in network.spec.propagate(_incoming(network.spec.input, network.spec.coding), apply, join):
        pass
    return RoundedNetwork(Network(network.spec, tensors), exact)


def _recurrent_bounds(network: Network) -> dict[str, float]:
    """Return, for each node that feeds a recurrent layer, the bound of that layer's recurrent current."""
    bounds: dict[str, float] = {}
    for node in network.spec.spiking_nodes:
        if node.recurrent:
            given = {
                name: network.tensors[name].astype(np.float64)
                for name in _names(network.tensors, node.name, "recurrent.")
            }
            bound = _largest_sum(given, Multiples(1.0, 1.0))
            bounds |= {name: max(bound, bounds.get(name, 0.0)) for name in network.spec.sources[node.name]}
    return bounds


def _incoming(declared: Input, coding: Coding) -> Multiples:
    """Return the values of the network's input at each step; raises InvalidConfig for a coding without a rule."""
    if coding in (Coding.RATE, Coding.LATENCY):
        return Multiples(1.0, 1.0)
    if coding not in (Coding.DIRECT, Coding.SPIKES, Coding.CURRENT):
        raise InvalidConfig(
            f"coding is '{coding}', for which no sum is known to be exact, expected one of: {', '.join(Coding)}"
        )
    bound = max(map(abs, declared.normalised_range))
    if declared.resolution is not None:
        return Multiples(declared.resolution, bound)
    factors = np.abs(np.hstack([declared.scale, declared.offset]))
    return Multiples(min((_grid_step(float(factor)) for factor in factors if factor), default=1.0), bound)


def _grid_step(value: float) -> float:
    """Return the largest power of two that divides `value`, or 0 if `value` has more than 12 significant bits.

    With more bits, too few of the 24 would be left for the weights.
    """
    numerator, denominator = float(np.float32(value)).as_integer_ratio()
    lowest_bit = numerator & -numerator
    return lowest_bit / denominator if abs(numerator) // lowest_bit < 2**12 else 0.0


def _joined(node: Node, inputs: Sequence[Multiples], inner: int) -> Multiples:
    """Return the values that a node's inputs become; a MatMul sums `inner` products."""
    if isinstance(node, Multiply | MatMul):
        step, bound = math.prod(each.step for each in inputs), math.prod(each.bound for each in inputs)
        return Multiples(step, bound * inner if isinstance(node, MatMul) else bound)
    if isinstance(node, Concatenate):
        return Multiples(min(each.step for each in inputs), max(each.bound for each in inputs))
    return reduce(Multiples.__add__, inputs)


def _scaled(network: Network, node: Scale, arriving: Multiples) -> Multiples:
    factors, offsets = (_multiples(network.parameter(node, name)) for name in ("scale", "offset"))
    scaled = Multiples(arriving.step * factors.step, arriving.bound * factors.bound)
    return scaled if offsets.bound == 0 else scaled + offsets


def _multiples(values: FloatArray) -> Multiples:
    sizes = np.unique(np.abs(values))
    return Multiples(min((_grid_step(float(size)) for size in sizes if size), default=1.0), float(sizes.max()))


def _pooled(node: Node, arriving: Multiples) -> Multiples:
    if isinstance(node, Moved | MaxPool | Delay | JoinBase):
        return arriving
    if not isinstance(node, SumPool | AvgPool):
        raise TypeError(f"no rule for a {type(node).__name__}")
    size = node.area
    if isinstance(node, SumPool):
        return Multiples(arriving.step, arriving.bound * size)
    if node.uneven:
        return Multiples(0.0, arriving.bound)
    return Multiples(arriving.step / size if size & (size - 1) == 0 else 0.0, arriving.bound)


def _round(
    tensors: dict[str, FloatArray], node: str, prefix: str, arriving: Multiples, beside: float = 0.0
) -> Multiples:
    """Round a connection's weight and bias in place; return the values of its sums. `beside` bounds what is added."""
    given = {name: tensors[name].astype(np.float64) for name in _names(tensors, node, prefix)}
    largest = _largest_sum(given, arriving)
    if not (arriving.step and largest):
        return Multiples(arriving.step, largest)
    step = 2.0 ** (math.ceil(math.log2(largest + beside)) - MANTISSA)
    while True:  # once or twice, since rounding may raise a sum above the limit
        rounded = {
            name: np.round(values / grid) * grid
            for name, values in given.items()
            for grid in [step if name.endswith("bias") else step / arriving.step]
        }
        if _largest_sum(rounded, arriving) + beside <= step * 2**MANTISSA:
            break
        step *= 2
    tensors.update({name: values.astype(np.float32) for name, values in rounded.items()})
    return Multiples(step, _largest_sum(rounded, arriving))


def _names(tensors: Mapping[str, FloatArray], node: str, prefix: str) -> list[str]:
    return [name for name in (f"{node}.{prefix}weight", f"{node}.{prefix}bias") if name in tensors]


def _largest_sum(tensors: Mapping[str, NDArray[np.float64]], arriving: Multiples) -> float:
    """Return the bound of any output's partial sums: the absolute weights times the largest input, plus the bias."""
    weight, *bias = tensors.values()
    sums = np.abs(weight).reshape(len(weight), -1).sum(axis=1) * arriving.bound
    return float((sums + (np.abs(bias[0]) if bias else 0)).max())
