"""The neuron's equations as vector code: the rules of `models.neurons`, applied to values in registers.

The rules of that module are written for anything that has +, -, * and /. Here that is a vector of LLVM code on its way
into a kernel, so that the event engine steps neurons by the very equations of all others. Which rule a layer follows is
known only when a kernel runs: each place where rules differ is a switch between them. As all neurons of a layer take
the same branch, it is always predicted: a kernel compiled for one rule alone was measured to be 0 to 5 % faster, and
takes seconds to compile for each rule that a bundle brings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from llvmlite import ir
from numba.core import types

from spikeserve.models.engines.event.vectors import LANES, Code, intrinsic, list_places
from spikeserve.models.neurons import (
    ADAPTATIONS,
    CHARGES,
    RESETS,
    SYNAPSES,
    AlphaNeuron,
    Needed,
    NeuronState,
    Refractory,
    ResetRule,
    adapts,
    feedback_joins_charge,
    has_inhibition,
    has_synapse,
    refracts,
)
from spikeserve.models.spec.exponential import HIGHEST, LOWEST, parts
from spikeserve.models.spec.neuron_parameters import ROWS
from spikeserve.models.spec.nodes import (
    LEAKS,
    Adapt,
    Charge,
    Fire,
    Leaky,
    Neuron,
    Reset,
    ResetTiming,
    Spiking,
    Synapse,
    Threshold,
)

SYNAPSE_CASES: tuple[Synapse | None, ...] = (None, *Synapse)
CHARGE_CASES: tuple[tuple[Charge, str] | None, ...] = (
    *((charge, parameter) for charge, parameters in LEAKS.items() for parameter in parameters),
    None,  # a Threshold's, which has no membrane
)
FIRE_CASES = tuple(Fire)
ADAPT_CASES: tuple[Adapt | None, ...] = (None, *Adapt)
RESET_CASES = tuple(
    sorted(
        ((reset, timing) for reset, timings in RESETS.items() for timing in timings),
        key=lambda case: case[1] is not ResetTiming.SAME_STEP,
    )
)

EXPONENT_BIAS, MANTISSA_BITS = 1023, 52  # of a float64
_DOUBLES, _WIDE = ir.VectorType(ir.DoubleType(), LANES), ir.VectorType(ir.IntType(64), LANES)

# A plain layer's cases come first, so that they keep their numbers where no others are told apart.
PLAIN_FIRES = FIRE_CASES[:2]
PLAIN_RESETS = RESET_CASES[: len(Reset)]
PLAIN_CASES = tuple((fire, reset) for fire in PLAIN_FIRES for reset in PLAIN_RESETS)
ALPHA_CASES = tuple((fire, reset) for fire in PLAIN_FIRES for reset in Reset)


class Rule(NamedTuple):
    """Which case a layer follows at each place where rules differ."""

    plain: int  # 0, or the number of a plain LIF's case and 1
    synapse: int
    charge: int
    fire: int
    reset: int
    floor: int
    adaptive: int
    refractory: int
    alpha: int  # 0, or the number of an Alpha's case and 1


def rule_of(node: Neuron) -> Rule:
    """Return the rule of a layer; one that does not fire takes any, as its threshold is never reached."""
    synapse = node.synapse if has_synapse(node) else None
    charge: tuple[Charge, str] | None = CHARGE_CASES[0]
    if isinstance(node, Leaky):
        charge = (node.charge, next(name for name in LEAKS[node.charge] if getattr(node, name) is not None))
    elif isinstance(node, Threshold):
        charge = None
    fire, reset, floor, last = Fire.AT_THRESHOLD, (Reset.NONE, ResetTiming.SAME_STEP), False, False
    adapt = node.adapt if adapts(node) else None
    if isinstance(node, Spiking):
        fire, reset = node.fire, (node.reset, node.reset_timing)
        floor, last = node.floor is not None, feedback_joins_charge(node)
    alpha = 0
    if has_inhibition(node):
        synapse, reset, alpha = Synapse.DECAY, RESET_CASES[0], 1 + ALPHA_CASES.index((node.fire, node.reset))
    plain = synapse is None and charge == CHARGE_CASES[0] and not (floor or last or adapt or refracts(node))
    return Rule(
        plain=1 + PLAIN_CASES.index((fire, reset)) if plain and (fire, reset) in PLAIN_CASES else 0,
        synapse=SYNAPSE_CASES.index(synapse),
        charge=CHARGE_CASES.index(charge),
        fire=FIRE_CASES.index(fire),
        reset=RESET_CASES.index(reset),
        floor=int(floor),
        adaptive=ADAPT_CASES.index(adapt),
        refractory=int(refracts(node)),
        alpha=alpha,
    )


@dataclass(frozen=True)
class Vector:
    """A vector in registers; each operation rounds by itself, as no flag of LLVM's allows anything else."""

    code: Code
    value: Any

    def __add__(self, other: Vector) -> Vector:
        return Vector(self.code, self.code.builder.fadd(self.value, other.value))

    def __sub__(self, other: Vector) -> Vector:
        return Vector(self.code, self.code.builder.fsub(self.value, other.value))

    def __rsub__(self, number: float) -> Vector:
        return VectorArithmetic().constant(self, number) - self

    def __mul__(self, other: Vector) -> Vector:
        return Vector(self.code, self.code.builder.fmul(self.value, other.value))

    def __truediv__(self, other: Vector) -> Vector:
        return Vector(self.code, self.code.builder.fdiv(self.value, other.value))


