"""What a framework's file says: its modules, the rule that converts each, and how one runs over time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field
from enum import Enum
from importlib import import_module, metadata
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spikeserve.models.spec import Readout
from spikeserve.models.spec.nodes import NodeBase, Recurrent
from spikeserve.models.spec.parameters import Shape
from spikeserve.models.spec.rules import Joins
from spikeserve.plugins.frameworks import NAMES
from spikeserve.plugins.frameworks.modifications import base_of, changes
from spikeserve.plugins.frameworks.nouns import ModuleRun
from spikeserve.training.errors import InvalidEntry
from spikeserve.training.importers.builder import Builder, Draft
from spikeserve.training.importers.connections import Array

MAX_ONE_TO_ONE = 4096  # neurons whose one-to-one recurrence is written out as a diagonal


@dataclass
class Findings:
    """What the modules of a network say beyond its nodes, and everything that cannot be converted."""

    refusals: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    steps: set[float] = field(default_factory=set)
    """The seconds of a step."""
    readout: Readout | None = None
    """What the answer is read from."""


@dataclass(frozen=True)
class Layer:
    """One module, where it stands in the user's network, and the builder that its nodes go to.

    `where` is the author's line that calls it, and `alone` whether it alone takes what the one before it gives.
    """

    path: str
    module: Any
    builder: Builder
    findings: Findings
    where: str = ""
    alone: bool = True

    @property
    def name(self) -> str:
        """The name of the module's node, made of its path: `features.0` becomes `features_0`, `0` say `linear_0`."""
        named = self.path[:1].isalpha() and self.path != "input"
        return self.path if named else f"{type(self.module).__name__.lower()}_{self.path}"

    def refuse(self, about: str, why: str) -> None:
        """Note that something of this module cannot be converted: the field with its value, and why."""
        kind = type(self.module)
        described = f"{self.path or '(the network itself)'} ({kind.__module__}.{kind.__name__})"
        self.findings.refusals.append(f"{described}: {about}: {why}")

    def refuse_unless(self, holds: bool, about: str, why: str) -> None:
        """Refuse where a condition does not hold."""
        if not holds:
            self.refuse(about, why)

    def add(self, kind: type[NodeBase], tensors: dict[str, Any] | None = None, **fields: Any) -> None:
        """Append a neuron, named as the module; numbers and tensors among its fields are its parameters."""
        numbers = {
            name: self.array(name, value)
            for name, value in fields.items()
            if isinstance(value, Tensor | np.ndarray | np.generic | int | float)
        }
        self.builder.add(Draft(self.name, kind, fields | numbers, self.arrays(tensors or {})))

    def arrays(self, values: Mapping[str, Any]) -> dict[str, Array]:
        """Return all values that are not None as arrays."""
        return {name: self.array(name, value) for name, value in values.items() if value is not None}

    def array(self, name: str, value: Any) -> Array:
        """Return numbers as float32; an array of another type is refused, for its framework computes in that type."""
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        if array.ndim and array.dtype != np.float32:
            self.refuse(name, f"is an array of {array.dtype}, expected float32")
        return np.array(array, np.float32)

    def weights(self, connection: Any) -> tuple[Array, Array | None]:
        """Return the weight and the bias of a connection of PyTorch's."""
        bias = connection.bias
        return self.array("weight", connection.weight), None if bias is None else self.array("bias", bias)

    def recurrent(
        self, connection: nn.Module, joins: Joins = Joins.INPUT, *, bias_at_start: bool = True
    ) -> tuple[Recurrent | None, dict[str, Any]]:
        """Return the recurrent connection that a Linear or convolution of PyTorch's is, and its tensors.

        A convolution is written out in full. What is no such connection or too large is refused, which gives None.
        """
        shape = self.builder.shape
        if not isinstance(connection, nn.Linear | nn.Conv1d | nn.Conv2d):
            self.refuse("its recurrent connection", f"is {connection}, expected a Linear or a convolution")
        if not isinstance(connection, nn.Linear | nn.Conv1d | nn.Conv2d) or shape is None:
            return None, {}
        if isinstance(connection, nn.Linear) and len(shape) == 1:
            weight, bias = self.weights(connection)
        elif isinstance(connection, nn.Linear) or self.may_write_out(shape):
            weight, bias = written_out(connection, shape)
        else:
            return None, {}
        tensors = {"recurrent.weight": weight} | ({} if bias is None else {"recurrent.bias": bias})
        return Recurrent(bias=bias is not None, bias_at_start=bias_at_start or bias is None, joins=joins), tensors

    def one_to_one(self, weights: Any, joins: Joins = Joins.INPUT) -> tuple[Recurrent | None, dict[str, Any]]:
        """Return the recurrent connection by which each neuron hears itself alone, and its tensors."""
        shape = self.builder.shape
        if shape is None or not self.may_write_out(shape):
            return None, {}
        values = np.broadcast_to(np.asarray(weights, np.float32), shape)
        return Recurrent(joins=joins), {"recurrent.weight": np.diag(values.reshape(-1))}

    def may_write_out(self, shape: Shape) -> bool:
        """Return whether a recurrent connection of this layer may be written out as a full one; refuse it if not."""
        size = math.prod(shape)
        few = size <= MAX_ONE_TO_ONE
        self.refuse_unless(
            few, "its recurrent connection", f"the weights of {size} neurons are written out, at most {MAX_ONE_TO_ONE}"
        )
        return few


