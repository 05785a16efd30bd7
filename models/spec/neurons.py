"""The neurons, spiking and not: the parameters of each, and which rules can be combined.

`models.spec.neuron_parameters` is the table of the parameters; their equations are in `models.neurons`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import ClassVar, Literal, NoReturn, Self

from pydantic import ValidationInfo, field_validator, model_validator
from typing_extensions import override

from spikeserve.models.spec import rules
from spikeserve.models.spec.neuron_parameters import NEURON_PARAMETERS, parameter_field
from spikeserve.models.spec.node_base import NodeBase
from spikeserve.models.spec.parameters import PER_NEURON, FrozenModel, Parameter, Shape, WeightBits
from spikeserve.models.spec.rules import Adapt, Charge, Fire, Joins, Reset, ResetTiming, Synapse


class NeuronBase(NodeBase):
    """The base of all neurons; a parameter is a number, or `"per_neuron"` for an array of the layer's shape."""

    @field_validator("*", mode="after")
    @classmethod
    def _parameter_is_in_its_range(cls, value: object, info: ValidationInfo) -> object:
        parameter = NEURON_PARAMETERS.get(info.field_name or "")
        if parameter and isinstance(value, float):
            parameter.check(value)
        return value

    def values(self) -> dict[str, Parameter]:
        """List the parameters that it has, by name: each a number, or `"per_neuron"`."""
        pairs = ((name, getattr(self, name, None)) for name in NEURON_PARAMETERS)
        return {name: value for name, value in pairs if value is not None}

    def with_values(self, values: Mapping[str, Parameter]) -> Self:
        """Copy it with other parameters, which are not validated."""
        return self.model_copy(update=values)

    def check_needed(self, rule: str, needed: Collection[str], parameters: Collection[str]) -> None:
        """Raise ValueError for one of the parameters that the rule needs and lacks, or has without needing it."""
        for name in parameters:
            if (getattr(self, name) is not None) != (name in needed):
                self._refuse(name, "a value" if name in needed else "none", rule)

    def check_unused(self, rule: str, *parameters: str) -> None:
        """Raise ValueError for one of the parameters, which the rule has no use for, that is not its default."""
        for name in parameters:
            default = NEURON_PARAMETERS[name].default
            if getattr(self, name) != default:
                self._refuse(name, f"{default:g}", rule)

    def _refuse(self, name: str, expected: str, rule: str) -> NoReturn:
        """Raise ValueError for a parameter whose value a rule does not allow."""
        raise ValueError(
            f"node '{self.name}': {name} is {getattr(self, name)}, expected {expected}, since {rule} is "
            f"'{getattr(self, rule)}'"
        )

    @override
    def output_shape(self, shape: Shape) -> Shape:
        return shape

    @override
    def tensor_shapes(self, shape: Shape) -> dict[str, Shape]:
        return {name: shape for name, value in self.values().items() if value == PER_NEURON}


class DrivenNeuron(NeuronBase):
    """A membrane whose input is `gain * current + drive`."""

    gain: Parameter = parameter_field("gain")
    drive: Parameter = parameter_field("drive")
    start: Parameter = parameter_field("start")


class Leaky(DrivenNeuron):
    """A membrane that leaks: its charge rule, and the parameters of that rule."""

    charge: Charge = Charge.DECAY
    decay: Parameter | None = parameter_field("decay")
    rate: Parameter | None = parameter_field("rate")
    tau: Parameter | None = parameter_field("tau")
    leak: Parameter = parameter_field("leak")
    curvature: Parameter | None = parameter_field("curvature")
    critical: Parameter | None = parameter_field("critical")
    sharpness: Parameter | None = parameter_field("sharpness")

    @model_validator(mode="after")
    def _parameters_are_those_of_the_charge(self) -> Self:
        leaks = {name for name in ("decay", "rate", "tau") if getattr(self, name) is not None}
        needed = rules.LEAKS[self.charge]
        if not any(leaks == {name} for name in needed):
            has = f"has {' and '.join(sorted(leaks))}" if leaks else "has none"
            raise ValueError(
                f"node '{self.name}': charge is '{self.charge}', which needs {' or '.join(needed)}, but it {has}"
            )
        self.check_unused("charge", *(name for name in ("leak", "drive") if name not in rules.RESTS[self.charge]))
        self.check_needed("charge", rules.GROWS.get(self.charge, ()), ("curvature", "critical", "sharpness"))
        return self