class VectorArithmetic:
    """Firing as vector code."""

    def fire(self, charged: Vector, threshold: Vector, rule: Fire) -> Vector:
        """Return 1.0 where `charged` reaches `threshold` (or passes it), or how often it does, else 0.0."""
        code, zero = charged.code, self.constant(charged, 0.0)
        if rule is Fire.MULTIPLE:
            often = code.call("llvm.trunc", (charged / threshold).value)
            return self.where(self.compare(">", charged, zero), Vector(code, often), zero)
        reached = self.compare(">=" if rule is Fire.AT_THRESHOLD else ">", charged, threshold)
        return self.where(reached, self.constant(charged, 1.0), zero)

    def select(self, spikes: Vector, fired: Vector, silent: Vector) -> Vector:
        """Return `fired` where there is a spike, else `silent`."""
        return self.where(self.compare(">", spikes, self.constant(spikes, 0.0)), fired, silent)

    def held(self, spikes: Vector) -> Vector:
        """Return the spikes: there is no gradient to hold back."""
        return spikes

    def positive(self, values: Vector) -> Vector:
        """Return the values, and 0 in place of those that are less."""
        zero = self.constant(values, 0.0)
        return self.where(self.compare(">", values, zero), values, zero)

    def waiting(self, counter: Vector) -> Vector:
        """Return 1 where a counter is above 0, else 0."""
        return self.fire(counter, self.constant(counter, 0.0), Fire.ABOVE_THRESHOLD)

    def still(self, values: Vector) -> Vector:
        """Return the values: there is no gradient to hold back."""
        return values

    def exponential(self, values: Vector) -> Vector:
        """Return e to the power of the values; 2**k is made of k as the exponent of a float64."""
        code, builder = values.code, values.code.builder
        lowest, highest = (self.constant(values, bound) for bound in (LOWEST, HIGHEST))
        c = self.where(self.compare(">", values, lowest), values, lowest)
        c = self.where(self.compare("<", c, highest), c, highest)
        wide = Vector(code, builder.fpext(c.value, _DOUBLES))
        p, k = parts(
            wide,
            lambda number: self.constant(wide, number),
            lambda given: Vector(code, code.call("llvm.floor", given.value)),
        )
        exponent = builder.add(builder.fptosi(k.value, _WIDE), ir.Constant(_WIDE, [EXPONENT_BIAS] * LANES))
        power = builder.bitcast(builder.shl(exponent, ir.Constant(_WIDE, [MANTISSA_BITS] * LANES)), _DOUBLES)
        found = Vector(code, builder.fptrunc((p * Vector(code, power)).value, values.value.type))
        return self.where(builder.fcmp_unordered("uno", values.value, values.value), values, found)

    def constant(self, like: Vector, number: float) -> Vector:
        """Return a vector of one number."""
        return Vector(like.code, ir.Constant(like.value.type, [number] * LANES))

    def compare(self, operator: str, first: Vector, second: Vector) -> Any:
        """Return a mask."""
        return first.code.builder.fcmp_ordered(operator, first.value, second.value)

    def where(self, mask: Any, yes: Vector, no: Vector) -> Vector:
        """Return one or the other."""
        return Vector(yes.code, yes.code.builder.select(mask, yes.value, no.value))


