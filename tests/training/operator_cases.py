"""Layers for the tests of the operators: a node, its parameters, and a run by the kernels or by plain PyTorch."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spikeserve.models.engines.torch.operations import Threshold, operations
from spikeserve.models.spec.neuron_parameters import NEURON_PARAMETERS
from spikeserve.models.spec.nodes import Neuron, ProgramBase, ProgramNeuron, Spiking
from spikeserve.models.spec.parameters import PER_NEURON, Shape
from spikeserve.models.spec.program import FUNCTIONS
from spikeserve.models.spec.rules import Fire
from spikeserve.training.config import Surrogate
from spikeserve.training.fit import operators
from spikeserve.training.fit.operators import connect, dense, firing_rate, plain
from spikeserve.training.fit.surrogate import SurrogateThreshold
from tests.networks import node_of


class SoftThreshold:
    """Fires a fraction of a spike, sigmoid(slope * (charged - threshold)), and resets by it: a gradient to check."""

    detach_reset = False

    def __init__(self, slope: float = 10.0) -> None:
        self.slope = slope

    def fire(self, operation: str, charged: Tensor, threshold: Tensor) -> Tensor:  # noqa: ARG002
        return torch.sigmoid(self.slope * (charged - threshold))

    def select(self, condition: Tensor, yes: Tensor, no: Tensor) -> Tensor:
        return condition * yes + (1 - condition) * no


def parse(node: dict[str, Any]) -> Neuron:
    """Return a node of its JSON."""
    return node_of({"name": "neuron", **node})


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
# It divides by what the membrane is, so that a current of -0 would count; v - 1 and a silent current are 0 exactly.
DIVIDES_IN_A_LOOP = _program(
    {"v": 0.0},
    [
        "grown = exp((v - 1) / sharpness) + current / (abs(v - current) + 0.5)",
        "u = 0.875 * v + current + feedback / (v * v + 1) + grown * 0.125",
        "s = fire(u, 1)",
        "v = u * (1 - hold(s))",
    ],
    {"sharpness": "per_neuron"},
) | {"recurrent": {}}


VALUE: dict[str, Any] = {"reset": "value", "reset_value": "per_neuron"}
LIF: dict[str, Any] = {"type": "LIF", "decay": 0.875}
# Each operation and each surrogate at least once, with the reset's gradient and without. That the gradients of each
# rule are derived rightly, test_operators_derivation.py sees.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": (LIF, {}),
    "learned": (LIF | {"decay": "per_neuron", "threshold": 0.75}, {"trained": ("decay", "threshold")}),
    "constant current": (LIF, {"constant": True}),
    "attached reset": (
        LIF | VALUE,
        {"detach_reset": False, "trained": ["reset_value"], "surrogate": Surrogate.SUPERSPIKE},
    ),
    "several spikes": (
        {"type": "IF", "threshold": 4.0, "fire": "multiple", "gain": 4.0},
        {"surrogate": Surrogate.ARCTAN, "trained": ["threshold"]},
    ),
    "late and floored": (
        {"type": "LIF", "charge": "relax", "tau": 2.0, "leak": 0.125, "reset_timing": "corrected", "floor": -1.0},
        {"surrogate": Surrogate.TRIANGULAR, "trained": ("tau", "leak")},
    ),
    "synaptic": (
        {"type": "CubaLIF", "decay": 0.875, "syn_decay": 0.5},
        {"surrogate": Surrogate.FAST_SIGMOID, "trained": ("decay", "syn_decay")},
    ),
    "adaptive": (
        {"type": "ALIF", "decay": 0.875, "adapt_decay": 0.9375, "adapt_gain": 0.125, "recurrent": {}},
        {"trained": ("decay", "adapt_decay", "adapt_gain")},
    ),
    "adaptive by membrane and spikes": (
        {"type": "AdLIF", "decay": "per_neuron", "adapt_decay": 0.9, "threshold": 0.25, "recurrent": {}}
        | {"adapt_coupling": "per_neuron", "adapt_spike": 1.0},
        {"trained": ("decay", "adapt_decay", "adapt_coupling", "adapt_spike"), "detach_reset": False},
    ),
    "refractory": (
        LIF | {"decay": "per_neuron", "threshold": 0.25, "refractory": 2.0, "recurrent": {}},
        {"trained": ("decay",)},
    ),
    "adaptive exponential": (
        {"type": "CubaALIF", "synapse": "jump", "syn_rate": 0.25, "charge": "exponential", "rate": 0.25}
        | {"sharpness": "per_neuron", "critical": 1.0, "reset": "value", "recurrent": {"joins": "charge"}}
        | {"adapt": "current", "adapt_rate": 0.25, "adapt_coupling": 0.5, "adapt_gain": 0.25},
        {"trained": ("adapt_rate", "adapt_coupling", "adapt_gain", "sharpness", "critical")},
    ),
    "recurrent": (LIF | {"recurrent": {}}, {}),
    "recurrent with a late bias": (
        LIF | {"recurrent": {"bias": True, "bias_at_start": False, "joins": "charge"}, "gain": 0.5},
        {"constant": True, "trained": ["decay", "gain"]},
    ),
    "recurrent with several spikes": ({"type": "IF", "threshold": 4.0, "fire": "multiple", "recurrent": {}}, {}),
    "readout": ({"type": "LI", "decay": 0.875, "start": 0.5}, {"trained": ("decay", "start")}),
    "threshold": ({"type": "Threshold", "threshold": 0.5, "fire": "above_threshold"}, {"trained": ("threshold",)}),
    "program": (SE_ADLIF, {"trained": ("alpha", "beta", "a", "b")}),
    "program in a loop": (ADLIF_IN_A_LOOP, {"trained": ("alpha", "a")}),
    "program that divides in a loop": (DIVIDES_IN_A_LOOP, {"trained": ["sharpness"]}),
    "program of many operations": (MANY, {"trained": ("start", "scale"), "surrogate": Surrogate.ARCTAN}),
}


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
        surrogate: Surrogate = Surrogate.SIGMOID,
        slope: float = 2.0,
        detach_reset: bool = True,
        seed: int = 0,
    ) -> "Case":
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
        steps = (torch.rand(1 if constant else time_steps, batch, inputs, generator=generator) < 0.4).float()
        threshold = SurrogateThreshold(surrogate, slope, detach_reset=detach_reset)
        return cls(node, (size,), steps, time_steps, threshold, connection, recurrent, parameters)

    @property
    def leaves(self) -> dict[str, Tensor]:
        """What gradients are wanted of, by name."""
        modules = nn.ModuleDict(
            {"connection": self.connection} | ({"recurrent": self.recurrent} if self.recurrent else {})
        )
        trained = {name: value for name, value in self.parameters.items() if value.requires_grad}
        return dict(modules.named_parameters()) | trained

    def run(self, *, compiled: bool, scan: Callable[..., Tensor] = plain.scan) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the output, and the gradients of a loss that depends on all of it and on the firing rate.

        What is not compiled steps by `scan`.
        """
        if compiled:
            current = connect(self.connection, self.inputs)
            leaving = operators.scan(
                self.node, self.parameters, current, self.time_steps, self.threshold, self.recurrent
            )
            rate, output = firing_rate(leaving), dense(leaving)
        else:
            current = plain.connect(self.connection, self.inputs)
            output = scan(self.node, self.parameters, current, self.time_steps, self.threshold, self.recurrent)
            rate = output.mean()
        generator = torch.Generator().manual_seed(1)
        loss = (output * torch.rand(output.shape, generator=generator).to(output)).sum() / 4 + 3 * rate
        leaves = self.leaves
        gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
        return output.detach(), dict(zip(leaves, gradients, strict=True))


