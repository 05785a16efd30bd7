"""The neuron's equations, in one place and once, for every engine that computes with whole arrays.

One step of one neuron, exactly; i is the current that arrives, j the synaptic current of a neuron that has one
(otherwise j = i), v the membrane, s the spikes and a the adaptation of a neuron that adapts:

    synapse  j = syn_decay * j + syn_gain * i                 (synapse: "decay")
             j = j + syn_rate * (syn_gain * i - j)            ("euler": the `nir` dialect's CubaLIF)
             j + syn_gain * i now, j - syn_rate * j of it kept   ("jump": Norse's LIF)
             j = syn_decay * (j + syn_gain * i)               ("sum_then_decay": sinabs)
             j now, (j - syn_rate * j) + syn_gain * i of it kept   ("late_jump": Norse's LSNN)
    charge   u = decay * v + gain * j + drive                 (charge: "decay")
             u = v + rate * ((leak - v) + gain * j)           ("euler": the `nir` dialect's LIF, Norse's LIF)
             u = v + rate * ((gain * j + leak) - v)           ("euler_input_first": Norse's LIFBox)
             u = v + (gain * j - (v - leak)) / tau            ("relax": SpikingJelly; times `rate` in ParametricLIF)
             u = (v - (v - leak) / tau) + gain * j            ("leak_then_add": SpikingJelly without decay_input)
             u = v + (gain * j + curvature * (v - leak) * (v - critical)) / tau   ("quadratic": SpikingJelly's QIF)
             u = v + rate * ((((leak - v) + e) + gain * j) - a)   ("exponential": Norse's LIFEx; a only in AdEx)
             u = v + (((gain * j + leak) - v) + e) / tau      ("exponential_input_first": SpikingJelly's EIF)
             u = (v - rate * ((1 - gain * j) * v)) + gain * j ("filter": SpikingJelly's SynapseFilter)
             where e = sharpness * exp((v - critical) / sharpness), exp being that of `models.spec.exponential`
    adapt    h = threshold + adapt_gain * a                   (ALIF: h stands for the threshold in all that follows)
             h = a + adapt_rate * (threshold - a)             (adapt: "relax", Norse's LSNN)
    fire     s = 1 where u >= threshold                       (fire: "at_threshold")
             s = 1 where u > threshold                        ("above_threshold")
             s = u / threshold towards 0 where u > 0, else 0  ("multiple": sinabs' several spikes a step)
    reset    v = u - threshold * s                            (reset: "subtract")
             v = reset_value where s, else u                  ("value")
             v = u                                            ("none")
    floor    v = max(v - floor, 0) + floor                    (floor, where there is one: sinabs)
    hold     v stays that of the step before and s = 0 where q > 0; then q = refractory where s, else max(q - 1, 0)
                                                              (refractory, where there is one: Norse's LIFRefrac)
    adapt    a = adapt_decay * a + adapt_spike * s            (ALIF: a spike counts from the next step on)
             a = h + adapt_gain * s                           ("relax": a is the threshold itself)
             a = (a + adapt_rate * (adapt_coupling * (v - leak) - a)) + adapt_gain * s, of the v that charged
                                                              ("current": Norse's LIFAdEx; h is the threshold)

Before the first step v = start, j = 0, q = 0, a = 0 (or the threshold, with "relax") and no neuron has fired.

A neuron that adapts is that of Bellec et al., 2018 ("Long short-term memory and learning-to-learn in networks of
spiking neurons", LSNN), and a reset by subtraction takes h, the threshold that it fired at, as there and in sinabs'
ALIF. A spike adds 1 - adapt_decay to their a, which is adapt_spike; by default it adds 1, as in Bellec et al., 2020
(e-prop, which subtracts the base). adapt_gain is beta of both. Norse's LSNN keeps the threshold in place of the spikes.

The exponential charge is that of Fourcaud-Trocmé et al., 2003 ("How spike generation mechanisms determine the neuronal
response to fluctuating inputs"). With a current that opposes it (adapt "current") it is the AdEx neuron of Brette and
Gerstner, 2005 ("Adaptive exponential integrate-and-fire model as an effective description of neuronal activity"):
adapt_coupling is their a, adapt_gain their b, sharpness their slope factor.

A reset of another timing than "same_step" hangs on r, which is 1 where the membrane of the step before fires: snnTorch.

    "next_step"          by subtraction u = (charge) - threshold * r, to a value v = reset_value where r before charging
    "next_step_charged"  u = reset_value where r, in place of what was charged: snnTorch's Synaptic and RLeaky
    "corrected"          as "next_step", then v = u - threshold * (s - r), or u - (s - r) * (u - reset_value): snnTorch
                         with reset_delay=False
    "corrected_charged"  the same with "next_step_charged"

snnTorch's Alpha has two synaptic currents, j that excites and k that inhibits, and a membrane that is their difference;
r is as above, of the membrane u of the step before, and the reset is one of the last three lines:

    j' = exc_decay * j + i,  k' = inh_decay * k - i,  u = gain * (j' + k')
    "subtract"  j = j' - threshold * r,  k = k' - (inh_decay * k - i) * r,  u = u + k * r (the k of the step before)
    "value"     j = j' - j' * r,  k = k' - k' * r,  u = u - u * r
    "none"      j = j',  k = k'

The update is defined to the last bit: each multiplication, addition and division rounds to float32 on its own, in the
order written. The equations are written over NumPy arrays, PyTorch tensors and ONNX graph values alike, which differ
only in their `Arithmetic`: how they fire, and so what training's surrogate gradient replaces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from typing_extensions import TypeIs

from spikeserve.models.spec.neuron_parameters import NEUTRAL
from spikeserve.models.spec.nodes import (
    ALIF,
    Adapt,
    Alpha,
    Charge,
    CubaALIF,
    CubaLI,
    CubaLIF,
    Fire,
    Integrating,
    Joins,
    Leaky,
    Reset,
    ResetTiming,
    Spiking,
    Synapse,
    Threshold,
)

Array = TypeVar(
    "Array", bound=Any
)  # anything with +, -, *, / of its kind, and -, of a number: an array, a tensor, a graph value


Given = TypeVar("Given", bound=Any, covariant=True)


class Arithmetic(Protocol[Array]):
    """What a kind of array brings to the equations beyond +, -, * and /."""

    def fire(self, charged: Array, threshold: Array, rule: Fire) -> Array:
        """Return the spikes of what is `charged`, 0 where there is none, in the kind's float type."""
        ...

    def select(self, spikes: Array, fired: Array, silent: Array) -> Array:
        """Return `fired` where there is a spike and `silent` elsewhere."""
        ...

    def held(self, spikes: Array) -> Array:
        """Return the spikes as the reset sees them; training may let no gradient pass there."""
        ...

    def positive(self, values: Array) -> Array:
        """Return the values, and 0 in place of those that are less."""
        ...

    def waiting(self, counter: Array) -> Array:
        """Return 1 where a counter is above 0, else 0; no gradient passes."""
        ...

    def still(self, values: Array) -> Array:
        """Return the values, through which no gradient passes."""
        ...

    def exponential(self, values: Array) -> Array:
        """Return e to the power of the values, as `models.spec.exponential` defines it."""
        ...


