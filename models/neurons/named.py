"""The named neurons as programs: their equations, in one place and once.

One step of one neuron, in this order; i is the current that arrives, j the synaptic current of a neuron that has one
(otherwise j = i), v the membrane, s the spikes, a the adaptation and h the threshold of a neuron that adapts:

    synapse  j = syn_decay * j + syn_gain * i
    charge   u = decay * v + gain * j + drive
    adapt    h = threshold + adapt_gain * a
    fire     s = 1 where u >= h
    reset    v = u - h * s
    floor    v = max(v - floor, 0) + floor
    hold     v stays that of the step before and s = 0 where q > 0; then q = refractory where s, else max(q - 1, 0)
    adapt    a = adapt_decay * a + adapt_spike * s, which counts from the next step on

Those are the rules that stand first; docs/spec.md has a table of each rule's equations, in the order in which they
round, with the framework that computes so. Before the first step v = start, all other states are 0 (an adaptation that
relaxes is the threshold) and no neuron has fired. A reset of another timing than "same_step" hangs on whether the
membrane of the step before fires, as in snnTorch.

A parameter that would change no bit, such as a gain of 1, is no part of the program. A reset hears its spikes through
`hold`, which stops their gradients. With `detach_reset` off there is no `hold`, and the gradients pass.

Sources: a threshold that rises, Bellec et al., 2018 (LSNN; adapt_gain is their beta) and 2020 (e-prop); the exponential
charge, Fourcaud-Trocmé et al., 2003; with a current that opposes it, Brette and Gerstner, 2005 (AdEx: adapt_coupling is
their a, adapt_gain their b, sharpness their slope factor); the AdLIF, Baronig et al., 2025 (adapt_coupling is their a,
adapt_spike their b, both with their factor q), after Bittar and Garner, 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar
from weakref import finalize

from spikeserve.models.spec.expressions import (
    Expression,
    constant,
    exp,
    fire,
    fire_above,
    fire_multiple,
    hold,
    leaf,
    maximum,
    select,
    trunc,
)
from spikeserve.models.spec.neuron_parameters import NEUTRAL
from spikeserve.models.spec.nodes import RF, AdLIF, Alpha, Integrating, Leaky, Neuron, ProgramBase, Threshold
from spikeserve.models.spec.parameters import Parameter
from spikeserve.models.spec.program import CURRENT, FEEDBACK, Program
from spikeserve.models.spec.rules import Adapt, Charge, Fire, Joins, Reset, ResetTiming, Synapse

FIRES: Mapping[Fire, Callable[[Expression, Expression], Expression]] = {
    Fire.AT_THRESHOLD: fire,
    Fire.ABOVE_THRESHOLD: fire_above,
    Fire.MULTIPLE: fire_multiple,
}
ZERO = constant(0.0)


@dataclass
class Step:
    """A step that is being written: the node's parameters, and the states that it turns out to have."""

    values: Mapping[str, Parameter]
    starts: dict[str, Expression] = field(default_factory=dict)
    after: dict[str, Expression] = field(default_factory=dict)

    def __call__(self, name: str) -> Expression:
        """Ask for a parameter."""
        return leaf(name)

    def has(self, name: str) -> bool:
        """Tell whether the node has a parameter that changes anything."""
        return name in self.values and self.values[name] != NEUTRAL[name]

    def times(self, name: str, value: Expression) -> Expression:
        """Multiply by a parameter, unless that is 1."""
        return leaf(name) * value if self.has(name) else value

    def plus(self, name: str, value: Expression) -> Expression:
        """Add a parameter, unless that is 0."""
        return value + leaf(name) if self.has(name) else value

    def state(self, name: str, start: Expression = ZERO) -> Expression:
        """Add a state, as it was after the step before."""
        self.starts[name] = start
        return leaf(name)


# A charge, of (step, membrane, current, what opposes it or None).
ChargeRule: TypeAlias = Callable[[Step, Expression, Expression, Expression | None], Expression]


