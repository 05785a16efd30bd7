"""The nodes that join their inputs in another way than by their sum: Multiply, Concatenate and MatMul."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from typing_extensions import override

from spikeserve.models.errors import InvalidSpec
from spikeserve.models.spec.node_base import MAX_INPUTS, NodeBase
from spikeserve.models.spec.parameters import Name, Shape, show
from spikeserve.models.spec.shapes import MAX_AXES

Several = Annotated[tuple[Name, ...], Field(min_length=2, max_length=MAX_INPUTS)]


class JoinBase(NodeBase):
    """The base of the joins. All that they do is to join: what arrives is what leaves."""

    inputs: Several = Field(description="Names of earlier nodes, or 'input': at least two.")

    @override
    def output_shape(self, shape: Shape) -> Shape:
        return shape

    def products(self, inputs: Sequence[Shape]) -> int:  # noqa: ARG002  (for joins that multiply)
        """Return the number of products of one value with another that inputs of these shapes need."""
        return 0


class Multiply(JoinBase):
    """The element-wise product of its inputs, from left to right: AND of spikes."""

    type: Literal["Multiply"] = "Multiply"
    joined_how: ClassVar = "multiplied"

    @override
    def products(self, inputs: Sequence[Shape]) -> int:
        return (len(inputs) - 1) * math.prod(inputs[0])


class Concatenate(JoinBase):
    """Its inputs one behind the other along an axis, by default the first one, the channels."""

    type: Literal["Concatenate"] = "Concatenate"
    axis: Annotated[int, Field(ge=0, lt=MAX_AXES)] = 0

    @override
    def joined_shape(self, inputs: Sequence[tuple[Name, Shape]]) -> Shape:
        (first, shape), *others = inputs
        if self.axis >= len(shape):
            raise InvalidSpec(
                f"node '{self.name}': axis is {self.axis}, but its input '{first}' has shape {show(shape)}"
            )
        for other, its_shape in others:
            if self._others(its_shape) != self._others(shape):
                raise InvalidSpec(
                    f"node '{self.name}': inputs '{first}' and '{other}' are joined along axis {self.axis}, but have "
                    f"shapes {show(shape)} and {show(its_shape)}"
                )
        length = sum(its_shape[self.axis] for _, its_shape in inputs)
        return (*shape[: self.axis], length, *shape[self.axis + 1 :])

    def _others(self, shape: Shape) -> tuple[Shape, Shape]:
        return shape[: self.axis], shape[self.axis + 1 :]


class MatMul(JoinBase):
    """The matrix product of two inputs, (*heads, rows, inner) and (*heads, inner, columns), for each head."""

    type: Literal["MatMul"] = "MatMul"
    inputs: Annotated[tuple[Name, ...], Field(min_length=2, max_length=2)] = Field(
        description="Names of two earlier nodes, or 'input'."
    )

    @override
    def joined_shape(self, inputs: Sequence[tuple[Name, Shape]]) -> Shape:
        (one, left), (other, right) = inputs
        fits = len(left) == len(right) >= 2 and left[:-2] == right[:-2] and left[-1] == right[-2]
        if not fits:
            raise InvalidSpec(
                f"node '{self.name}': inputs '{one}' and '{other}' have shapes {show(left)} and {show(right)}, "
                "expected (heads, rows, inner) and (heads, inner, columns)"
            )
        return (*left[:-1], right[-1])

    @override
    def products(self, inputs: Sequence[Shape]) -> int:
        left, right = inputs
        return math.prod(left) * right[-1]