class NeuronState(NamedTuple):
    """What a layer remembers from one step to the next; what it has not is None.

    `synapse`: what is kept of a synaptic current. `spikes`: a recurrent layer's last ones. `adaptation`: the spikes so
    far of neurons that adapt, decayed, or the threshold that they have raised, or the current that opposes what charges
    them. `waiting`: for how many steps neurons still neither charge nor fire. `inhibition`: what is kept of a second
    synaptic current.
    """

    membrane: Any
    synapse: Any = None
    spikes: Any = None
    adaptation: Any = None
    waiting: Any = None
    inhibition: Any = None


Parameters: TypeAlias = Callable[[str], Array]  # a parameter's name -> its value in the engine's kind of array
# (membrane, current, the adaptation that opposes them or None, arithmetic) -> charged
ChargeRule: TypeAlias = Callable[[Array, Array, Array | None, Arithmetic[Array]], Array]
SynapseRule: TypeAlias = Callable[[Array, Array, Array | None], tuple[Array, Array]]  # (j, i, feedback) -> (now, kept)


@dataclass(frozen=True)
class Integrator(Generic[Array]):
    """How a layer charges; each parameter is a scalar or an array of the layer's shape."""

    charge_rule: ChargeRule[Array]
    synapse: SynapseRule[Array] | None

    def charge(
        self,
        state: NeuronState,
        current: Array,
        arithmetic: Arithmetic[Array],
        feedback: Array | None = None,
        opposing: Array | None = None,
    ) -> NeuronState:
        """Return what is charged and what is kept of the synaptic current.

        `feedback` is added last, to their sum; `opposing` is an adaptation that is taken from what charges.
        """
        if self.synapse is None:
            charged = self.charge_rule(state.membrane, current, opposing, arithmetic)
            return NeuronState(_plus(charged, feedback))
        flowing, kept = self.synapse(state.synapse, current, feedback)
        return NeuronState(self.charge_rule(state.membrane, flowing, opposing, arithmetic), kept)


