"""What a sum is, to the bit: the exact sum of its terms, rounded once to float32; and how an engine may compute it.

A float32 sum depends on the order of its terms, and every library adds up in another one. So the spec defines the sum
of a weighted connection (its bias included, a recurrent one's too) and of a pool's window without any order: as the
exact sum of the products, rounded once to float32. Three ways lead there; `sums_of` names the cheapest for each sum:

FLOAT32   Every partial sum fits the 24 bits of a float32, whatever the order, so that an ordinary float32 sum is exact.
          Training rounds weights so (`training.fit.exact`).
INTEGER   Spikes, or a pool's few values of them, meet any weights. Weights and bias are taken to be whole multiples of
          `grid`, a power of two that leaves room for all of them in the 31 bits of an integer.
FLOAT64   Anything else, such as real-valued inputs: a sum in float64. Where the inputs are on a grid, the weights are
          rounded so that it is exact; otherwise its rounding, 2**-29 of a float32's, is all that an order can change.

The weight that counts is the nearest multiple of `grid`. For INTEGER, let S be the largest sum, over the inputs of any
output, of |weight| times the inputs' bound B, plus |bias|. Then `grid` lies between S * 2**-30 and S * 2**-29. A weight
of at least S * 2**-5 is on the grid as it is, since its last bit weighs at least as much. With n inputs, a sum moves by
less than (n B + 1) S * 2**-30; a float32 sum of n terms, which is what a framework computes, may be n S * 2**-24 off.

All this is worked out from the network alone: a sum's inputs are what leaves the nodes before it. The values of the
network's own input are on a grid if its coding makes spikes of them (`rate`, `latency`), if they are a raster
(`spikes`) of whole raw values, or if it has a `resolution`; otherwise only where the caller knows that raw values are
whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import partial, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.spec import nodes
from spikeserve.models.spec.input import Input
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.sparse import Sparse, Tensors
from spikeserve.models.spec.spec import Coding

MANTISSA = 24  # bits of a float32's significand
WHOLE = 30  # bits of the largest integer sum before its weights are rounded, which may add one more
EXACT = 52  # the same of a float64's sum
MOST_SPIKES = 2.0**24  # of one neuron in a step; `readout.check_spikes` refuses more
LOW_BITS = 6  # of an integer's low part, at least: with more, the high part needs fewer
BLOCK = 2**18  # values that are looked at at once
FEW = 2.0**6  # the bound of values that an integer sum takes
LEAST = 2.0**-149  # the least float32 above 0
LEAST_GRID = 2.0**-126  # float32's least normal number: an integer times it rounds once and not twice


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


SPIKES = Multiples(1.0, 1.0)
ANY = Multiples(0.0, 2.0**128)  # any float32


class Summation(Enum):
    """How a sum is computed, see the module."""

    FLOAT32 = auto()
    INTEGER = auto()
    FLOAT64 = auto()


@dataclass(frozen=True)
class Sum:
    """How one sum is computed; its weights and bias are multiples of `grid`, or any numbers where that is 0.

    `arriving` are its inputs; an INTEGER sum has room for them, and for spikes. A FLOAT64 sum may meet inputs that are
    coarser than it must be ready for: of whole multiples of `coarse`, float32 holds every partial sum. 0: of none.
    """

    by: Summation
    grid: float = 0.0
    arriving: Multiples = SPIKES
    coarse: float = 0.0

    @property
    def most(self) -> float:
        """The largest input that an INTEGER sum has room for."""
        return max(1.0, self.arriving.bound)

    def weights(self, tensor: FloatArray) -> FloatArray:
        """Return the weights or biases that count, of the same shape: the nearest multiples of the grid, in float32."""
        if not self.grid:
            return tensor
        rounded = np.empty_like(tensor)
        for values, counted in zip(_blocks(tensor), _blocks(rounded), strict=True):
            counted[...] = np.rint(values.astype(np.float64) / self.grid) * self.grid
        return rounded


PLAIN = Sum(Summation.FLOAT32)


@dataclass(frozen=True)
class Sums:
    """The sums of a network by name: a connection's or pool's node, or "<node>.recurrent"; a Delay has its inputs.

    `weights` are the tensors of weights and biases that count, by their names.
    """

    by_name: Mapping[str, Sum]
    weights: Tensors

    def __getitem__(self, name: str) -> Sum:
        return self.by_name.get(name, PLAIN)


def sums_of(network: Network) -> Sums:
    """Return how each sum of a network is computed."""
    sums: dict[str, Sum] = {}

    def apply(node: nodes.Node, arriving: Multiples) -> Multiples:
        if isinstance(node, nodes.Neuron):
            leaving = spikes_of(node)
            if isinstance(node, nodes.Spiking) and node.recurrent:
                name = f"{node.name}.recurrent"
                sums[name], _ = _sum_of(network, name, leaving)
            return leaving
        if isinstance(node, nodes.Weighted):
            sums[node.name], leaving = _sum_of(network, node.name, arriving)
            return leaving
        leaving = passed(network, node, arriving)
        if isinstance(node, nodes.SumPool | nodes.AvgPool):
            summed = Multiples(arriving.step, arriving.bound * node.area)
            sums[node.name] = PLAIN if summed.fit else Sum(Summation.FLOAT64)
        if isinstance(node, nodes.Delay):
            sums[node.name] = replace(PLAIN, arriving=arriving)
        if isinstance(node, nodes.MatMul):
            sums[node.name] = PLAIN if arriving.fit else Sum(Summation.FLOAT64)
        return leaving

    spec = network.spec
    for _ in spec.propagate(incoming(spec.input, spec.coding, whole=False), apply, partial(joined, network)):
        pass
    weights = {
        tensor: replace(raw, values=each.weights(raw.values)) if isinstance(raw, Sparse) else each.weights(raw)
        for name, each in sums.items()
        for tensor in names_of(network.tensors, name)
        for raw in [network.stored[tensor]]
    }
    return Sums(sums, Tensors(weights))


def incoming(declared: Input, coding: Coding, *, whole: bool) -> Multiples:
    """Return the values of the network's input at each step; `whole`: its raw values are whole numbers, always."""
    if coding in (Coding.RATE, Coding.LATENCY):
        return SPIKES
    bound = max(map(abs, declared.normalised_range))
    if declared.resolution is not None:
        return Multiples(declared.resolution, bound)
    if not (whole or coding is Coding.SPIKES):
        return Multiples(0.0, bound)
    factors = np.abs(np.hstack([declared.scale, declared.offset])).astype(np.float32)  # one may become 0
    return Multiples(min((_grid_step(float(factor)) for factor in factors if factor), default=1.0), bound)


