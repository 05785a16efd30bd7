"""The nodes that move values and compute nothing: Flatten, Reshape and Permute."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from typing_extensions import override

from spikeserve.models.errors import InvalidSpec
from spikeserve.models.spec.node_base import NodeBase
from spikeserve.models.spec.parameters import Shape, Size, show

MAX_AXES = 6


class Flatten(NodeBase):
    """All axes of a sample flattened into one, in row-major order."""

    type: Literal["Flatten"] = "Flatten"

    @override
    def output_shape(self, shape: Shape) -> Shape:
        return (math.prod(shape),)


class Reshape(NodeBase):
    """The values of a sample laid out over other axes, in row-major order."""

    type: Literal["Reshape"] = "Reshape"
    shape: Annotated[tuple[Size, ...], Field(min_length=1, max_length=MAX_AXES)]

    @override
    def output_shape(self, shape: Shape) -> Shape:
        if math.prod(shape) != math.prod(self.shape):
            raise InvalidSpec(
                f"node '{self.name}': shape is {show(self.shape)}, {math.prod(self.shape)} values, but its input has "
                f"shape {show(shape)}, {math.prod(shape)} values"
            )
        return self.shape


class Permute(NodeBase):
    """The axes of a sample in another order: axis k of the output is axis `order[k]` of the input."""

    type: Literal["Permute"] = "Permute"
    order: Annotated[tuple[Annotated[int, Field(ge=0, lt=MAX_AXES)], ...], Field(min_length=1, max_length=MAX_AXES)]

    @model_validator(mode="after")
    def _has_each_axis_once(self) -> Self:
        if sorted(self.order) != list(range(len(self.order))):
            raise ValueError(
                f"node '{self.name}': order is {list(self.order)}, expected each axis from 0 to "
                f"{len(self.order) - 1} once"
            )
        return self

    @override
    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) != len(self.order):
            raise InvalidSpec(
                f"node '{self.name}': order has {len(self.order)} axes, but its input has shape {show(shape)}"
            )
        return tuple(shape[axis] for axis in self.order)