class Current(NeuronBase):
    """A synaptic current before the membrane: its synapse rule, and the parameters of that rule."""

    synapse: Synapse = Synapse.DECAY
    syn_decay: Parameter | None = parameter_field("syn_decay")
    syn_rate: Parameter | None = parameter_field("syn_rate")
    syn_gain: Parameter = parameter_field("syn_gain")

    @model_validator(mode="after")
    def _parameters_are_those_of_the_synapse(self) -> Self:
        self.check_needed("synapse", [rules.FLOWS[self.synapse]], ("syn_decay", "syn_rate"))
        return self


class Recurrent(FrozenModel):
    """A full connection from a layer's own spikes of the previous step, weight (n, n).

    Its bias is also added at the first step, unless `bias_at_start` is off: in sinabs, and in Norse through nirtorch, a
    recurrent connection has no output before the layer's first step.
    """

    bias: bool = False
    bias_at_start: bool = True
    joins: Joins = Joins.INPUT
    weight_bits: WeightBits = None

    @model_validator(mode="after")
    def _only_a_bias_starts(self) -> Self:
        if not self.bias_at_start and not self.bias:
            raise ValueError("bias_at_start is off, but there is no bias")
        return self


def recurrent_shapes(recurrent: Recurrent | None, shape: Shape) -> dict[str, Shape]:
    """List the tensors of a layer's connection to itself, by name."""
    if recurrent is None:
        return {}
    size = math.prod(shape)
    return {"recurrent.weight": (size, size)} | ({"recurrent.bias": (size,)} if recurrent.bias else {})


class Firing(NeuronBase):
    """The base of the neurons that fire by a rule of the table."""

    threshold: Parameter = parameter_field("threshold")
    fire: Fire = Fire.AT_THRESHOLD

    @property
    def several(self) -> bool:
        """Whether it may fire more than once in a step."""
        return self.fire is Fire.MULTIPLE


class SpikingBase(Firing):
    """The base of the spiking neurons: threshold, fire rule, reset and recurrence."""

    resets_late: ClassVar = True  # whether a reset may be of another timing than `same_step`

    reset: Reset = Reset.SUBTRACT
    reset_value: Parameter = parameter_field("reset_value")
    reset_timing: ResetTiming = ResetTiming.SAME_STEP
    floor: Parameter | None = parameter_field("floor")
    refractory: Parameter | None = parameter_field("refractory")
    recurrent: Recurrent | None = None

    @model_validator(mode="after")
    def _reset_is_one(self) -> Self:
        if self.reset is not Reset.VALUE:
            self.check_unused("reset", "reset_value")
        timings = rules.RESET_TIMINGS[self.reset]
        if self.fire is Fire.MULTIPLE or self.refractory is not None or not self.resets_late:
            timings = (ResetTiming.SAME_STEP,)
        if self.reset_timing not in timings:
            raise ValueError(
                f"node '{self.name}': reset_timing is '{self.reset_timing}', expected {' or '.join(timings)}, as reset "
                f"'{self.reset}', fire '{self.fire}' and the other rules of {type(self).__name__} allow no other"
            )
        if self.refractory is not None and self.fire is Fire.MULTIPLE:
            raise ValueError(f"node '{self.name}': fire is 'multiple', but a neuron with refractory steps fires once")
        return self

    @model_validator(mode="after")
    def _recurrence_joins_what_there_is(self) -> Self:
        joins = self.recurrent.joins if self.recurrent else Joins.INPUT
        synapse, charge = getattr(self, "synapse", None), getattr(self, "charge", Charge.DECAY)
        sums = charge is Charge.DECAY if synapse is None else synapse in rules.SUMS
        if joins is Joins.CHARGE and not sums:
            way = f"charge '{charge}'" if synapse is None else f"synapse '{synapse}'"
            raise ValueError(f"node '{self.name}': recurrent.joins is 'charge', but {way} is no sum to join")
        return self

    @override
    def tensor_shapes(self, shape: Shape) -> dict[str, Shape]:
        return {**super().tensor_shapes(shape), **recurrent_shapes(self.recurrent, shape)}