def spikes_of(node: nodes.Neuron) -> Multiples:
    """Describe the output of a layer of neurons: spikes, counts of them, or the membranes of a readout."""
    if not isinstance(node, nodes.Spiking):
        return ANY
    return Multiples(1.0, MOST_SPIKES) if node.several else SPIKES


def passed(network: Network, node: nodes.Node, arriving: Multiples) -> Multiples:
    """Describe the output of a node without weights and neurons; one that is unknown here may give any values."""
    if isinstance(node, nodes.Moved | nodes.MaxPool | nodes.Delay | nodes.JoinBase):
        return arriving
    if isinstance(node, nodes.Scale):
        factors, offsets = (_multiples(network.parameter(node, name)) for name in ("scale", "offset"))
        scaled = Multiples(arriving.step * factors.step, arriving.bound * factors.bound)
        return scaled if offsets.bound == 0 else scaled + offsets
    if isinstance(node, nodes.SumPool):
        return Multiples(arriving.step, arriving.bound * node.area)
    if isinstance(node, nodes.AvgPool):
        exact = node.area.bit_count() == 1 and not node.uneven  # whose edge windows divide by others
        return Multiples(arriving.step / node.area if exact else 0.0, arriving.bound)
    return ANY


def joined(network: Network, node: nodes.Node, inputs: Sequence[Multiples]) -> Multiples:
    """Return the values that a node's inputs become before it; a MatMul's are its sums of products."""
    if isinstance(node, nodes.Multiply | nodes.MatMul):
        step, bound = math.prod(each.step for each in inputs), math.prod(each.bound for each in inputs)
        inner = network.spec.output_shapes[network.spec.sources[node.name][0]][-1]
        return Multiples(step, min(bound * inner if isinstance(node, nodes.MatMul) else bound, 2.0**256))
    if isinstance(node, nodes.Concatenate):
        return Multiples(min(each.step for each in inputs), max(each.bound for each in inputs))
    return reduce(Multiples.__add__, inputs)


def _multiples(values: FloatArray) -> Multiples:
    sizes = np.unique(np.abs(values))
    return Multiples(min((_grid_step(float(size)) for size in sizes if size), default=1.0), float(sizes.max()))


def largest_sum(tensors: Mapping[str, NDArray[Any] | Sparse], arriving: Multiples) -> float:
    """Return the bound of any output's partial sums: the absolute weights times the largest input, plus the bias.

    `tensors` holds the weight (outputs, …) and then, where there is one, the bias (outputs,).
    """
    weight, *others = tensors.values()
    if isinstance(weight, Sparse):
        sums: NDArray[Any] = np.bincount(weight.outputs, np.abs(weight.values), weight.shape[0])
    else:
        sums = np.abs(weight).reshape(len(weight), -1).sum(axis=1, dtype=np.float64)
    biases = [np.abs(bias.astype(np.float64)) for bias in others if not isinstance(bias, Sparse)]
    return float(sum(biases, sums * arriving.bound).max())


def names_of(tensors: Mapping[str, FloatArray], connection: str) -> list[str]:
    """Return the names of a connection's weight and, where it has one, of its bias."""
    return [name for name in (f"{connection}.weight", f"{connection}.bias") if name in tensors]