class ResetRule(Generic[Array]):
    """When a spike changes the membrane, and how: the three places where one can; none does unless it says so.

    `late` are the spikes that the membrane of the step before gives, for the rules that ask for them.
    """

    is_late = False

    def at(self, threshold: Array) -> ResetRule[Array]:  # noqa: ARG002
        """Return the rule for neurons whose threshold is now this one."""
        return self

    def before(self, membrane: Array, late: Any, arithmetic: Arithmetic[Array]) -> Array:  # noqa: ARG002
        """Return the membrane that will charge."""
        return membrane

    def charged(self, charged: Array, late: Any, arithmetic: Arithmetic[Array]) -> Array:  # noqa: ARG002
        """Return the membrane that will fire."""
        return charged

    def after(self, charged: Array, spikes: Array, late: Any, arithmetic: Arithmetic[Array]) -> Array:  # noqa: ARG002
        """Return the membrane that remains."""
        return charged


class Adaptation(Protocol[Array]):
    """How a neuron adapts to its spikes; no gradient is stopped here, so that training sees far back.

    `adaptation` is that before the step, and `opposes` says whether it is taken from what charges.
    """

    @property
    def opposes(self) -> bool:
        """Whether the adaptation is a current."""
        ...

    def threshold(self, base: Array, adaptation: Array) -> Array:
        """Return the threshold of this step."""
        ...

    def after(self, adaptation: Array, threshold: Array, membrane: Array, spikes: Array) -> Array:
        """Return the adaptation that remains, of neurons that had this threshold, and this membrane before the step."""
        ...


@dataclass(frozen=True)
class CountedSpikes(Generic[Array]):
    """h = threshold + gain * a, and after the step a = decay * a + spike * s; a `spike` of None is 1."""

    decay: Array
    gain: Array
    spike: Array | None
    opposes = False

    def threshold(self, base: Array, adaptation: Array) -> Array:
        """Return the base and what the spikes so far add to it."""
        return base + self.gain * adaptation

    def after(self, adaptation: Array, threshold: Array, membrane: Array, spikes: Array) -> Array:  # noqa: ARG002
        """Return the spikes so far, decayed."""
        return self.decay * adaptation + _times(self.spike, spikes)


@dataclass(frozen=True)
class RelaxingThreshold(Generic[Array]):
    """h = a + rate * (threshold - a), and after the step a = h + gain * s."""

    rate: Array
    gain: Array
    opposes = False

    def threshold(self, base: Array, adaptation: Array) -> Array:
        """Return the threshold on its way back to the base."""
        return adaptation + self.rate * (base - adaptation)

    def after(self, adaptation: Array, threshold: Array, membrane: Array, spikes: Array) -> Array:  # noqa: ARG002
        """Return the threshold with what the spikes add to it."""
        return threshold + self.gain * spikes


