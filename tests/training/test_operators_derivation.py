"""The gradients of a step that are derived from the equations are those that PyTorch's autograd finds, for any rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spikeserve.models.engines.torch.exponential import exponential
from spikeserve.models.engines.torch.network import HardThreshold
from spikeserve.models.neurons import NeuronLayer, NeuronState
from spikeserve.models.spec.neuron_parameters import NEURON_PARAMETERS
from spikeserve.models.spec.nodes import LI, LIF, CubaLIF, Recurrent, Spiking
from spikeserve.training.config import Surrogate
from spikeserve.training.fit.operators import plain
from spikeserve.training.fit.operators.derivation import CURRENT, FEEDBACK, SLOPE, TO_LEAVING, Rule, Step
from spikeserve.training.fit.operators.expressions import Expression, constant, evaluate, leaf, made
from spikeserve.training.fit.surrogate import DERIVATIVES, SurrogateThreshold
from tests.networks import FIRING, INTEGRATING, neurons
from tests.training.operator_cases import parse

SIZE = 64
hard = HardThreshold()
OPERATIONS: dict[str, Any] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "select": lambda spikes, fired, silent: torch.where(spikes > 0, fired, silent),
    "held": lambda spikes: spikes,
    "positive": torch.relu,
    "exponential": exponential,
    "abs": torch.abs,
    "sigmoid": torch.sigmoid,
    "nearest": lambda charged, threshold: torch.round(charged / threshold).clamp(min=1),
}


def compute(expression: Expression, operands: Sequence[Tensor]) -> Tensor:
    if expression.operation == "constant":
        return torch.tensor(expression.detail, dtype=torch.float64)
    if expression.operation == "fire":
        return hard.fire(operands[0], operands[1], expression.detail)
    value: Tensor = OPERATIONS[expression.operation](*operands)
    return value


@st.composite
def rules(draw: st.DrawFn) -> tuple[Rule, tuple[str, ...]]:
    node = parse(draw(st.sampled_from(FIRING + INTEGRATING).flatmap(lambda kind: neurons("neuron", kind))))
    names = [name for name in NEURON_PARAMETERS if getattr(node, name, None) is not None and name != "start"]
    trained = draw(st.lists(st.sampled_from(names), unique=True)) if names else []
    rule = Rule.of(node, trained, draw(st.sampled_from(list(DERIVATIVES))), draw(st.booleans()))
    return rule, tuple(trained)


@settings(max_examples=300, deadline=None)
@given(rules())
def test_the_derived_gradients_are_those_of_autograd(drawn: tuple[Rule, tuple[str, ...]]) -> None:
    rule, _ = drawn
    assert rule.surrogate is not None
    step, node = Step.of(rule), rule.node
    generator = torch.Generator().manual_seed(0)

    def values(low: float = -2.0, high: float = 2.0) -> Tensor:
        return (low + (high - low) * torch.rand(SIZE, dtype=torch.float64, generator=generator)).requires_grad_()

    parameters = {}
    for name, parameter in NEURON_PARAMETERS.items():
        low = 0.25 if name in ("tau", "threshold") else max(parameter.low, -1.0)
        parameters[name] = values(low, min(parameter.high, 2.0))
    current, feedback = values(), values()
    before = {name: values() for name in step.states}
    recurrent = isinstance(node, Spiking) and node.recurrent is not None
    threshold = SurrogateThreshold(rule.surrogate, 2.5, detach_reset=rule.detach_reset)
    layer = NeuronLayer[Tensor].of(node, parameters.__getitem__, threshold, lambda _, __: feedback)
    leaving, last = layer.step(NeuronState(**before), current, True)
    outputs = [leaving, *(getattr(last, name) for name in step.states)]
    arriving = [torch.randn(SIZE, dtype=torch.float64, generator=generator) for _ in outputs]
    inputs = {"current": current, **{name: before[name] for name in step.states}}
    inputs |= {"feedback": feedback} if recurrent else {}
    inputs |= {name: parameters[name] for name in step.trained}
    loss = torch.stack([(value * gradient).sum() for value, gradient in zip(outputs, arriving, strict=True)]).sum()
    wanted = torch.autograd.grad(loss, list(inputs.values()), allow_unused=True, materialize_grads=True)

    known: dict[Expression, Tensor] = {CURRENT: current.detach(), FEEDBACK: feedback.detach()}
    known |= {leaf(name): before[name].detach() for name in step.states}
    known |= {leaf(name): parameters[name].detach() for name in step.parameters}
    found = evaluate([step.leaving, *step.after, *step.stored], known, compute)
    for value, expected in zip(found, outputs, strict=False):
        assert torch.equal(value.expand(SIZE), expected)

    # The backward pass knows the parameters, what was stored and the gradients that arrive: nothing else.
    stored = dict(zip(step.stored, found[1 + len(step.states) :], strict=True))
    known = {leaf(name): parameters[name].detach() for name in step.parameters} | stored
    known |= {TO_LEAVING: arriving[0], SLOPE: torch.tensor(2.5, dtype=torch.float64)}
    known |= {leaf(f"gradient.{name}"): value for name, value in zip(step.states, arriving[1:], strict=True)}
    roots = {"current": step.to_current, **dict(zip(step.states, step.to_before, strict=True))}
    roots |= {"feedback": step.to_feedback} if step.to_feedback is not None else {}
    roots |= dict(zip(step.trained, step.to_trained, strict=True))
    gradients = dict(zip(roots, evaluate(list(roots.values()), known, compute), strict=True))
    for name, expected in zip(inputs, wanted, strict=True):
        torch.testing.assert_close(gradients[name].expand(SIZE), expected, rtol=1e-9, atol=1e-9)


def test_a_plain_lif_stores_one_value_a_step_and_a_readout_none() -> None:
    # The surrogate and the spike both follow from what is charged; a leaky integrator's gradient needs its decay only.
    lif = Step.of(Rule.of(LIF(name="a", decay=0.9), (), Surrogate.SIGMOID))
    assert lif.stored == (leaf("decay") * leaf("membrane") + CURRENT,)
    assert Step.of(Rule.of(LI(name="a", decay=0.9))).stored == ()


def test_a_synaptic_current_is_stored_only_where_its_decay_is_learned() -> None:
    node = CubaLIF(name="a", decay=0.9, syn_decay=0.5)
    assert len(Step.of(Rule.of(node, (), Surrogate.SIGMOID)).stored) == 1
    assert leaf("synapse") in Step.of(Rule.of(node, ("syn_decay",), Surrogate.SIGMOID)).stored


def test_a_learned_parameter_counts_where_the_node_says_that_it_is_neutral() -> None:
    node = LIF(name="a", decay=1.0)
    assert Step.of(Rule.of(node)).parameters == ("threshold",)
    assert Step.of(Rule.of(node, ("decay", "gain"))).parameters == ("decay", "gain", "threshold")
    learned = torch.tensor(1.0, requires_grad=True)
    parameters = {"decay": learned, "gain": torch.tensor(1.0), "drive": torch.tensor(0.0), "start": torch.tensor(0.0)}
    parameters["threshold"] = torch.tensor(9.0)
    output, last = plain.scan(node, parameters, torch.ones(3, 1, 1), 3, HardThreshold())
    assert output.sum() == 0
    # v = 1, d + 1, d * (d + 1) + 1, whose derivative at d = 1 is 2 d + 1 = 3.
    (gradient,) = torch.autograd.grad(last.membrane.sum(), learned)
    assert float(gradient) == 3.0


def test_a_recurrent_current_that_joins_the_input_shares_its_gradient() -> None:
    step = Step.of(Rule.of(LIF(name="a", decay=0.9, recurrent=Recurrent()), (), Surrogate.SIGMOID))
    assert step.to_feedback is step.to_current


def test_the_same_operation_of_the_same_operands_is_one_expression() -> None:
    a, b = leaf("a"), leaf("b")
    assert a + b is a + b
    assert a + b is not b + a
    assert 1 - a is constant(1.0) - a
    assert a**2 is a * a
    assert made("fire", a, b, detail=1) is not made("fire", a, b, detail=2)


def test_an_operation_that_no_backend_knows_is_refused() -> None:
    with pytest.raises(TypeError, match="no expression for"):
        torch.tanh(leaf("a"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="min is 1, expected 0"):
        leaf("a").clamp(min=1)