class Adaptive(SpikingBase):
    """A neuron that adapts: each spike raises its threshold, or a current that opposes it, which falls in between."""

    # A late reset asks whether the membrane of the step before fires, but the threshold is a higher one by then.
    resets_late: ClassVar = False

    adapt: Adapt = Adapt.COUNT
    adapt_decay: Parameter | None = parameter_field("adapt_decay")
    adapt_rate: Parameter | None = parameter_field("adapt_rate")
    adapt_gain: Parameter = parameter_field("adapt_gain", required=True)
    adapt_spike: Parameter = parameter_field("adapt_spike")
    adapt_coupling: Parameter | None = parameter_field("adapt_coupling")

    @model_validator(mode="after")
    def _parameters_are_those_of_the_adaptation(self) -> Self:
        self.check_needed("adapt", rules.FORGETS[self.adapt], ("adapt_decay", "adapt_rate", "adapt_coupling"))
        if self.adapt is not Adapt.COUNT:
            self.check_unused("adapt", "adapt_spike")
        charge = getattr(self, "charge", None)
        if self.adapt is Adapt.CURRENT and charge is not Charge.EXPONENTIAL:
            raise ValueError(
                f"node '{self.name}': adapt is 'current', which needs charge 'exponential', but charge is '{charge}'"
            )
        return self


class IF(DrivenNeuron, SpikingBase):
    """Integrate and fire: a LIF without leak."""

    type: Literal["IF"] = "IF"


class LIF(Leaky, SpikingBase):
    """Leaky integrate and fire."""

    type: Literal["LIF"] = "LIF"


class CubaLIF(Current, Leaky, SpikingBase):
    """Leaky integrate and fire with a synaptic current (current-based LIF)."""

    type: Literal["CubaLIF"] = "CubaLIF"


class ALIF(Leaky, Adaptive):
    """Adaptive leaky integrate and fire: a LIF whose threshold rises with each of its spikes (Bellec et al., 2018)."""

    type: Literal["ALIF"] = "ALIF"


class CubaALIF(Current, Leaky, Adaptive):
    """Adaptive leaky integrate and fire with a synaptic current."""

    type: Literal["CubaALIF"] = "CubaALIF"


class AdLIF(DrivenNeuron, SpikingBase):
    """Adaptive LIF: a current that follows membrane and spikes opposes the input (SE-adLIF, Baronig et al., 2025)."""

    resets_late: ClassVar = False

    type: Literal["AdLIF"] = "AdLIF"
    decay: Parameter = parameter_field("decay", required=True)
    adapt_decay: Parameter = parameter_field("adapt_decay", required=True)
    adapt_coupling: Parameter = parameter_field("adapt_coupling", required=True)
    adapt_spike: Parameter = parameter_field("adapt_spike")


class Alpha(Firing):
    """A membrane that is the difference of two synaptic currents, which rises and falls after an input (snnTorch)."""

    reset_timing: ClassVar = ResetTiming.NEXT_STEP
    floor: ClassVar = None
    refractory: ClassVar = None
    recurrent: ClassVar = None

    type: Literal["Alpha"] = "Alpha"
    exc_decay: Parameter = parameter_field("exc_decay", required=True)
    inh_decay: Parameter = parameter_field("inh_decay", required=True)
    gain: Parameter = parameter_field("gain")
    reset: Reset = Reset.SUBTRACT

    @model_validator(mode="after")
    def _it_fires_once(self) -> Self:
        if self.fire is Fire.MULTIPLE:
            raise ValueError(f"node '{self.name}': fire is 'multiple', but an Alpha fires once")
        return self


class RF(DrivenNeuron, SpikingBase):
    """Resonate and fire: an oscillation whose imaginary part is the membrane (Izhikevich, 2001)."""

    type: Literal["RF"] = "RF"
    decay: Parameter = parameter_field("decay", required=True)
    cosine: Parameter = parameter_field("cosine", required=True)
    sine: Parameter = parameter_field("sine", required=True)


class Threshold(Firing):
    """A spike wherever the input reaches a threshold: a neuron without a membrane, and so without a reset."""

    reset: ClassVar = Reset.NONE
    reset_timing: ClassVar = ResetTiming.SAME_STEP
    floor: ClassVar = None
    refractory: ClassVar = None
    recurrent: ClassVar = None

    type: Literal["Threshold"] = "Threshold"


class I(DrivenNeuron):  # noqa: E742  (NIR's name for it)
    """An integrator: an LI without leak."""

    recurrent: ClassVar = None

    type: Literal["I"] = "I"


class LI(Leaky):
    """A leaky integrator: a membrane that never fires, used as a readout."""

    recurrent: ClassVar = None

    type: Literal["LI"] = "LI"


class CubaLI(Current, Leaky):
    """A leaky integrator with a synaptic current."""

    recurrent: ClassVar = None

    type: Literal["CubaLI"] = "CubaLI"