@dataclass(frozen=True)
class OpposingCurrent(Generic[Array]):
    """After the step a = (a + rate * (coupling * (v - leak) - a)) + gain * s."""

    rate: Array
    coupling: Array
    leak: Array
    gain: Array
    opposes = True

    def threshold(self, base: Array, adaptation: Array) -> Array:  # noqa: ARG002
        """Return the base, which stays as it is."""
        return base

    def after(self, adaptation: Array, threshold: Array, membrane: Array, spikes: Array) -> Array:  # noqa: ARG002
        """Return the current on its way to what the membrane asks for, with what the spikes add to it."""
        relaxed = adaptation + self.rate * (self.coupling * (membrane - self.leak) - adaptation)
        return relaxed + self.gain * spikes


@dataclass(frozen=True)
class Refractory(Generic[Array]):
    """For how many steps after a spike a neuron holds its membrane and does not fire; a part of a step counts as one.

    Its synaptic current flows on. No gradient passes the counter, nor a neuron that waits.
    """

    steps: Array

    def held(
        self, counter: Array, before: Array, after: Array, spikes: Array, arithmetic: Arithmetic[Array]
    ) -> tuple[Array, Array, Array]:
        """Return the membrane, the spikes and the counter after a step that began with this counter and membrane."""
        waiting = arithmetic.waiting(counter)
        spikes = arithmetic.select(waiting, spikes - spikes, spikes)
        left = arithmetic.select(arithmetic.waiting(spikes), self.steps, arithmetic.positive(counter - waiting))
        return arithmetic.select(waiting, before, after), spikes, arithmetic.still(left)


@dataclass(frozen=True)
class SpikingNeuron(Integrator[Array]):
    """A layer of neurons that charge, fire and reset; `threshold` is the base of one that adapts."""

    threshold: Array
    fire: Fire
    reset: ResetRule[Array]
    floor: Array | None
    adaptation: Adaptation[Array] | None = None
    refractory: Refractory[Array] | None = None

    def step(
        self, state: NeuronState, current: Array, feedback: Array | None, arithmetic: Arithmetic[Array]
    ) -> tuple[Array, NeuronState]:
        """Take one step and return `(spikes, state)`, each of the membrane's shape; nothing is kept.

        `feedback` is a recurrent current that joins what is charged; one that joins the input is part of `current`.
        """
        threshold, reset, late, adaptation, waiting = self.threshold, self.reset, None, None, None
        opposing = state.adaptation if self.adaptation is not None and self.adaptation.opposes else None
        if self.adaptation is not None:
            threshold = self.adaptation.threshold(threshold, state.adaptation)
            reset = reset.at(threshold)
        if reset.is_late:
            late = arithmetic.held(arithmetic.fire(state.membrane, threshold, self.fire))
        before = reset.before(state.membrane, late, arithmetic)
        resting = NeuronState(before, state.synapse)
        membrane, synapse, *_ = self.charge(resting, current, arithmetic, feedback, opposing)
        charged = reset.charged(membrane, late, arithmetic)
        spikes = arithmetic.fire(charged, threshold, self.fire)
        after = reset.after(charged, arithmetic.held(spikes), late, arithmetic)
        if self.floor is not None:
            after = arithmetic.positive(after - self.floor) + self.floor
        if self.refractory is not None:
            after, spikes, waiting = self.refractory.held(state.waiting, state.membrane, after, spikes, arithmetic)
        if self.adaptation is not None:
            adaptation = self.adaptation.after(state.adaptation, threshold, state.membrane, spikes)
        return spikes, NeuronState(after, synapse, None, adaptation, waiting)