Case = TypeVar("Case")


def _chosen(
    code: Code, chosen: Any, cases: Sequence[Case], give: Callable[[Case], tuple[Vector, ...]]
) -> tuple[Vector, ...]:
    """Return what is given for the case of that number; the first one stands for numbers that there are not."""
    builder = code.builder
    blocks = [builder.append_basic_block("case") for _ in cases]
    done = builder.append_basic_block("chosen")
    switch = builder.switch(chosen, blocks[0])
    for number, block in enumerate(blocks[1:], start=1):
        switch.add_case(chosen.type(number), block)
    results: list[tuple[Any, tuple[Vector, ...]]] = []
    for block, case in zip(blocks, cases, strict=True):
        builder.position_at_end(block)
        found = give(case)
        results.append((builder.block, found))
        builder.branch(done)
    builder.position_at_end(done)
    merged = [builder.phi(vector.value.type) for vector in results[0][1]]
    for block, found in results:
        for phi, vector in zip(merged, found, strict=True):
            phi.add_incoming(vector.value, block)
    return tuple(Vector(code, phi) for phi in merged)


@dataclass(frozen=True)
class _Step:
    """A step of one vector of neurons on its way into a kernel, with the cases that it tells apart."""

    code: Code
    parameters: Any
    p: Any
    stride: Any
    fires: Sequence[Fire] = FIRE_CASES
    resets: Sequence[tuple[Reset, ResetTiming]] = RESET_CASES

    def parameter(self, name: str) -> Vector:
        """Load a parameter."""
        builder = self.code.builder
        row = builder.mul(self.stride, self.stride.type(ROWS.index(name)))
        return Vector(self.code, self.code.load(self.parameters, builder.add(self.p, row)))

    def only(self, *absent: str) -> Needed[Vector]:
        """Return the parameters as the rules ask for them, but for those that are `absent`."""

        def needed(name: str, neutral: float | None = None) -> Vector | None:  # noqa: ARG001  (known only at run time)
            return None if name in absent else self.parameter(name)

        return needed

    def threshold(self, adaptive: Any, held: Any, a: Any) -> Vector:
        """Return the threshold of this step, which is higher than its base where spikes have raised it."""

        def give(case: Adapt | None) -> tuple[Vector, ...]:
            base = self.parameter("threshold")
            if case is None:
                return (base,)
            return (ADAPTATIONS[case](self.only()).threshold(base, Vector(self.code, self.code.load(held, a))),)

        return _chosen(self.code, adaptive, ADAPT_CASES, give)[0]

    def opposing(self, adaptive: Any, held: Any, a: Any) -> Vector:
        """Return the adaptation that is taken from what charges, or zeros, which change no bit there."""

        def give(case: Adapt | None) -> tuple[Vector, ...]:
            if case is not None and ADAPTATIONS[case](self.only()).opposes:
                return (Vector(self.code, self.code.load(held, a)),)
            return (VectorArithmetic().constant(self.parameter("threshold"), 0.0),)

        return _chosen(self.code, adaptive, ADAPT_CASES, give)[0]

    def adapt(self, adaptive: Any, held: Any, a: Any, threshold: Vector, membrane: Vector, spikes: Vector) -> None:
        """Let the spikes count in the adaptation, where there is one; `membrane` is that before the step."""

        def give(case: Adapt | None) -> tuple[Vector, ...]:
            if case is not None:
                before = Vector(self.code, self.code.load(held, a))
                after = ADAPTATIONS[case](self.only()).after(before, threshold, membrane, spikes)
                self.code.store(after.value, held, a)
            return ()

        _chosen(self.code, adaptive, ADAPT_CASES, give)

    def hold(
        self, refractory: Any, held: Any, q: Any, before: Vector, after: Vector, fired: Vector
    ) -> tuple[Vector, ...]:
        """Return the membrane and the spikes of neurons that may wait after a spike, and count their steps."""

        def give(waits: bool) -> tuple[Vector, ...]:
            if not waits:
                return after, fired
            rule, counter = Refractory(self.parameter("refractory")), Vector(self.code, self.code.load(held, q))
            membrane, spikes, left = rule.held(counter, before, after, fired, VectorArithmetic())
            self.code.store(left.value, held, q)
            return membrane, spikes

        return _chosen(self.code, refractory, (False, True), give)

    def fired(self, fire: Any, charged: Vector, threshold: Vector) -> Vector:
        """Return the spikes."""
        arithmetic = VectorArithmetic()
        return _chosen(self.code, fire, self.fires, lambda rule: (arithmetic.fire(charged, threshold, rule),))[0]

    def by_reset(
        self, reset: Any, threshold: Vector, apply: Callable[[ResetRule[Vector]], tuple[Vector, ...]]
    ) -> tuple[Vector, ...]:
        """Return what `apply` makes of the reset in force."""

        def give(case: tuple[Reset, ResetTiming]) -> tuple[Vector, ...]:
            of, timing = case
            return apply(RESETS[of][timing](self.parameter("reset_value") if of is Reset.VALUE else threshold))

        return _chosen(self.code, reset, self.resets, give)

    def charged(self, charge: Any, membrane: Vector, flowing: Vector, opposing: Vector) -> Vector:
        """Return the membrane after the current, less what is `opposing` where the charge has that."""

        def give(case: tuple[Charge, str] | None) -> tuple[Vector, ...]:
            if case is None:
                return (flowing,)
            kind, parameter = case
            others = {name for names in LEAKS.values() for name in names} - {parameter}
            return (CHARGES[kind](self.only(*others))(membrane, flowing, opposing, VectorArithmetic()),)

        return _chosen(self.code, charge, CHARGE_CASES, give)[0]

    def flowing(self, synapse: Any, before: Vector, current: Vector, feedback: Vector) -> tuple[Vector, ...]:
        """Return the current that the membrane takes, and what is kept of it."""

        def give(case: Synapse | None) -> tuple[Vector, ...]:
            return (current, before) if case is None else SYNAPSES[case](self.only())(before, current, feedback)

        return _chosen(self.code, synapse, SYNAPSE_CASES, give)

    def joined(self, synapse: Any, charged: Vector, feedback: Vector) -> Vector:
        """Return what is charged with a feedback that no synapse has taken."""

        def give(case: Synapse | None) -> tuple[Vector, ...]:
            return (charged + feedback if case is None else charged,)

        return _chosen(self.code, synapse, SYNAPSE_CASES, give)[0]

    def lifted(self, floor: Any, membrane: Vector) -> Vector:
        """Return the membrane, no lower than its floor where there is one."""

        def give(has_floor: bool) -> tuple[Vector, ...]:
            if not has_floor:
                return (membrane,)
            least = self.parameter("floor")
            return (VectorArithmetic().positive(membrane - least) + least,)

        return _chosen(self.code, floor, (False, True), give)[0]


