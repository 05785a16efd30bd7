"""From modules to nodes: what a framework's rules are given to read a module and to write nodes with."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from models.errors import InvalidSpec
from models.spec import Readout, first_fault
from models.spec.network import FloatArray
from models.spec.nodes import Node, NodeBase
from models.spec.parameters import PER_NEURON, Shape, show


@dataclass
class Builder:
    """A network on its way: its nodes and tensors so far, and all that cannot be converted."""

    shape: Shape | None
    """What leaves the last node, for each step and sample; None once a module could not be converted."""
    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, FloatArray] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    steps: set[float] = field(default_factory=set)
    """The seconds of a step, as the modules say."""
    readout: Readout | None = None
    """What a module says that the answer is read from."""


@dataclass(frozen=True)
class Layer:
    """One module, where it stands in the user's network, and the builder that its nodes go to."""

    path: str
    module: Any
    builder: Builder

    @property
    def name(self) -> str:
        """The name of the module's node, made of its path: `features.0` becomes `features_0`, `0` say `linear_0`."""
        path = re.sub(r"[^A-Za-z0-9_-]", "_", self.path)
        named = path if path[:1].isalpha() and path != "input" else f"{type(self.module).__name__.lower()}_{path}"
        return named[:64]

    @property
    def described(self) -> str:
        """The module for a person: its path and class."""
        return f"{self.path or '(the network itself)'} ({type(self.module).__module__}.{type(self.module).__name__})"

    def refuse(self, about: str, why: str) -> None:
        """Note that something of this module cannot be converted: the field with its value, and why."""
        self.builder.refusals.append(f"{self.described}: {about}: {why}")

    def refuse_unless(self, holds: bool, about: str, why: str) -> None:
        """Refuse where a condition does not hold."""
        if not holds:
            self.refuse(about, why)

    def add(
        self, kind: type[NodeBase], *, name: str = "", tensors: dict[str, Any] | None = None, **fields: Any
    ) -> None:
        """Append a node, named as the module unless `name` is given; what does not fit is refused."""
        builder, name = self.builder, name or self.name
        try:
            node: Any = kind(name=name, **fields)
            if builder.shape is not None:
                builder.shape = node.output_shape(builder.shape)
        except ValidationError as error:
            self.refuse("its parameters", first_fault(error))
            builder.shape = None
            return
        except InvalidSpec as error:
            self.refuse("its input", str(error))
            builder.shape = None
            return
        builder.nodes.append(node)
        for parameter, tensor in (tensors or {}).items():
            if tensor is not None:
                builder.tensors[f"{name}.{parameter}"] = self.floats(parameter, tensor)

    def parameter(self, name: str, value: Any) -> float | Literal["per_neuron"]:
        """Return a neuron's parameter as a spec has it, and keep the array of one that differs between neurons.

        An array stands as PyTorch would broadcast it against what arrives.
        """
        array = self.floats(name, value)
        if array.size == 1:
            return float(array.reshape(()))
        shape = self.builder.shape
        if shape is None:
            return PER_NEURON
        while array.ndim > len(shape) and array.shape[0] == 1:
            array = array[0]
        try:
            spread = np.broadcast_to(array, shape)
        except ValueError:
            self.refuse(name, f"has shape {show(array.shape)}, which does not spread over {show(shape)} neurons")
            return PER_NEURON
        self.builder.tensors[f"{self.name}.{name}"] = np.ascontiguousarray(spread)
        return PER_NEURON

    def floats(self, name: str, value: Any) -> FloatArray:
        """Return numbers as float32; an array of another type is refused, for its framework computes in that type."""
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        if array.ndim and array.dtype != np.float32:
            self.refuse(name, f"is an array of {array.dtype}, expected float32")
        return np.array(array, np.float32)


Rule = Callable[[Layer], None]


def is_hard(spike: Callable[[Tensor], Tensor], *, fires_at_zero: bool) -> bool:
    """Return whether a spike function is the hard threshold at 0, which is all that a served network computes."""
    tiny = 2.0**-126
    around = torch.tensor([[-1e3, -1.0, -tiny, 0.0, tiny, 1.0, 1e3]])
    expected = around >= 0 if fires_at_zero else around > 0
    with torch.no_grad():
        return bool(torch.equal(spike(around), expected.float()))


def has_hooks(module: nn.Module) -> bool:
    """Return whether hooks stand by that may change what a module computes."""
    return bool(module._forward_hooks or module._forward_pre_hooks)