@dataclass(frozen=True)
class AlphaNeuron(Generic[Array]):
    """A layer of Alpha neurons: two synaptic currents, and a membrane that is their difference."""

    exc_decay: Array
    inh_decay: Array
    gain: Array | None
    threshold: Array
    fire: Fire
    reset: Reset

    def step(
        self,
        state: NeuronState,
        current: Array,
        feedback: Array | None,  # noqa: ARG002  (it is not recurrent)
        arithmetic: Arithmetic[Array],
    ) -> tuple[Array, NeuronState]:
        """Take one step and return `(spikes, state)`; the reset is that of the membrane of the step before."""
        late = arithmetic.held(arithmetic.fire(state.membrane, self.threshold, self.fire))
        excites = self.exc_decay * state.synapse + current
        inhibits = self.inh_decay * state.inhibition - current
        membrane = _times(self.gain, excites + inhibits)
        if self.reset is Reset.SUBTRACT:
            excites = excites - self.threshold * late
            inhibits = inhibits - inhibits * late
            membrane = membrane + state.inhibition * late
        elif self.reset is Reset.VALUE:
            excites = excites - excites * late
            inhibits = inhibits - inhibits * late
            membrane = membrane - membrane * late
        spikes = arithmetic.fire(membrane, self.threshold, self.fire)
        return spikes, NeuronState(membrane, excites, inhibition=inhibits)


@dataclass(frozen=True)
class Subtract(ResetRule[Array]):
    """v = u - threshold * s."""

    threshold: Array

    def at(self, threshold: Array) -> ResetRule[Array]:
        """Return the rule that subtracts this threshold."""
        return Subtract(threshold)

    def after(self, charged: Array, spikes: Array, late: Any, arithmetic: Arithmetic[Array]) -> Array:  # noqa: ARG002
        """Return the membrane less the threshold for each spike."""
        return charged - self.threshold * spikes


@dataclass(frozen=True)
class SubtractLate(ResetRule[Array]):
    """u = (charge) - threshold * r."""

    threshold: Array
    is_late = True

    def charged(self, charged: Array, late: Any, arithmetic: Arithmetic[Array]) -> Array:  # noqa: ARG002
        """Return what was charged less the threshold for each late spike."""
        return charged - self.threshold * late


@dataclass(frozen=True)
class SubtractCorrected(SubtractLate[Array]):
    """The same, then v = u - threshold * (s - r)."""

    def after(self, charged: Array, spikes: Array, late: Any, arithmetic: Arithmetic[Array]) -> Array:  # noqa: ARG002
        """Return the membrane less the threshold for each spike that is new."""
        return charged - self.threshold * (spikes - late)


@dataclass(frozen=True)
class ToValue(ResetRule[Array]):
    """v = value where s, else u."""

    value: Array

    def after(self, charged: Array, spikes: Array, late: Any, arithmetic: Arithmetic[Array]) -> Array:  # noqa: ARG002
        """Return the value where there is a spike."""
        return arithmetic.select(spikes, self.value, charged)


@dataclass(frozen=True)
class ToValueLate(ResetRule[Array]):
    """v = value where r, before it charges."""

    value: Array
    is_late = True

    def before(self, membrane: Array, late: Any, arithmetic: Arithmetic[Array]) -> Array:
        """Return the value where there is a late spike."""
        return arithmetic.select(late, self.value, membrane)


@dataclass(frozen=True)
class ToValueLateCharged(ResetRule[Array]):
    """u = value where r, else (charge)."""

    value: Array
    is_late = True

    def charged(self, charged: Array, late: Any, arithmetic: Arithmetic[Array]) -> Array:
        """Return the value where there is a late spike."""
        return arithmetic.select(late, self.value, charged)


class _Corrected(ResetRule[Array]):
    """v = u - (s - r) * (u - value)."""

    value: Array

    def after(self, charged: Array, spikes: Array, late: Any, arithmetic: Arithmetic[Array]) -> Array:  # noqa: ARG002
        """Return the value for a spike that is new; where only r is 1 the difference is added, as snnTorch does."""
        return charged - (spikes - late) * (charged - self.value)


