"""What a framework's rules are given: one module where it stands, the builder it goes to, and a list of refusals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from packaging.version import Version
from torch import Tensor, nn

from spikeserve.models.spec import Readout
from spikeserve.models.spec.nodes import Joins, NodeBase, ProgramNeuron, Recurrent
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
    `given_state` is whether a neuron is handed its state at each step, `membrane_is_read` whether the answer is read of
    its membrane, and `version` the framework's release whose arithmetic is asked for, None for the installed one.
    """

    path: str
    module: Any
    builder: Builder
    findings: Findings
    where: str = ""
    alone: bool = True
    given_state: bool = False
    membrane_is_read: bool = False
    version: Version | None = None

    @property
    def name(self) -> str:
        """The name of the module's node, made of its path: `features.0` becomes `features_0`, `0` say `linear_0`."""
        named = self.path[:1].isalpha() and self.path != "input"
        return self.path if named else f"{type(self.module).__name__.lower()}_{self.path}"

    def before(self, release: str) -> bool:
        """Return whether the arithmetic asked for is that of a version before a release."""
        return self.version is not None and self.version < Version(release)

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

    def add_program(
        self,
        states: Sequence[str],
        step: Sequence[str],
        spikes: str,
        parameters: dict[str, Any],
        recurrent: Recurrent | None = None,
        tensors: dict[str, Any] | None = None,
    ) -> None:
        """Append a neuron by the lines of its step, in which `spikes` leave; its states begin at 0."""
        program = {"states": dict.fromkeys(states, 0.0), "step": step, "spikes": spikes}
        fields = {"program": program, "recurrent": recurrent}
        arrays = self.arrays(tensors or {})
        self.builder.add(Draft(self.name, ProgramNeuron, fields, arrays, self.arrays(parameters)))

    def arrays(self, values: Mapping[str, Any]) -> dict[str, Array]:
        """Return those of these that are not None, as `array` does."""
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
        self, connection: nn.Linear, joins: Joins, *, bias_at_start: bool = True
    ) -> tuple[Recurrent, dict[str, Any]]:
        """Return the recurrent connection that a Linear of PyTorch's is, and its tensors."""
        bias = connection.bias is not None
        tensors = {"recurrent.weight": connection.weight, "recurrent.bias": connection.bias}
        return Recurrent(bias=bias, bias_at_start=bias_at_start or not bias, joins=joins), tensors


def written_out(connection: nn.Linear | nn.Conv1d | nn.Conv2d, shape: tuple[int, ...]) -> tuple[Array, Array | None]:
    """Return a recurrent connection of a layer as a full one: the weight (n, n) and the bias (n), None without one.

    Where no kernel reaches, weights are 0.
    """
    size, alone = math.prod(shape), copy(connection)
    alone._parameters = {**connection._parameters, "bias": None}
    with torch.no_grad():
        sent = alone(torch.eye(size).view(size, *shape)).reshape(size, -1)  # what one neuron sends to each
        bias = connection.bias
        spread = None if bias is None else bias.reshape(-1, *(1,) * (len(shape) - 1)).expand(shape).reshape(-1)
    return sent.T.numpy(), None if spread is None else spread.numpy()


Rule = Callable[[Layer], None]


def is_hard(spike: Callable[[Tensor], Tensor], *, fires_at_zero: bool) -> bool:
    """Return whether a spike function is the hard threshold at 0, which is all that a served network computes."""
    tiny = 2.0**-126
    around = torch.tensor([[-1e3, -1.0, -tiny, 0.0, tiny, 1.0, 1e3]])
    expected = around >= 0 if fires_at_zero else around > 0
    with torch.no_grad():
        return bool(torch.equal(spike(around), expected.float()))