def _sum_of(network: Network, name: str, arriving: Multiples) -> tuple[Sum, Multiples]:
    """Return how a connection's sum is computed, and the values that leave it."""
    tensors = {key: network.stored[key] for key in names_of(network.tensors, name)}
    largest = largest_sum(tensors, arriving)
    if largest == 0.0:
        return PLAIN, Multiples(1.0, 0.0)
    steps = [1.0 if key.endswith("bias") else arriving.step for key in tensors]
    bits = [lowest_bit(each) for each in tensors.values()]
    units = [bit * step for bit, step in zip(bits, steps, strict=True) if bit < np.inf]  # weights of 0 add nothing
    leaving = Multiples(min(units), largest)
    if leaving.fit:
        return Sum(Summation.FLOAT32, arriving=arriving), leaving
    coarse = _power_above(largest * 2.0**-MANTISSA / bits[0])
    if coarse > arriving.bound or min(bits[1:], default=np.inf) < largest * 2.0**-MANTISSA:
        coarse = 0.0
    return _wider(tensors, arriving, coarse), Multiples(0.0, largest)


def _wider(tensors: Mapping[str, FloatArray | Sparse], arriving: Multiples, coarse: float) -> Sum:
    """Return how a sum of these tensors, the weight first, is computed that float32 cannot hold."""
    fan_in = math.prod(next(iter(tensors.values())).shape[1:])
    few = 1 / FEW <= arriving.bound <= FEW and arriving.step * 2.0**16 >= 1.0
    if few and fan_in * FEW < 2.0 ** (WHOLE - 1):
        # An event that is a spike counts as 1, whatever else may come.
        largest = largest_sum(tensors, Multiples(arriving.step, max(1.0, arriving.bound)))
        return Sum(Summation.INTEGER, max(_power_above(largest) * 2.0**-WHOLE, LEAST_GRID), arriving)
    grid = 0.0
    if arriving.step and arriving.fit:
        grid = _power_above(largest_sum(tensors, arriving)) * 2.0**-EXACT / min(1.0, arriving.step)
    return Sum(Summation.FLOAT64, grid, arriving, coarse)


def _power_above(value: float) -> float:
    """Return the least power of two that is no less than a number, or that a float32 can be."""
    return 2.0 ** math.ceil(math.log2(max(value, LEAST)))


def lowest_bit(tensor: FloatArray | Sparse) -> float:
    """Return the largest power of two that divides every value; infinity where all are 0."""
    least = np.inf
    for values in _blocks(tensor.values if isinstance(tensor, Sparse) else tensor):
        fractions, exponents = np.frexp(values[values != 0].astype(np.float64))
        whole = np.abs(fractions * 2.0**MANTISSA).astype(np.int64)
        lowest = np.ldexp((whole & -whole).astype(np.float64), exponents - MANTISSA)
        least = min(least, float(lowest.min(initial=np.inf)))
    return least


def _blocks(tensor: FloatArray) -> Iterator[FloatArray]:
    """Yield a contiguous tensor's values piece by piece, so that what is worked out from them takes little memory."""
    flat = tensor.reshape(-1)
    for start in range(0, flat.size, BLOCK):
        yield flat[start : start + BLOCK]


def _grid_step(value: float) -> float:
    """Return the largest power of two that divides `value`, or 0 if `value` has more than 12 significant bits.

    With more bits, too few of the 24 would be left for the weights.
    """
    numerator, denominator = float(np.float32(value)).as_integer_ratio()
    lowest = numerator & -numerator
    return lowest / denominator if abs(numerator) // lowest < 2**12 else 0.0


@dataclass(frozen=True)
class Limbs:
    """The weight and the bias of an INTEGER sum as a high and a low part, each of which float32 sums exactly.

    The sum of both parts' sums rounds once, as the whole sum does.
    """

    high: Mapping[str, FloatArray]
    low: Mapping[str, FloatArray]

    @classmethod
    def of(cls, rule: Sum, tensors: Mapping[str, FloatArray]) -> Limbs | None:
        """Return the parts of a weight (outputs, …) and, where there is one, a bias, in this order.

        None where no division leaves either part enough of float32's bits.
        """
        whole = {name: np.rint(tensor.astype(np.float64) / rule.grid) for name, tensor in tensors.items()}
        room = min(1.0, rule.arriving.step) * 2**MANTISSA
        for bits in range(LOW_BITS, MANTISSA):
            high = {name: np.rint(values / 2**bits) for name, values in whole.items()}
            low = {name: values - high[name] * 2**bits for name, values in whole.items()}
            if max(largest_sum(high, rule.arriving), largest_sum(low, rule.arriving)) <= room:
                return cls(
                    {name: (values * (2**bits * rule.grid)).astype(np.float32) for name, values in high.items()},
                    {name: (values * rule.grid).astype(np.float32) for name, values in low.items()},
                )
        return None