class ToValueCorrected(_Corrected[Array], ToValueLate[Array]):
    """Late, and again for a spike that is new."""


class ToValueCorrectedCharged(_Corrected[Array], ToValueLateCharged[Array]):
    """Late on what was charged, and again for a spike that is new."""


RESETS: Mapping[Reset, Mapping[ResetTiming, Callable[[Any], ResetRule[Any]]]] = {
    Reset.SUBTRACT: {
        ResetTiming.SAME_STEP: Subtract,
        ResetTiming.NEXT_STEP: SubtractLate,
        ResetTiming.CORRECTED: SubtractCorrected,
    },
    Reset.VALUE: {
        ResetTiming.SAME_STEP: ToValue,
        ResetTiming.NEXT_STEP: ToValueLate,
        ResetTiming.NEXT_STEP_CHARGED: ToValueLateCharged,
        ResetTiming.CORRECTED: ToValueCorrected,
        ResetTiming.CORRECTED_CHARGED: ToValueCorrectedCharged,
    },
    Reset.NONE: {ResetTiming.SAME_STEP: lambda _: ResetRule()},
}


class Needed(Protocol[Given]):
    """What the rules ask for a node's parameters."""

    def __call__(self, name: str, neutral: float | None = None) -> Given | None:
        """Return a parameter, or None where the node has none, or where it is `neutral` and would change no bit."""
        ...


@dataclass(frozen=True)
class _Needed(Generic[Array]):
    node: Any
    values: Parameters[Array]

    def __call__(self, name: str, neutral: float | None = None) -> Array | None:
        value = getattr(self.node, name, None)
        return None if value is None or value == neutral else self.values(name)


def _unless_neutral(of: Needed[Array], name: str) -> Array | None:
    return of(name, NEUTRAL[name])


def _plus(first: Array, second: Array | None) -> Array:
    return first if second is None else first + second


def _times(factor: Array | None, value: Array) -> Array:
    return value if factor is None else factor * value


def _decaying(of: Needed[Array]) -> ChargeRule[Array]:
    decay, gain, drive = _unless_neutral(of, "decay"), _unless_neutral(of, "gain"), _unless_neutral(of, "drive")
    return lambda v, j, *_: _plus(_times(decay, v) + _times(gain, j), drive)


def _euler(of: Needed[Array]) -> ChargeRule[Array]:
    rate, gain, leak = of("rate"), _unless_neutral(of, "gain"), of("leak")
    return lambda v, j, *_: v + rate * ((leak - v) + _times(gain, j))


def _euler_input_first(of: Needed[Array]) -> ChargeRule[Array]:
    rate, gain, leak = of("rate"), _unless_neutral(of, "gain"), of("leak")
    return lambda v, j, *_: v + rate * ((_times(gain, j) + leak) - v)


def _relaxing(of: Needed[Array]) -> ChargeRule[Array]:
    gain, leak, share = _unless_neutral(of, "gain"), of("leak"), _share(of)
    return lambda v, j, *_: v + share(_times(gain, j) - (v - leak))


def _leaking(of: Needed[Array]) -> ChargeRule[Array]:
    gain, leak, share = _unless_neutral(of, "gain"), of("leak"), _share(of)
    return lambda v, j, *_: (v - share(v - leak)) + _times(gain, j)


def _squaring(of: Needed[Array]) -> ChargeRule[Array]:
    gain, leak, share = _unless_neutral(of, "gain"), of("leak"), _share(of)
    curvature, critical = of("curvature"), of("critical")
    return lambda v, j, *_: v + share(_times(gain, j) + curvature * (v - leak) * (v - critical))


def _exponential(of: Needed[Array]) -> ChargeRule[Array]:
    gain, leak, rate, grown = _unless_neutral(of, "gain"), of("leak"), of("rate"), _growth(of)

    def charge(v: Any, j: Any, opposing: Any, arithmetic: Arithmetic[Any]) -> Any:
        driven = ((leak - v) + grown(v, arithmetic)) + _times(gain, j)
        return v + rate * (driven if opposing is None else driven - opposing)

    return charge


