"""Weights of few bits: whole numbers, times a power of two for each output.

They need no meaning of their own. `value * 2**exponent` is a float32 like any other, and a sum is exact and rounded
once (`models.spec.sums`), so an engine may add up the whole numbers and multiply at the end: the same bits come out.
Whether a tensor is such is seen from its values alone. Where a node's `weight_bits` says so, a bundle stores them in a
quarter or an eighth of the bytes:

    <node>.weight           int8, the shape of the weights; of 4 bits uint8 (outputs, bytes), two values in each byte,
                            the first in its low half
    <node>.weight_exponent  int16 (outputs,)

Where a node's `nonzero` says that so many weights are not 0 (`models.spec.sparse`), a bundle stores only these, of 4
bits as one row, and as `<node>.weight_position`, uint32 (nonzero,), where each stands among all, row by row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.errors import InvalidSpec
from spikeserve.models.spec.parameters import Shape, WeightBits, show
from spikeserve.models.spec.sparse import FloatArray, Sparse, Tensors

if TYPE_CHECKING:
    from spikeserve.models.spec.network import Network
    from spikeserve.models.spec.spec import Spec

BITS: tuple[Literal[8, 7, 6, 4], ...] = (8, 7, 6, 4)  # that a bundle may say
MOST_BITS = BITS[0]  # of a weight, its sign included
PACKED_BITS = 4  # of weights of which a byte holds two
MANTISSA = 24  # bits of a float32's significand
BEYOND = 256  # the exponent of no float32, of either sign
LOWEST, HIGHEST = -149, 127  # exponents of the powers of two in float32
BLOCK = 2**18  # weights that are looked at at once
EXPONENT, POSITION = "_exponent", "_position"  # after the name of the weights


@dataclass(frozen=True)
class Narrow:
    """`values` (outputs, …) and `exponents` (outputs,): the weights are values * 2**exponents of their outputs."""

    values: NDArray[np.int8]
    exponents: NDArray[np.int16]

    @property
    def bits(self) -> int:
        """How many bits the largest value needs, its sign included: 8 for 64 to 127, 4 for 4 to 7."""
        return 1 + int(np.abs(self.values.astype(np.int16)).max(initial=0)).bit_length()

    def weights(self) -> FloatArray:
        """Return the weights in float32, of the same shape as the values; infinite where float32 ends."""
        exponents = self.exponents.reshape(-1, *[1] * (self.values.ndim - 1))
        with np.errstate(over="ignore"):
            return np.ldexp(self.values.astype(np.float32), exponents)


def narrow_of(weight: FloatArray | Sparse, bits: int = MOST_BITS) -> Narrow | None:
    """Return weights (outputs, …) as narrow ones of at most these bits that are exactly equal; None if there are none.

    An output's exponent is the largest that serves: its values have no factor of two in common. Where all weights of
    an output are zeros, it is 0. Of sparse ones the values are those that are stored, (count,).
    """
    if isinstance(weight, Sparse):
        return _narrow_values(weight, bits)
    rows = weight.reshape(len(weight), -1)
    values, exponents = np.empty(rows.shape, np.int8), np.empty(len(rows), np.int16)
    step = max(1, BLOCK // max(1, rows.shape[1]))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        if (exponent := _exponents(rows[part], bits)) is None:
            return None
        exponents[part] = exponent
        values[part] = np.ldexp(rows[part].astype(np.float64), -exponent[:, np.newaxis])
    return Narrow(values.reshape(weight.shape), exponents)


def _narrow_values(weight: Sparse, bits: int) -> Narrow | None:
    some, lowest, highest = _powers(weight.values)
    exponents, last = (np.full(weight.shape[0], most, np.int32) for most in (BEYOND, -BEYOND))
    np.minimum.at(exponents, weight.outputs[some], lowest[some])
    np.maximum.at(last, weight.outputs[some], highest[some])
    if np.any(last - exponents >= bits):
        return None
    exponents[exponents == BEYOND] = 0
    values = np.ldexp(weight.values.astype(np.float64), -exponents[weight.outputs])
    return Narrow(values.astype(np.int8), exponents.astype(np.int16))


def _powers(values: FloatArray) -> tuple[NDArray[np.bool_], NDArray[np.int32], NDArray[np.int32]]:
    """Return which values are not 0, the power of two of the last of their bits, and that above their first bit."""
    fractions, highest = np.frexp(values)
    whole = np.abs(np.ldexp(fractions, MANTISSA)).astype(np.int32)
    return whole > 0, highest - MANTISSA + np.frexp((whole & -whole).astype(np.float32))[1] - 1, highest


def _exponents(rows: FloatArray, bits: int) -> NDArray[np.int32] | None:
    """Return the largest power of two of each row that divides all of it, unless the rest has too many bits."""
    some, lowest, highest = _powers(rows)
    exponents: NDArray[np.int32] = lowest.min(axis=1, where=some, initial=BEYOND)
    exponents[~some.any(axis=1)] = 0
    if np.any(highest.max(axis=1, where=some, initial=-BEYOND) - exponents >= bits):
        return None
    return exponents


def check_bits(name: str, weight: FloatArray | Sparse, bits: int) -> None:
    """Raise InvalidSpec for weights that a node's `weight_bits` does not hold."""
    if narrow_of(weight, bits) is None:
        rows = weight.dense() if isinstance(weight, Sparse) else weight
        output = next(i for i, row in enumerate(rows) if narrow_of(row[np.newaxis], bits) is None)
        raise InvalidSpec(
            f"tensor '{name}': weight_bits is {bits}, but the weights of output {output} are no whole numbers from "
            f"{-_most(bits)} to {_most(bits)} times one power of two"
        )