@intrinsic
def step_plain(
    _: Any, membrane: Any, count: Any, current: Any, i: Any, parameters: Any, p: Any, stride: Any, case: Any,
    index: Any, found: Any, first: Any,
) -> Any:  # fmt: skip
    """Step `count` plain LIF neurons, whole vectors of them, list those that fired and return how many are listed.

    (membrane, count, current, i, parameters, p, stride, case, index, found, first): they charge by current[i:]; `case`
    is a number of PLAIN_CASES. Their parameters lie from p on, `stride` from row to row, or are one vector if that is
    its length. Who fired goes to index[found:], as numbers that begin with `first`.

    Each case has a loop of its own, with nothing to choose in it: most layers are such.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments)
        _, count, _, i, _, p, stride, case, _, found, first = arguments
        membranes, currents, parameters, index = (code.pointer(argument) for argument in (0, 2, 4, 8))
        arithmetic, vectors = VectorArithmetic(), builder.udiv(count, count.type(LANES))
        alike = builder.icmp_signed("==", stride, stride.type(LANES))
        done, results = builder.append_basic_block("done"), list[tuple[Any, Any]]()

        def step_row(fire: Fire, of: Reset, timing: ResetTiming, *, alike: bool) -> Any:
            def rules(at: Any) -> tuple[Any, ...]:
                step = _Step(code, parameters, at, stride)
                threshold = step.parameter("threshold")
                reset = RESETS[of][timing](step.parameter("reset_value") if of is Reset.VALUE else threshold)
                return CHARGES[Charge.DECAY](step.only()), threshold, reset

            hoisted = rules(p)

            def body(number: Any, listed: list[Any]) -> list[Any]:
                j = builder.mul(number, number.type(LANES))
                charge, threshold, reset = hoisted if alike else rules(builder.add(p, j))
                before = Vector(code, code.load(membranes, j))
                charged = charge(before, Vector(code, code.load(currents, builder.add(i, j))), None, arithmetic)
                spikes = arithmetic.fire(charged, threshold, fire)
                code.store(reset.after(charged, spikes, None, arithmetic).value, membranes, j)
                bits = code.bits(arithmetic.compare(">", spikes, arithmetic.constant(spikes, 0.0)))
                return [list_places(code, index, listed[0], builder.add(first, j), bits)]

            return code.loop(vectors.type(0), vectors, [found], body)[0]

        numbered = [(builder.append_basic_block("case"), *each) for each in PLAIN_CASES]
        switch = builder.switch(case, numbered[0][0])
        for number, (block, _, _) in enumerate(numbered):
            if number:
                switch.add_case(case.type(number), block)
        for block, fire, reset in numbered:
            builder.position_at_end(block)
            with builder.if_else(alike) as (then, otherwise):
                for branch, same in ((then, True), (otherwise, False)):
                    with branch:
                        listed = step_row(fire, *reset, alike=same)
                        results.append((builder.block, listed))
                        builder.branch(done)
            builder.unreachable()
        builder.position_at_end(done)
        merged = builder.phi(found.type)
        for block, listed in results:
            merged.add_incoming(listed, block)
        return merged

    return types.int64(membrane, count, current, i, parameters, p, stride, case, index, found, first), generate


@intrinsic
def step_any(
    _: Any, membrane: Any, held: Any, size: Any, j: Any, current: Any, i: Any, feedback: Any, parameters: Any,
    p: Any, stride: Any, synapse_case: Any, charge_case: Any, fire_case: Any, reset_case: Any, floor_case: Any,
    adaptive: Any, refractory: Any, spikes: Any,
) -> Any:  # fmt: skip
    """Step a vector of neurons of any rule and return which fired, as bits.

    (membrane, held, size, j, current, i, feedback, parameters, p, stride, synapse_case, charge_case, fire_case,
    reset_case, floor_case, adaptive, refractory, spikes): as `step_plain`; feedback[j:] joins what is charged, and how
    often each fired goes to spikes[j:]. held[j:] are the synaptic currents, held[size + j:] the adaptations, which are
    read and written only where the neurons are `adaptive`, and held[2 * size + j:] the counters of those that are
    `refractory`.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments)
        _, _, size, j, _, i, _, _, p, stride, in_synapse, in_charge, in_fire, in_reset, in_floor, *others = arguments
        adaptive, refractory, _ = others
        membranes, states, currents, feedbacks, parameters, counts = (
            code.pointer(argument) for argument in (0, 1, 4, 6, 7, 17)
        )
        step, arithmetic = _Step(code, parameters, p, stride), VectorArithmetic()

        def loaded(pointer: Any, at: Any) -> Vector:
            return Vector(code, code.load(pointer, at))

        resting, current, feedback = loaded(membranes, j), loaded(currents, i), loaded(feedbacks, j)
        a = builder.add(size, j)
        q = builder.add(size, a)
        threshold = step.threshold(adaptive, states, a)

        def start(rule: ResetRule[Vector]) -> tuple[Vector, ...]:
            late = step.fired(in_fire, resting, threshold) if rule.is_late else arithmetic.constant(resting, 0.0)
            return rule.before(resting, late, arithmetic), late

        before, late = step.by_reset(in_reset, threshold, start)
        flowing, kept = step.flowing(in_synapse, loaded(states, j), current, feedback)
        opposing = step.opposing(adaptive, states, a)
        joined = step.joined(in_synapse, step.charged(in_charge, before, flowing, opposing), feedback)
        (charged,) = step.by_reset(in_reset, threshold, lambda rule: (rule.charged(joined, late, arithmetic),))
        fired = step.fired(in_fire, charged, threshold)
        (after,) = step.by_reset(in_reset, threshold, lambda rule: (rule.after(charged, fired, late, arithmetic),))
        lifted = step.lifted(in_floor, after)
        remaining, fired = step.hold(refractory, states, q, resting, lifted, fired)
        step.adapt(adaptive, states, a, threshold, resting, fired)
        code.store(remaining.value, membranes, j)
        code.store(kept.value, states, j)
        code.store(fired.value, counts, j)
        return code.bits(arithmetic.compare(">", fired, arithmetic.constant(fired, 0.0)))

    return types.uint64(
        membrane, held, size, j, current, i, feedback, parameters, p, stride, synapse_case, charge_case,
        fire_case, reset_case, floor_case, adaptive, refractory, spikes,
    ), generate  # fmt: skip


