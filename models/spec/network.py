"""A network: a spec and its tensors, which are checked against the spec."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.errors import InvalidSpec
from spikeserve.models.spec import Spec
from spikeserve.models.spec.narrow import PACKED_BITS, check_bits
from spikeserve.models.spec.nodes import ARRAY_RANGES, WHOLE, Linear, NeuronBase, Node, ProgramBase
from spikeserve.models.spec.parameters import PER_CHANNEL, PER_NEURON, show
from spikeserve.models.spec.sparse import MOST_PLACES, Sparse, Tensors
from spikeserve.models.spec.sparse import FloatArray as FloatArray


@dataclass(frozen=True)
class Network:
    """A spec and its tensors, float32 and read-only, named "<node>.<parameter>".

    Weights of which a node says how many are not 0 are held as sparse ones, and made dense whenever they are looked up
    in `tensors`. Raises InvalidSpec if a tensor is missing, unknown, of the wrong shape or type, not finite or out of
    range, or if weights are not of as few bits, or as few values, as their node says.
    """

    spec: Spec
    tensors: Mapping[str, FloatArray]

    def __post_init__(self) -> None:
        needed, few = self.spec.tensor_shapes, self.spec.nonzero
        tensors = self.tensors.stored if isinstance(self.tensors, Tensors) else self.tensors
        for name in tensors.keys() - needed.keys():
            raise InvalidSpec(f"tensor '{name}': no node of the spec has such a parameter")
        owned = dict[str, FloatArray | Sparse]()
        authors = {n.name for n in self.spec.nodes if isinstance(n, ProgramBase)}
        for name, shape in needed.items():
            if name not in tensors:
                raise InvalidSpec(f"tensor '{name}': missing; the spec needs it with shape {show(shape)}")
            node, _, parameter = name.partition(".")
            known = "" if node in authors else parameter.rpartition(".")[2]  # an author's parameters have any range
            tensor = tensors[name]
            if isinstance(tensor, Sparse) and name in few:
                owned[name] = replace(tensor, values=_checked(name, tensor.values, tensor.values.shape, known))
            else:
                array = tensor.dense() if isinstance(tensor, Sparse) else np.array(tensor, order="C")
                owned[name] = _checked(name, array, shape, known)
        for name, count in few.items():
            weight = owned[name]
            owned[name] = sparse = weight if isinstance(weight, Sparse) else Sparse.of(weight)
            if sparse.shape != needed[name] or sparse.size != count:
                raise InvalidSpec(f"tensor '{name}': nonzero is {count}, but {sparse.size} of its weights are not 0")
        for name, bits in self.spec.weight_bits.items():
            if bits is not None:
                check_bits(name, owned[name], bits)
        object.__setattr__(self, "tensors", Tensors(MappingProxyType(owned)))

    @property
    def stored(self) -> Mapping[str, FloatArray | Sparse]:
        """The tensors as they are stored: weights of which a node says how many are not 0 are sparse."""
        assert isinstance(self.tensors, Tensors)  # noqa: S101  (as its making left it)
        return self.tensors.stored

    def counted(self, weights: Tensors) -> Network:
        """Return it with the weights that count in sums; see `models.spec.sums`."""
        return replace(self, tensors=Tensors({**self.stored, **weights.stored}))

    def compact(self) -> Network:
        """Return it with those weights of Linears sparse that then take fewer bytes in a bundle."""
        counts = dict[str, int]()
        for node in self.spec.nodes:
            if isinstance(node, Linear):
                weight = self.stored[f"{node.name}.weight"]
                count = int(np.count_nonzero(weight.values if isinstance(weight, Sparse) else weight))
                value = {None: 4.0, PACKED_BITS: 0.5}.get(node.weight_bits, 1.0)  # bytes
                if 0 < count * (value + 4) < value * math.prod(weight.shape) <= value * MOST_PLACES:
                    counts[f"{node.name}.weight"] = count
        return self if counts == self.spec.nonzero else Network(self.spec.with_nonzero(counts), self.tensors)

    @property
    def parameter_count(self) -> int:
        """How many values its tensors have: stored weights, biases and parameters of each neuron."""
        return sum(tensor.size for tensor in self.stored.values())

    def parameter(self, node: Node, name: str) -> FloatArray:
        """Return a parameter as float32: a scalar array, or one that spreads over the layer's shape.

        Where a Scale has its own for each step, an array's first axis are the steps.
        """
        value = node.values()[name] if isinstance(node, NeuronBase) else getattr(node, name)
        if value == PER_CHANNEL:
            tensor = self.tensors[f"{node.name}.{name}"]
            return tensor.reshape(*tensor.shape, *(1 for _ in self.spec.input_shapes[node.name][1:]))
        return self.tensors[f"{node.name}.{name}"] if value == PER_NEURON else np.array(value, np.float32)

    def tensor(self, node: Node, name: str) -> FloatArray | None:
        """Return a connection's tensor, or None if the node has no such tensor (`bias` is off)."""
        return self.tensors.get(f"{node.name}.{name}")


def _checked(name: str, array: NDArray[np.generic], shape: tuple[int, ...], parameter: str) -> FloatArray:
    if array.dtype != np.float32:
        raise InvalidSpec(f"tensor '{name}': its type is {array.dtype}, expected float32")
    if array.shape != shape:
        raise InvalidSpec(f"tensor '{name}': its shape is {show(array.shape)}, but the spec needs {show(shape)}")
    if not np.isfinite(array).all():
        raise InvalidSpec(f"tensor '{name}': holds NaN or infinite values, expected finite ones")
    low, high = ARRAY_RANGES.get(parameter, (-np.inf, np.inf))
    if array.size and not (array.min() >= low and array.max() <= high):
        raise InvalidSpec(
            f"tensor '{name}': its values go from {array.min():g} to {array.max():g}, expected {low:g} to {high:g}"
        )
    if parameter in WHOLE and (array != np.floor(array)).any():
        raise InvalidSpec(f"tensor '{name}': holds {array[array != np.floor(array)].flat[0]:g}, expected whole numbers")
    array.setflags(write=False)
    return array.astype(np.float32, copy=False)