def found_bits(network: Network) -> dict[str, WeightBits]:
    """Give the bits of each connection's weights: those that its node says, or else the fewest that hold them all.

    Weights that are not narrow have None.
    """
    least = network.spec.weight_bits
    for name, said in least.items():
        narrow = narrow_of(network.stored[name]) if said is None else None
        if narrow is not None:
            least[name] = min(bits for bits in BITS if bits >= narrow.bits)
    return least


def stored(network: Network) -> dict[str, NDArray[Any]]:
    """Return a network's tensors as a bundle stores them."""
    tensors = dict[str, NDArray[Any]]()
    for name, tensor in network.stored.items():
        if isinstance(tensor, Sparse):
            tensors[name], tensors[name + POSITION] = tensor.values, tensor.positions
        else:
            tensors[name] = tensor
    for name, bits in network.spec.weight_bits.items():
        if bits is not None:
            narrow = narrow_of(network.stored[name], bits)
            assert narrow is not None  # noqa: S101  (a Network checks it)
            tensors[name] = _packed(np.atleast_2d(narrow.values)) if bits == PACKED_BITS else narrow.values
            tensors[name + EXPONENT] = narrow.exponents
    return tensors


def multiplied_out(spec: Spec, tensors: Mapping[str, NDArray[Any]]) -> Tensors:
    """Return the tensors of a bundle with narrow weights as float32; what else may be wrong is for a Network to say.

    Raises InvalidSpec for narrow weights of another type or shape than their node says, beyond its bits or float32, and
    for sparse ones whose positions are not as many ascending places as their node says, or have a 0.
    """
    arrays, shapes, positions = dict[str, Any](tensors), spec.tensor_shapes, dict[str, NDArray[np.uint32]]()
    for name, count in spec.nonzero.items():
        if name in arrays:
            positions[name] = _positions(name, count, shapes[name], arrays.pop(name + POSITION, None))
    for name, bits in spec.weight_bits.items():
        if bits is not None and name in arrays:
            exponents = arrays.pop(name + EXPONENT, None)
            if exponents is None:
                raise InvalidSpec(f"tensor '{name}{EXPONENT}': missing; weight_bits is {bits}, which needs it")
            of = positions[name] // np.uint32(shapes[name][1]) if name in positions else None
            arrays[name] = _read(name, bits, shapes[name], arrays[name], exponents, of)
    for name, places in positions.items():
        _require(name, "float32", places.shape, arrays[name], f"nonzero {places.size}")
        if not arrays[name].all():
            raise InvalidSpec(f"tensor '{name}': holds 0, expected other values, as nonzero is {places.size}")
        arrays[name] = Sparse((shapes[name][0], shapes[name][1]), places, arrays[name])
    return Tensors(arrays)