def _decay(of: Step, v: Expression, j: Expression, opposing: Expression | None) -> Expression:
    arriving = of.times("gain", j)
    if opposing is not None:
        arriving = (1.0 - of("decay")) * (arriving - opposing)
    return of.plus("drive", of.times("decay", v) + arriving)


def _truncated(of: Step, v: Expression, j: Expression, _: Any) -> Expression:
    left = of.times("decay", v)
    # Training passes its gradient through, as if nothing were dropped.
    return of.plus("drive", (left + hold(trunc(left) - left)) + of.times("gain", j))


def _euler(of: Step, v: Expression, j: Expression, _: Any) -> Expression:
    return v + of("rate") * ((of("leak") - v) + of.times("gain", j))


def _euler_input_first(of: Step, v: Expression, j: Expression, _: Any) -> Expression:
    return v + of("rate") * ((of.times("gain", j) + of("leak")) - v)


def _relax(of: Step, v: Expression, j: Expression, _: Any) -> Expression:
    return v + _share(of, of.times("gain", j) - (v - of("leak")))


def _leak_then_add(of: Step, v: Expression, j: Expression, _: Any) -> Expression:
    return (v - _share(of, v - of("leak"))) + of.times("gain", j)


def _quadratic(of: Step, v: Expression, j: Expression, _: Any) -> Expression:
    grown = of("curvature") * (v - of("leak")) * (v - of("critical"))
    return v + _share(of, of.times("gain", j) + grown)


def _exponential(of: Step, v: Expression, j: Expression, opposing: Expression | None) -> Expression:
    driven = ((of("leak") - v) + _growth(of, v)) + of.times("gain", j)
    return v + of("rate") * (driven if opposing is None else driven - opposing)


def _exponential_input_first(of: Step, v: Expression, j: Expression, _: Any) -> Expression:
    return v + (((of.times("gain", j) + of("leak")) - v) + _growth(of, v)) / of("tau")


def _filter(of: Step, v: Expression, j: Expression, _: Any) -> Expression:
    x = of.times("gain", j)
    return (v - of("rate") * ((1.0 - x) * v)) + x


def _share(of: Step, difference: Expression) -> Expression:
    """Take the part of a difference that one step takes: divided by tau, or times the rate."""
    return difference / of("tau") if "tau" in of.values else of("rate") * difference


def _growth(of: Step, v: Expression) -> Expression:
    return of("sharpness") * exp((v - of("critical")) / of("sharpness"))


def _rotate(of: Step, v: Expression, i: Expression, _: Any) -> Expression:
    x, cosine, sine = of.state("real"), of("cosine"), of("sine")
    of.after["real"] = of.plus("drive", of.times("decay", x * cosine - v * sine) + of.times("gain", i))
    return of.times("decay", x * sine + v * cosine)


CHARGES: Mapping[Charge, ChargeRule] = {
    Charge.DECAY: _decay,
    Charge.TRUNCATED: _truncated,
    Charge.EULER: _euler,
    Charge.EULER_INPUT_FIRST: _euler_input_first,
    Charge.RELAX: _relax,
    Charge.LEAK_THEN_ADD: _leak_then_add,
    Charge.QUADRATIC: _quadratic,
    Charge.EXPONENTIAL: _exponential,
    Charge.EXPONENTIAL_INPUT_FIRST: _exponential_input_first,
    Charge.FILTER: _filter,
}


def _synapse(of: Step, rule: Synapse, i: Expression, feedback: Expression | None) -> Expression:
    """Let a synaptic current flow, and give what the membrane takes of it."""
    j, arriving = of.state("synapse"), of.times("syn_gain", i)

    def joined(value: Expression) -> Expression:
        return value if feedback is None else value + feedback

    if rule is Synapse.JUMP:
        now = joined(j + arriving)
        of.after["synapse"] = now - of("syn_rate") * now
        return now
    if rule is Synapse.LATE_JUMP:
        of.after["synapse"] = joined((j - of("syn_rate") * j) + arriving)
        return j
    if rule is Synapse.EULER:
        now = j + of("syn_rate") * (arriving - j)
    elif rule is Synapse.SUM_THEN_DECAY:
        now = of("syn_decay") * (j + arriving)
    else:
        now = joined(of("syn_decay") * j + arriving)
    of.after["synapse"] = now
    return now


