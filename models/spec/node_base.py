"""The base class of all nodes of a network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from spikeserve.models.errors import InvalidSpec
from spikeserve.models.spec.parameters import FrozenModel, Name, Shape, show

MAX_INPUTS = 1000  # of one node: as many as a network may have nodes


class NodeBase(FrozenModel, ABC):
    """A node: its name, and the nodes whose outputs are joined into its input, by their sum unless a node says more."""

    joined_how: ClassVar = "summed"

    name: Name
    inputs: tuple[Name, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_INPUTS,
        description="Names of earlier nodes, or 'input'; the node before this one if absent.",
    )

    @property
    def by_step(self) -> bool:
        """Whether what it computes depends on the step's number, so that a constant input gives another output."""
        return False

    def joined_shape(self, inputs: Sequence[tuple[Name, Shape]]) -> Shape:
        """Return the shape of what its inputs, each a source's name and shape, become; raises InvalidSpec."""
        (first, shape), *others = inputs
        for other, its_shape in others:
            if its_shape != shape:
                raise InvalidSpec(
                    f"node '{self.name}': inputs '{first}' and '{other}' are {self.joined_how}, but have shapes "
                    f"{show(shape)} and {show(its_shape)}"
                )
        return shape

    @abstractmethod
    def output_shape(self, shape: Shape) -> Shape:
        """Return the output's shape, per step and sample; raises InvalidSpec if the joined `shape` does not fit."""

    def tensor_shapes(self, shape: Shape) -> dict[str, Shape]:  # noqa: ARG002  (for nodes that have tensors)
        """Return the tensors that this node needs, parameter name to shape, for an input of `shape`."""
        return {}
