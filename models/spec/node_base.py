"""The base class of all nodes of a network."""

from __future__ import annotations

from abc import ABC, abstractmethod

from pydantic import Field

from models.spec.parameters import Frozen, Name, Shape


class NodeBase(Frozen, ABC):
    """A node: its name, and the nodes whose outputs are summed into its input."""

    name: Name
    inputs: tuple[Name, ...] | None = Field(
        default=None,
        min_length=1,
        description="Names of earlier nodes, or 'input'; the node before this one if absent.",
    )

    @abstractmethod
    def output_shape(self, shape: Shape) -> Shape:
        """Return the output's shape, per step and sample; raises InvalidSpec if the input's `shape` does not fit."""

    def tensor_shapes(self, shape: Shape) -> dict[str, Shape]:  # noqa: ARG002  (for nodes that have tensors)
        """Return the tensors that this node needs, parameter name to shape, for an input of `shape`."""
        return {}
