"""A network: a spec and its tensors, which are checked against the spec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.errors import InvalidSpec
from spikeserve.models.spec import Spec
from spikeserve.models.spec.narrow import check_bits
from spikeserve.models.spec.nodes import ARRAY_RANGES, WHOLE, NeuronBase, Node, ProgramBase
from spikeserve.models.spec.parameters import PER_CHANNEL, PER_NEURON, show

FloatArray: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class Network:
    """A spec and its tensors, float32 and read-only, named "<node>.<parameter>".

    Raises InvalidSpec if a tensor is missing, unknown, of the wrong shape or type, not finite or out of range, or if
    weights are not of as few bits as their node says.
    """

    spec: Spec
    tensors: Mapping[str, FloatArray]

    def __post_init__(self) -> None:
        needed = self.spec.tensor_shapes
        for name in self.tensors.keys() - needed.keys():
            raise InvalidSpec(f"tensor '{name}': no node of the spec has such a parameter")
        owned, authors = dict[str, FloatArray](), {n.name for n in self.spec.nodes if isinstance(n, ProgramBase)}
        for name, shape in needed.items():
            if name not in self.tensors:
                raise InvalidSpec(f"tensor '{name}': missing; the spec needs it with shape {show(shape)}")
            node, _, parameter = name.partition(".")
            known = "" if node in authors else parameter.rpartition(".")[2]  # an author's parameters have any range
            owned[name] = _checked(name, np.array(self.tensors[name], order="C"), shape, known)
        for name, bits in self.spec.weight_bits.items():
            if bits is not None:
                check_bits(name, owned[name], bits)
        object.__setattr__(self, "tensors", MappingProxyType(owned))

    @property
    def parameter_count(self) -> int:
        """How many values its tensors have: weights, biases and parameters of each neuron."""
        return sum(tensor.size for tensor in self.tensors.values())

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