def _positions(name: str, count: int, shape: Shape, positions: NDArray[Any] | None) -> NDArray[np.uint32]:
    """Return the positions of sparse weights of a shape, checked."""
    name, places = name + POSITION, math.prod(shape)
    if positions is None:
        raise InvalidSpec(f"tensor '{name}': missing; nonzero is {count}, which needs it")
    _require(name, "uint32", (count,), positions, f"nonzero {count}")
    wrong = np.flatnonzero(np.diff(positions.astype(np.int64), prepend=-1, append=places) <= 0)
    if wrong.size:
        at = min(int(wrong[0]), count - 1)
        raise InvalidSpec(f"tensor '{name}': holds {positions[at]} at {at}, expected ascending numbers below {places}")
    return positions


def _require(tensor: str, of_type: str, of_shape: Shape, array: NDArray[Any], why: str) -> None:
    """Raise InvalidSpec for a tensor of another type or shape than it needs."""
    if array.dtype.name != of_type or array.shape != of_shape:
        raise InvalidSpec(
            f"tensor '{tensor}': is {array.dtype} of shape {show(array.shape)}, but {why} needs {of_type} of shape "
            f"{show(of_shape)}"
        )


def _read(
    name: str, bits: int, shape: Shape, values: NDArray[Any], exponents: NDArray[Any], of: NDArray[np.uint32] | None
) -> FloatArray:
    """Return narrow weights of a shape in float32, of sparse ones the values (count,), which are `of` these outputs."""
    packed, most, sizes = bits == PACKED_BITS, _most(bits), shape if of is None else of.shape
    rows, fan_in = (shape[0], math.prod(shape[1:])) if of is None else (1, of.size)
    _require(name, *("uint8", (rows, -(-fan_in // 2))) if packed else ("int8", sizes), values, f"weight_bits {bits}")
    _require(name + EXPONENT, "int16", shape[:1], exponents, f"weight_bits {bits}")
    whole = _unpacked(values)[:, :fan_in].reshape(sizes) if packed else values
    for tensor, array, low, high in ((name, whole, -most, most), (name + EXPONENT, exponents, LOWEST, HIGHEST)):
        if array.min() < low or array.max() > high:
            beyond = array.flat[np.argmax((array < low) | (array > high))]
            raise InvalidSpec(f"tensor '{tensor}': holds {beyond}, expected {low} to {high}, as weight_bits is {bits}")
    weights = Narrow(whole, exponents if of is None else exponents[of]).weights()
    if not np.isfinite(weights).all():
        place = np.unravel_index(np.argmin(np.isfinite(weights)), sizes)
        output = place[0] if of is None else of[place]
        raise InvalidSpec(
            f"tensor '{name}': {whole[place]} * 2**{exponents[output]} of output {output} is beyond float32"
        )
    return weights


def _most(bits: int) -> int:
    """Return the largest value of so many bits; the least is as far from 0."""
    return 2 ** (bits - 1) - 1


def _packed(values: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Write values of 4 bits (outputs, …) as bytes (outputs, bytes)."""
    rows = values.reshape(len(values), -1)
    halves: NDArray[np.uint8] = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2))).view(np.uint8) & np.uint8(15)
    return halves[:, ::2] | halves[:, 1::2] << np.uint8(4)


def _unpacked(packed: NDArray[np.uint8]) -> NDArray[np.int8]:
    """Read bytes (outputs, bytes) as values (outputs, 2 * bytes) of 4 bits, the sign being the highest."""
    halves = np.stack([packed & 15, packed >> 4], axis=2).reshape(len(packed), -1)
    return (halves ^ 8).view(np.int8) - 8