def _exponential_input_first(of: Needed[Array]) -> ChargeRule[Array]:
    gain, leak, tau, grown = _unless_neutral(of, "gain"), of("leak"), of("tau"), _growth(of)
    return lambda v, j, _, arithmetic: v + (((_times(gain, j) + leak) - v) + grown(v, arithmetic)) / tau


def _growth(of: Needed[Any]) -> Callable[[Any, Arithmetic[Any]], Any]:
    """Return what an exponential charge adds: sharpness * exp((v - critical) / sharpness)."""
    sharpness, critical = of("sharpness"), of("critical")
    return lambda v, arithmetic: sharpness * arithmetic.exponential((v - critical) / sharpness)


def _filtering(of: Needed[Array]) -> ChargeRule[Array]:
    gain, rate = _unless_neutral(of, "gain"), of("rate")

    def charge(v: Any, j: Any, *_: Any) -> Any:
        x = _times(gain, j)
        return (v - rate * ((1.0 - x) * v)) + x

    return charge


def _share(of: Needed[Array]) -> Callable[[Array], Array]:
    """Return the part of a difference that one step takes: divided by tau, or times the rate."""
    tau, rate = of("tau"), of("rate")
    return (lambda difference: rate * difference) if tau is None else (lambda difference: difference / tau)


CHARGES: Mapping[Charge, Callable[[Needed[Any]], ChargeRule[Any]]] = {
    Charge.DECAY: _decaying,
    Charge.EULER: _euler,
    Charge.EULER_INPUT_FIRST: _euler_input_first,
    Charge.RELAX: _relaxing,
    Charge.LEAK_THEN_ADD: _leaking,
    Charge.QUADRATIC: _squaring,
    Charge.EXPONENTIAL: _exponential,
    Charge.EXPONENTIAL_INPUT_FIRST: _exponential_input_first,
    Charge.FILTER: _filtering,
}


def _decaying_synapse(of: Needed[Array]) -> SynapseRule[Array]:
    decay, gain = of("syn_decay"), _unless_neutral(of, "syn_gain")

    def flow(j: Array, i: Array, feedback: Array | None) -> tuple[Array, Array]:
        now = _plus(decay * j + _times(gain, i), feedback)
        return now, now

    return flow


def _euler_synapse(of: Needed[Array]) -> SynapseRule[Array]:
    rate, gain = of("syn_rate"), _unless_neutral(of, "syn_gain")

    def flow(j: Array, i: Array, _: Array | None) -> tuple[Array, Array]:
        now = j + rate * (_times(gain, i) - j)
        return now, now

    return flow


def _jumping_synapse(of: Needed[Array]) -> SynapseRule[Array]:
    rate, gain = of("syn_rate"), _unless_neutral(of, "syn_gain")

    def flow(j: Array, i: Array, feedback: Array | None) -> tuple[Array, Array]:
        now = _plus(j + _times(gain, i), feedback)
        return now, now - rate * now

    return flow


def _summing_synapse(of: Needed[Array]) -> SynapseRule[Array]:
    decay, gain = of("syn_decay"), _unless_neutral(of, "syn_gain")

    def flow(j: Array, i: Array, _: Array | None) -> tuple[Array, Array]:
        now = decay * (j + _times(gain, i))
        return now, now

    return flow


def _late_jumping_synapse(of: Needed[Array]) -> SynapseRule[Array]:
    rate, gain = of("syn_rate"), _unless_neutral(of, "syn_gain")

    def flow(j: Array, i: Array, feedback: Array | None) -> tuple[Array, Array]:
        return j, _plus((j - rate * j) + _times(gain, i), feedback)

    return flow