def written_out(connection: nn.Linear | nn.Conv1d | nn.Conv2d, shape: tuple[int, ...]) -> tuple[Array, Array | None]:
    """Return a recurrent connection of a layer as a full one: the weight (n, n) and the bias (n), None without one.

    Where no kernel reaches, weights are 0.
    """
    size, alone = math.prod(shape), copy(connection)
    alone._parameters = {**connection._parameters, "bias": None}
    with torch.no_grad():
        sent = alone(torch.eye(size).view(size, *shape)).reshape(size, -1)  # what one neuron sends to each
        if connection.bias is None:
            return sent.T.numpy(), None
        silent = connection(torch.zeros(1, *shape)).reshape(-1)  # what arrives where none fires: the bias of each
    return sent.T.numpy(), silent.numpy()


Rule = Callable[[Layer], None]


def is_hard(spike: Callable[[Tensor], Tensor], *, fires_at_zero: bool) -> bool:
    """Return whether a spike function is the hard threshold at 0, which is all that a served network computes."""
    tiny = 2.0**-126
    around = torch.tensor([[-1e3, -1.0, -tiny, 0.0, tiny, 1.0, 1e3]])
    expected = around >= 0 if fires_at_zero else around > 0
    with torch.no_grad():
        return bool(torch.equal(spike(around), expected.float()))


class TimeAxes(Enum):
    """The axes before a sample's in the input of a module with a state: t for time and b for the batch."""

    STEP = ("b",)
    TIME_FIRST = ("t", "b")
    BATCH_FIRST = ("b", "t")
    MERGED = ("bt",)


@dataclass(frozen=True)
class Framework:
    """A framework as an importer sees it; types are matched exactly, since a subclass may compute something else.

    `containers` pass a tensor through their children in order. `run` takes one module from rest over all steps of
    (time_steps, batch, *shape), by the module's own code. `takes` says what a module with a state takes, None of one
    without. `membranes` names the attributes in which its neurons keep theirs, of the last step or of all that they
    just ran. `unwrap` takes the network out of what holds it. `installed` is the version of what is no package of its
    own.
    """

    name: str
    rule: str
    containers: frozenset[type[nn.Module]]
    rules: Mapping[type[nn.Module], Rule]
    run: Callable[[nn.Module, Tensor], ModuleRun]
    takes: Callable[[nn.Module], TimeAxes | None] = lambda _: None
    membranes: tuple[str, ...] = ()
    unwrap: Callable[[nn.Module], nn.Module] = lambda module: module
    installed: str | None = None

    def kind(self, module: nn.Module) -> type[nn.Module] | None:
        """Return the class whose rule converts a module: its own, or the one that it only constructs otherwise.

        A subclass that defines no method but `__init__` computes what its base does, from fields that the rule reads.
        """
        return base_of(type(module), self.rules.__contains__)

    def passes_on(self, module: nn.Module) -> bool:
        """Return whether a module only passes a tensor through its children in order, as its class says."""
        kind = base_of(type(module), lambda kind: kind in self.containers or kind is nn.Sequential)
        return kind is not None and not changes(module, alone=True)

    @property
    def version(self) -> str:
        """The version that is installed."""
        return self.installed or metadata.version(self.name)


def find(name: str) -> Framework:
    """Return a framework by name; raises InvalidEntry where it is unknown or not installed here."""
    if name not in NAMES:
        raise InvalidEntry(f"framework: '{name}' is not one, expected {', '.join(NAMES[:-1])} or {NAMES[-1]}")
    try:
        framework: Framework = import_module(f"spikeserve.plugins.frameworks.{name}").FRAMEWORK
    except ImportError as error:
        raise InvalidEntry(f"framework: {name} cannot be imported here: {error}; pip install {name}") from error
    except AttributeError as error:  # a release that lacks a class which a rule is for
        raise InvalidEntry(
            f"framework: {name} {metadata.version(name)} is too old: {error}; pip install --upgrade {name}"
        ) from error
    return framework


def stepped(step: Callable[[Tensor], tuple[Tensor, Tensor]], steps: Tensor) -> ModuleRun:
    """Run a function that takes the input of each step, and gives an output and a membrane."""
    outputs, membranes = zip(*map(step, steps), strict=True)
    return ModuleRun(torch.stack(outputs), torch.stack(membranes))


def folded(module: nn.Module, steps: Tensor) -> ModuleRun:
    """Run a module without state over all steps at once, as one long batch."""
    if isinstance(module, nn.Flatten):  # which axes are a sample's depends on whether its caller has one for time
        return ModuleRun(steps.flatten(2))
    return ModuleRun(module(steps.flatten(0, 1)).unflatten(0, steps.shape[:2]))
