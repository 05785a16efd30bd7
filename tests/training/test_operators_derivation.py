"""The gradients of a step that are derived from the equations are those that PyTorch's autograd finds, for any rule."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from spikeserve.models.engines.torch.operations import HardThreshold, layer_of, operations
from spikeserve.models.spec.expressions import Expression, evaluate, leaf
from spikeserve.models.spec.neuron_parameters import NEURON_PARAMETERS
from spikeserve.models.spec.nodes import LIF, Neuron
from spikeserve.models.spec.program import SPIKES
from spikeserve.training.fit.operators import derivation, plain
from spikeserve.training.fit.surrogate import DERIVATIVES, SurrogateThreshold
from tests.networks import FIRING, INTEGRATING, neurons
from tests.training.operator_cases import parse

SIZE = 64
OPERATIONS: dict[str, Any] = {
    **operations(HardThreshold()),
    "sigmoid": torch.sigmoid,
    "nearest": lambda charged, threshold: torch.round(charged / threshold).clamp(min=1),
}


def compute(expression: Expression, operands: Sequence[Tensor]) -> Tensor:
    if expression.operation == "constant":
        return torch.tensor(expression.detail, dtype=torch.float64)
    return OPERATIONS[expression.operation](*operands)


@st.composite
def rules(draw: st.DrawFn, kind: str) -> tuple[Neuron, derivation.Rule, bool]:
    node = parse(draw(neurons("neuron", kind)))
    names = [name for name in node.values() if name != "start"]
    trained = tuple(draw(st.lists(st.sampled_from(names), unique=True))) if names else ()
    detached = draw(st.booleans())
    return (
        node,
        derivation.rule_of(node, trained, draw(st.sampled_from(list(DERIVATIVES))), detach_reset=detached),
        detached,
    )


@pytest.mark.parametrize("kind", FIRING + INTEGRATING)
@settings(max_examples=10)
@given(drawn=st.data())
def test_the_derived_gradients_are_those_of_autograd(kind: str, drawn: st.DataObject) -> None:
    node, rule, detached = drawn.draw(rules(kind))
    assert rule.surrogate is not None
    step = derivation.Step.of(rule)
    generator = torch.Generator().manual_seed(0)

    def values(low: float = -2.0, high: float = 2.0) -> Tensor:
        return (low + (high - low) * torch.rand(SIZE, dtype=torch.float64, generator=generator)).requires_grad_()

    parameters = {name: values() for name in rule.program.parameters}
    for name, parameter in NEURON_PARAMETERS.items():
        low = 0.25 if name in ("tau", "threshold") else max(parameter.low, -1.0)
        parameters[name] = values(low, min(parameter.high, 2.0))
    current, feedback = values(), values()
    before = {name: values() for name in step.states}
    recurrent = node.recurrent is not None
    threshold = SurrogateThreshold(rule.surrogate, 2.5, detach_reset=detached)
    learned = derivation.general(node, rule.trained)
    layer = layer_of(learned, parameters.__getitem__, threshold, (lambda _, __: feedback) if recurrent else None)
    layer = replace(layer, constant=partial(torch.tensor, dtype=torch.float64))
    leaving, _, last = layer.step({**before, SPIKES: None}, current, True)
    outputs = [leaving, *(last[name] for name in step.states)]
    arriving = [torch.randn(SIZE, dtype=torch.float64, generator=generator) for _ in outputs]
    inputs = {"current": current, **{name: before[name] for name in step.states}}
    inputs |= {"feedback": feedback} if recurrent else {}
    inputs |= {name: parameters[name] for name in step.trained}
    loss = torch.stack([(value * gradient).sum() for value, gradient in zip(outputs, arriving, strict=True)]).sum()
    wanted = torch.autograd.grad(loss, list(inputs.values()), allow_unused=True, materialize_grads=True)
    assume(all(value.isfinite().all() for value in wanted))

    known: dict[Expression, Tensor] = {derivation.CURRENT: current.detach(), derivation.FEEDBACK: feedback.detach()}
    known |= {leaf(name): before[name].detach() for name in step.states}
    known |= {leaf(name): parameters[name].detach() for name in step.parameters}
    found = evaluate([step.leaving, *step.after, *step.stored], known, compute)
    for value, expected in zip(found, outputs, strict=False):
        assert torch.equal(value.expand(SIZE), expected)

    # The backward pass knows the parameters, what was stored and the gradients that arrive: nothing else.
    stored = dict(zip(step.stored, found[1 + len(step.states) :], strict=True))
    known = {leaf(name): parameters[name].detach() for name in step.parameters} | stored
    known |= {derivation.TO_LEAVING: arriving[0], derivation.SLOPE: torch.tensor(2.5, dtype=torch.float64)}
    known |= {derivation.gradient_of(name): value for name, value in zip(step.states, arriving[1:], strict=True)}
    roots = {"current": step.to_current, **dict(zip(step.states, step.to_before, strict=True))}
    roots |= {"feedback": step.to_feedback} if step.to_feedback is not None else {}
    roots |= dict(zip(step.trained, step.to_trained, strict=True))
    gradients = dict(zip(roots, evaluate(list(roots.values()), known, compute), strict=True))
    for name, expected in zip(inputs, wanted, strict=True):
        torch.testing.assert_close(gradients[name].expand(SIZE), expected, rtol=1e-9, atol=1e-9)


def test_a_learned_parameter_counts_where_the_node_says_that_it_is_neutral() -> None:
    learned = torch.tensor(1.0, requires_grad=True)
    values = {"decay": learned} | {name: torch.tensor(float(name == "gain")) for name in ("gain", "drive", "start")}
    membranes = list[Tensor]()
    plain.scan(
        LIF(name="a", decay=1.0), values | {"threshold": torch.tensor(9.0)}, torch.ones(3, 1, 1), 3, HardThreshold(),
        None, membranes,
    )  # fmt: skip
    # v = 1, d + 1, d * (d + 1) + 1, whose derivative at d = 1 is 2 d + 1 = 3.
    (gradient,) = torch.autograd.grad(membranes[-1].sum(), learned)
    assert float(gradient) == 3.0