SYNAPSES: Mapping[Synapse, Callable[[Needed[Any]], SynapseRule[Any]]] = {
    Synapse.DECAY: _decaying_synapse,
    Synapse.EULER: _euler_synapse,
    Synapse.JUMP: _jumping_synapse,
    Synapse.SUM_THEN_DECAY: _summing_synapse,
    Synapse.LATE_JUMP: _late_jumping_synapse,
}

ADAPTATIONS: Mapping[Adapt, Callable[[Needed[Any]], Adaptation[Any]]] = {
    Adapt.COUNT: lambda of: CountedSpikes(of("adapt_decay"), of("adapt_gain"), _unless_neutral(of, "adapt_spike")),
    Adapt.RELAX: lambda of: RelaxingThreshold(of("adapt_rate"), of("adapt_gain")),
    Adapt.CURRENT: lambda of: OpposingCurrent(of("adapt_rate"), of("adapt_coupling"), of("leak"), of("adapt_gain")),
}


def _rules(node: Any, of: Needed[Array]) -> tuple[ChargeRule[Array], SynapseRule[Array] | None]:
    if isinstance(node, Threshold):
        return (lambda _, current, *__: current), None
    charge = CHARGES[node.charge](of) if isinstance(node, Leaky) else _decaying(of)
    return charge, SYNAPSES[node.synapse](of) if has_synapse(node) else None


def starting(node: Spiking | Integrating) -> bool:
    """Return whether a layer's membrane starts anywhere but at 0."""
    return getattr(node, "start", 0.0) != 0.0


def has_synapse(node: Spiking | Integrating) -> TypeIs[CubaLIF | CubaALIF | CubaLI]:
    """Return whether a layer has a synaptic current, and so a second state."""
    return isinstance(node, CubaLIF | CubaALIF | CubaLI)


def adapts(node: Spiking | Integrating) -> TypeIs[ALIF | CubaALIF]:
    """Return whether a layer adapts to its spikes, by a state of its own."""
    return isinstance(node, ALIF | CubaALIF)


def has_inhibition(node: Spiking | Integrating) -> TypeIs[Alpha]:
    """Return whether a layer has two synaptic currents, one that excites and one that inhibits."""
    return isinstance(node, Alpha)


def refracts(node: Spiking | Integrating) -> bool:
    """Return whether a layer's neurons wait after a spike, and so count steps."""
    return getattr(node, "refractory", None) is not None


def is_recurrent(node: Spiking | Integrating) -> bool:
    """Return whether a layer hears its own spikes of the step before."""
    return isinstance(node, Spiking) and node.recurrent is not None


def feedback_joins_charge(node: Spiking | Integrating) -> bool:
    """Return whether a layer's recurrent current is `feedback` to a step, rather than part of its current."""
    return isinstance(node, Spiking) and node.recurrent is not None and node.recurrent.joins is Joins.CHARGE


def integrator(node: Integrating, parameters: Parameters[Array]) -> Integrator[Array]:
    """Return the equations of a layer that does not fire."""
    return Integrator(*_rules(node, _Needed(node, parameters)))


def spiking_neuron(node: Spiking, parameters: Parameters[Array]) -> SpikingNeuron[Array] | AlphaNeuron[Array]:
    """Return the equations of a layer that fires."""
    of: Needed[Array] = _Needed(node, parameters)
    if isinstance(node, Alpha):
        decays = parameters("exc_decay"), parameters("inh_decay")
        return AlphaNeuron(*decays, _unless_neutral(of, "gain"), parameters("threshold"), node.fire, node.reset)
    charge, synapse = _rules(node, of)
    threshold = parameters("threshold")
    return SpikingNeuron(
        charge,
        synapse,
        threshold=threshold,
        fire=node.fire,
        reset=RESETS[node.reset][node.reset_timing](
            parameters("reset_value") if node.reset is Reset.VALUE else threshold
        ),
        floor=of("floor"),
        adaptation=ADAPTATIONS[node.adapt](of) if adapts(node) else None,
        refractory=Refractory(parameters("refractory")) if refracts(node) else None,
    )