Arguments = ParamSpec("Arguments")
Made = TypeVar("Made")


def once(make: Callable[Concatenate[Neuron, Arguments], Made]) -> Callable[Concatenate[Neuron, Arguments], Made]:
    """Let a function make what it makes of a node once, and keep it as long as the node is there.

    A node is known by its identity: to compare its many fields takes as long as a small layer's step.
    """
    made: dict[tuple[object, ...], Made] = {}

    @wraps(make)
    def find(node: Neuron, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Made:
        key = (id(node), *args, *kwargs.values())
        if key not in made:
            made[key] = make(node, *args, **kwargs)
            finalize(node, made.pop, key, None).atexit = False
        return made[key]

    return find


@once
def program_of(node: Neuron, *, detach_reset: bool = True) -> Program:
    """Write a neuron's step as a program, once for each node."""
    if isinstance(node, ProgramBase):
        program = node.read_program
        return program.of_positive_zeros if program.sees_signs else program
    detached = hold if detach_reset else lambda spikes: spikes
    step = Step(node.values())
    if isinstance(node, Alpha):
        return _alpha(step, node, detached)
    current, feedback = leaf(CURRENT), leaf(FEEDBACK) if node.recurrent is not None else None
    if feedback is not None and node.recurrent is not None and node.recurrent.joins is Joins.INPUT:
        current, feedback = current + feedback, None
    v = step.state("membrane", leaf("start") if step.has("start") else ZERO)
    if isinstance(node, Integrating):
        step.after["membrane"] = charged = _charged(step, node, v, current, feedback, None)
        return _program(step, charged, spiking=False)
    threshold, opposing = leaf("threshold"), None
    adapt = getattr(node, "adapt", None)
    if isinstance(node, AdLIF):
        opposing = step.state("adaptation")
    elif adapt is not None:
        a = step.state("adaptation", threshold if adapt is Adapt.RELAX else ZERO)
        opposing = a if adapt is Adapt.CURRENT else None
        threshold = _raised(step, adapt, a)
    fires, reset = FIRES[node.fire], _Reset(node.reset, node.reset_timing, threshold)
    late = detached(fires(v, threshold)) if reset.is_late else ZERO
    charged = _charged(step, node, reset.before(v, late), current, feedback, opposing)
    charged = reset.charged(charged, late)
    spikes = fires(charged, threshold)
    after = reset.after(charged, detached(spikes), late)
    if node.floor is not None:
        after = maximum(after - step("floor"), 0.0) + step("floor")
    if node.refractory is not None:
        q = step.state("waiting")
        waiting = q > 0.0
        spikes, after = select(waiting, 0.0, spikes), select(waiting, v, after)
        step.after["waiting"] = hold(select(spikes > 0.0, step("refractory"), maximum(q - waiting, 0.0)))
    step.after["membrane"] = after
    if isinstance(node, AdLIF):
        follows = step("adapt_coupling") * after + step.times("adapt_spike", spikes)
        step.after["adaptation"] = step("adapt_decay") * leaf("adaptation") + (1.0 - step("adapt_decay")) * follows
    elif adapt is not None:
        step.after["adaptation"] = _adapted(step, adapt, leaf("adaptation"), threshold, v, spikes)
    return _program(step, spikes, spiking=True)


def _program(step: Step, leaving: Expression, *, spiking: bool) -> Program:
    after = {name: step.after[name] for name in step.starts}
    return Program(step.starts, after, leaving, after["membrane"], spiking)


def _charged(
    step: Step,
    node: Neuron,
    v: Expression,
    current: Expression,
    feedback: Expression | None,
    opposing: Expression | None,
) -> Expression:
    if isinstance(node, Threshold):
        return current
    synapse = getattr(node, "synapse", None)
    if synapse is not None:
        current, feedback = _synapse(step, synapse, current, feedback), None
    charge = CHARGES[node.charge] if isinstance(node, Leaky) else _rotate if isinstance(node, RF) else _decay
    charged = charge(step, v, current, opposing)
    return charged if feedback is None else charged + feedback


def _raised(step: Step, adapt: Adapt, a: Expression) -> Expression:
    """Give the threshold of this step, of neurons whose adaptation is a."""
    base = leaf("threshold")
    if adapt is Adapt.COUNT:
        return base + step("adapt_gain") * a
    return a + step("adapt_rate") * (base - a) if adapt is Adapt.RELAX else base


def _adapted(
    step: Step, adapt: Adapt, a: Expression, threshold: Expression, v: Expression, spikes: Expression
) -> Expression:
    """Give the adaptation after a step; no gradient is stopped here, so that training sees far back."""
    if adapt is Adapt.COUNT:
        return step("adapt_decay") * a + step.times("adapt_spike", spikes)
    if adapt is Adapt.RELAX:
        return threshold + step("adapt_gain") * spikes
    relaxed = a + step("adapt_rate") * (step("adapt_coupling") * (v - step("leak")) - a)
    return relaxed + step("adapt_gain") * spikes


@dataclass(frozen=True)
class _Reset:
    """When a spike changes the membrane, and how: the three places where one can."""

    rule: Reset
    timing: ResetTiming
    threshold: Expression

    @property
    def is_late(self) -> bool:
        """Whether it asks for the spikes that the membrane of the step before gives."""
        return self.timing is not ResetTiming.SAME_STEP

    def before(self, membrane: Expression, late: Expression) -> Expression:
        """Give the membrane that will charge."""
        replaces = self.rule is Reset.VALUE and self.timing in (ResetTiming.NEXT_STEP, ResetTiming.CORRECTED)
        return select(late, leaf("reset_value"), membrane) if replaces else membrane

    def charged(self, charged: Expression, late: Expression) -> Expression:
        """Give the membrane that will fire."""
        if self.rule is Reset.SUBTRACT and self.is_late:
            return charged - self.threshold * late
        replaces = self.timing in (ResetTiming.NEXT_STEP_CHARGED, ResetTiming.CORRECTED_CHARGED)
        return select(late, leaf("reset_value"), charged) if replaces else charged

    def after(self, charged: Expression, spikes: Expression, late: Expression) -> Expression:
        """Give the membrane that remains."""
        corrected = self.timing in (ResetTiming.CORRECTED, ResetTiming.CORRECTED_CHARGED)
        if self.rule is Reset.NONE or (self.is_late and not corrected):
            return charged
        new = spikes - late if corrected else spikes
        if self.rule is Reset.SUBTRACT:
            return charged - self.threshold * new
        # Where only the late one is 1 the difference is added, as snnTorch does.
        value = leaf("reset_value")
        return charged - new * (charged - value) if corrected else select(new, value, charged)


def _alpha(step: Step, node: Alpha, detached: Callable[[Expression], Expression]) -> Program:
    current, threshold = leaf(CURRENT), leaf("threshold")
    u, j, k = step.state("membrane"), step.state("synapse"), step.state("inhibition")
    late = detached(FIRES[node.fire](u, threshold))
    excites, inhibits = step("exc_decay") * j + current, step("inh_decay") * k - current
    membrane = step.times("gain", excites + inhibits)
    if node.reset is not Reset.NONE:
        subtracts = node.reset is Reset.SUBTRACT
        excites = excites - (threshold if subtracts else excites) * late
        inhibits = inhibits - inhibits * late
        membrane = membrane + k * late if subtracts else membrane - membrane * late
    step.after |= {"membrane": membrane, "synapse": excites, "inhibition": inhibits}
    return _program(step, FIRES[node.fire](membrane, threshold), spiking=True)
