"""Layers for the tests of the operators: a node, its parameters, and a run by the kernels or by plain PyTorch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from spikeserve.models.neurons import NeuronState, at_rest, program_of
from spikeserve.models.spec.neuron_parameters import NEURON_PARAMETERS
from spikeserve.models.spec.nodes import Fire, Neuron, Spiking
from spikeserve.models.spec.parameters import PER_NEURON, Shape
from spikeserve.models.spec.program import SPIKES
from spikeserve.training.config import Surrogate
from spikeserve.training.fit.operators import connect, dense, firing_rate, plain, scan
from spikeserve.training.fit.operators.derivation import Rule
from spikeserve.training.fit.operators.vector_code import step_of
from spikeserve.training.fit.surrogate import SurrogateThreshold


def parse(node: dict[str, Any]) -> Neuron:
    """Return a node of its JSON."""
    return TypeAdapter[Neuron](Neuron).validate_python({"name": "neuron", **node})


def dyadic(generator: torch.Generator, *shape: int, largest: int = 8) -> Tensor:
    """Return multiples of 1/8, whose sums are exact in any order."""
    return torch.randint(-largest, largest + 1, shape, generator=generator) / 8


def _program(states: dict[str, Any], step: list[str], parameters: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Neuron", "program": {"states": states, "step": step, "spikes": "s"}, "parameters": parameters}


SE_ADLIF = _program(
    {"v": 0.0, "w": 0.0},
    [
        "u = alpha * v + (1 - alpha) * (current - w)",
        "s = fire(u, threshold)",
        "v = u * (1 - hold(s))",
        "w = beta * w + (1 - beta) * (a * v + b * s)",
    ],
    {"alpha": "per_neuron", "beta": 0.9, "a": "per_neuron", "b": 1.0, "threshold": 0.125},
)
ADLIF_IN_A_LOOP = SE_ADLIF | {
    "program": SE_ADLIF["program"]
    | {"step": ["u = alpha * v + (1 - alpha) * ((current + 2 * feedback) - w)", *SE_ADLIF["program"]["step"][1:]]},
    "recurrent": {"bias": True},
}
MANY = _program(
    {"v": "start", "q": 0.0},
    [
        "u = minimum(maximum(v + exp(-abs(current)) * scale, -4), 4) / 2",
        "charged = select(q == 0, u, u * 0.5) + sqrt(q + 1) - trunc(q)",
        "s = fire_above(charged, start) * (q <= 2)",
        "v = charged - hold(s) * floor(scale + 1)",
        "q = q * 0.5 + s",
    ],
    {"start": "per_neuron", "scale": "per_neuron"},
)


@dataclass
class Case:
    """A Linear and a layer of neurons, with inputs (time_steps or 1, batch, inputs) of 0 and 1."""

    node: Neuron
    shape: Shape
    inputs: Tensor
    time_steps: int
    threshold: SurrogateThreshold
    connection: nn.Linear
    recurrent: nn.Linear | None
    parameters: dict[str, Tensor]
    state: NeuronState | None

    @classmethod
    def of(
        cls,
        node: Neuron,
        *,
        size: int = 19,
        batch: int = 3,
        time_steps: int = 5,
        inputs: int = 11,
        constant: bool = False,
        trained: Sequence[str] = (),
        begun: bool = False,
        surrogate: Surrogate = Surrogate.SIGMOID,
        slope: float = 2.0,
        detach_reset: bool = True,
        seed: int = 0,
    ) -> Case:
        """Return a case with random dyadic weights and inputs."""
        generator = torch.Generator().manual_seed(seed)
        connection = nn.Linear(inputs, size)
        recurrent = None
        if isinstance(node, Spiking) and node.recurrent is not None:
            recurrent = nn.Linear(size, size, bias=node.recurrent.bias)
        with torch.no_grad():
            for module in (connection, recurrent):
                for values in module.parameters() if module else ():
                    values.copy_(dyadic(generator, *values.shape, largest=4))
        parameters = {}
        for name, value in node.values().items():
            low, high = -0.5, 1.5
            if name in NEURON_PARAMETERS:
                low, high = max(NEURON_PARAMETERS[name].low, low), min(NEURON_PARAMETERS[name].high, high)
            drawn = low + (high - low) * torch.rand(size, generator=generator)
            if name in ("tau", "threshold", "sharpness"):
                drawn = 0.5 + drawn.abs()
            if name == "threshold" and getattr(node, "fire", None) is Fire.MULTIPLE:
                drawn += 8  # few spikes a step, so that their sums are exact
            tensor = drawn if value == PER_NEURON else torch.tensor(float(value))
            parameters[name] = tensor.requires_grad_(name in trained)
        state = None
        if begun:
            rest = at_rest(node, program_of(node), parameters.__getitem__, torch.zeros(batch, size))
            drawn_states = {
                name: dyadic(generator, batch, size).requires_grad_() for name in step_of(Rule.of(node)).states
            }
            state = {**rest, **drawn_states}
            if recurrent is not None:
                fired = torch.rand(batch, size, generator=generator) < 0.3
                state[SPIKES] = fired.float().requires_grad_()
        steps = (torch.rand(1 if constant else time_steps, batch, inputs, generator=generator) < 0.4).float()
        threshold = SurrogateThreshold(surrogate, slope, detach_reset=detach_reset)
        return cls(node, (size,), steps, time_steps, threshold, connection, recurrent, parameters, state)

    @property
    def leaves(self) -> dict[str, Tensor]:
        """What gradients are wanted of, by name."""
        found: dict[str, Tensor] = {f"connection.{name}": value for name, value in self.connection.named_parameters()}
        if self.recurrent is not None:
            found |= {f"recurrent.{name}": value for name, value in self.recurrent.named_parameters()}
        found |= {name: value for name, value in self.parameters.items() if value.requires_grad}
        if self.state is not None:
            found |= {f"state.{name}": value for name, value in self.state.items()}
        return found

    def run(self, *, compiled: bool) -> tuple[Tensor, NeuronState, dict[str, Tensor]]:
        """Return the output, the last state, and the gradients of a loss that depends on all of them."""
        if compiled:
            leaving, last = scan(
                self.node, self.parameters, connect(self.connection, self.inputs), self.time_steps, self.threshold,
                self.recurrent, self.state,
            )  # fmt: skip
            rate, output = firing_rate(leaving), dense(leaving)
        else:
            current = plain.connect(self.connection, self.inputs)
            output, last = plain.scan(
                self.node, self.parameters, current, self.time_steps, self.threshold, self.recurrent, self.state
            )
            rate = output.mean()
        generator = torch.Generator().manual_seed(1)
        loss = (output * torch.rand(output.shape, generator=generator).to(output)).sum() / 4 + 3 * rate
        for _, value in sorted(last.items()):
            loss = loss + (value * torch.rand(value.shape, generator=generator).to(value)).sum() / 8
        leaves = self.leaves
        gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
        return output.detach(), last, dict(zip(leaves, gradients, strict=True))


def assert_same_run(case: Case) -> None:
    """Assert that the kernels give the spikes of plain PyTorch to the bit, and its gradients but for rounding."""
    leaving, last, gradients = case.run(compiled=True)
    expected, expected_last, expected_gradients = case.run(compiled=False)
    assert torch.equal(leaving, expected)
    assert last.keys() == expected_last.keys()
    for name, wanted in expected_last.items():
        assert torch.equal(last[name], wanted), name
    for name, wanted in expected_gradients.items():
        scale = max(1e-3, float(wanted.abs().max()))
        difference = float((gradients[name] - wanted).abs().max())
        assert difference <= 1e-5 * scale, f"{name}: {difference} of {scale}"
        assert math.isfinite(scale)