@intrinsic
def step_alpha(
    _: Any, membrane: Any, held: Any, size: Any, j: Any, current: Any, i: Any, parameters: Any, p: Any, stride: Any,
    case: Any, spikes: Any,
) -> Any:  # fmt: skip
    """Step a vector of Alpha neurons and return which fired, as bits.

    (membrane, held, size, j, current, i, parameters, p, stride, case, spikes): as `step_any`; `case` is a number of
    ALPHA_CASES. held[j:] are the exciting currents, and held[3 * size + j:] the inhibiting ones.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments)
        _, _, size, j, _, i, _, p, stride, case, _ = arguments
        membranes, states, currents, parameters, counts = (code.pointer(argument) for argument in (0, 1, 4, 6, 10))
        step, arithmetic = _Step(code, parameters, p, stride), VectorArithmetic()
        k = builder.add(j, builder.mul(size, size.type(3)))

        def loaded(pointer: Any, at: Any) -> Vector:
            return Vector(code, code.load(pointer, at))

        before = NeuronState(loaded(membranes, j), loaded(states, j), inhibition=loaded(states, k))
        arriving = loaded(currents, i)

        def give(case: tuple[Fire, Reset]) -> tuple[Vector, ...]:
            exciting, inhibiting = step.parameter("exc_decay"), step.parameter("inh_decay")
            neuron = AlphaNeuron(exciting, inhibiting, step.parameter("gain"), step.parameter("threshold"), *case)
            spikes, after = neuron.step(before, arriving, None, arithmetic)
            return spikes, after.membrane, after.synapse, after.inhibition

        fired, *after = _chosen(code, case, ALPHA_CASES, give)
        for vector, pointer, at in zip(after, (membranes, states, states), (j, j, k), strict=True):
            code.store(vector.value, pointer, at)
        code.store(fired.value, counts, j)
        return code.bits(arithmetic.compare(">", fired, arithmetic.constant(fired, 0.0)))

    return types.uint64(membrane, held, size, j, current, i, parameters, p, stride, case, spikes), generate