def scan_by_hand(
    node: Neuron,
    parameters: Mapping[str, Tensor],
    current: Tensor,
    _: int,
    threshold: Threshold,
    recurrent: nn.Linear | None,
) -> Tensor:
    """Run a program's lines as the Python that they read as, on tensors, without what reads and derives programs."""
    assert isinstance(node, ProgramBase)
    lines = [re.sub(r"(?<![\w.])\d[\d.]*(e[+-]?\d+)?", r"number(\g<0>)", line) for line in node.program.step]
    step = "\n".join(re.sub("= (.*)", r"= (\1) * one", line, count=1) for line in lines)  # a comparison's truth as 1.0
    of_torch, begins = operations(threshold), node.recurrent is not None and node.recurrent.bias_at_start
    names: dict[str, Any] = dict.fromkeys("ab", torch.zeros(()))  # of lines that nothing needs
    number, one = (lambda value: torch.tensor(value, dtype=torch.float32).to(current)), torch.ones(()).to(current)
    names |= {**parameters, "number": number, "one": one, **{name: of_torch[name] for name in FUNCTIONS}}
    for state, start in node.program.states.items():
        names[state] = torch.zeros_like(current[0]) + (parameters[start] if isinstance(start, str) else start)
    bias = recurrent.bias if recurrent is not None and recurrent.bias is not None and begins else torch.zeros(())
    feedback, left = bias.to(current).expand_as(current[0]), list[Tensor]()
    for each in current:
        names |= {"current": each, "feedback": feedback}
        exec(step, names)  # noqa: S102  (lines of our own)
        left.append(names[node.program.spikes if isinstance(node, ProgramNeuron) else node.program.output])
        feedback = feedback if recurrent is None else recurrent(left[-1].to(each)) + 0.0  # 0.0: never -0
    return torch.stack(left)


def assert_same_run(case: Case, scan: Callable[..., Tensor] = plain.scan) -> None:
    """Assert that the kernels give the spikes of plain PyTorch to the bit, and its gradients but for rounding."""
    leaving, gradients = case.run(compiled=True)
    expected, expected_gradients = case.run(compiled=False, scan=scan)
    assert torch.equal(leaving, expected)
    for name, wanted in expected_gradients.items():
        scale = max(1e-3, float(wanted.abs().max()))
        difference = float((gradients[name] - wanted).abs().max())
        assert difference <= 1e-5 * scale < math.inf, f"{name}: {difference} of {scale}"
