"""The names of the rules of neurons: charge, synaptic current, fire and reset."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Fire(StrEnum):
    """When a neuron fires: at its threshold (`>=`), above it (`>`), or once for each multiple of it (sinabs)."""

    AT_THRESHOLD = "at_threshold"
    ABOVE_THRESHOLD = "above_threshold"
    MULTIPLE = "multiple"


class Reset(StrEnum):
    """What a spike does to the membrane."""

    SUBTRACT = "subtract"
    VALUE = "value"
    NONE = "none"


class ResetTiming(StrEnum):
    """When a reset happens; a late one depends on whether the membrane of the previous step fires, as in snnTorch.

    `same_step`: right after the spike. `next_step`: in the next step; a subtraction is from the charged membrane, a
    reset to a value comes before the membrane decays. `next_step_charged`: in the next step, to a value that replaces
    the charged membrane. `corrected`: as `next_step`, and again for a spike that is new in this step.
    `corrected_charged`: as `next_step_charged`, and again for a new spike.
    """

    SAME_STEP = "same_step"
    NEXT_STEP = "next_step"
    NEXT_STEP_CHARGED = "next_step_charged"
    CORRECTED = "corrected"
    CORRECTED_CHARGED = "corrected_charged"


class Charge(StrEnum):
    """How a membrane charges. `euler` to `leak_then_add` are one equation in four orders of rounding.

    `truncated` drops the fraction of what `decay` leaves, as Intel's Loihi does. `quadratic` grows with the square of
    the membrane. `exponential` and `exponential_input_first` grow with its exponential, as in Norse and in
    SpikingJelly. `filter` decays the less the more arrives.
    """

    DECAY = "decay"
    TRUNCATED = "truncated"
    EULER = "euler"
    EULER_INPUT_FIRST = "euler_input_first"
    RELAX = "relax"
    LEAK_THEN_ADD = "leak_then_add"
    QUADRATIC = "quadratic"
    EXPONENTIAL = "exponential"
    EXPONENTIAL_INPUT_FIRST = "exponential_input_first"
    FILTER = "filter"


class Synapse(StrEnum):
    """How a synaptic current is computed, each as in another framework."""

    DECAY = "decay"
    EULER = "euler"
    JUMP = "jump"
    SUM_THEN_DECAY = "sum_then_decay"
    LATE_JUMP = "late_jump"


class Adapt(StrEnum):
    """How a neuron adapts: its spikes raise its threshold, or a current is taken from what charges it (AdEx).

    `count`: they are counted in a sum above the threshold's base. `relax`: the threshold relaxes to its base (Norse).
    `current`: the current follows the membrane and jumps with each spike.
    """

    COUNT = "count"
    RELAX = "relax"
    CURRENT = "current"


class Joins(StrEnum):
    """Where a recurrent current is added: to the layer's input, or to the charged membrane (snnTorch)."""

    INPUT = "input"
    CHARGE = "charge"


# For each charge rule the parameters of which it needs exactly one.
LEAKS: Mapping[Charge, tuple[str, ...]] = {
    **dict.fromkeys(Charge, ("rate",)),
    **dict.fromkeys((Charge.DECAY, Charge.TRUNCATED), ("decay",)),
    **dict.fromkeys((Charge.RELAX, Charge.LEAK_THEN_ADD, Charge.QUADRATIC), ("rate", "tau")),
    Charge.EXPONENTIAL_INPUT_FIRST: ("tau",),
}

# For each charge rule which of the parameters `leak` and `drive` it has.
RESTS: Mapping[Charge, tuple[str, ...]] = {
    **dict.fromkeys(Charge, ("leak",)),
    **dict.fromkeys((Charge.DECAY, Charge.TRUNCATED), ("drive",)),
    Charge.FILTER: (),
}

# For the charge rules that do not relax alone, the other parameters that they need.
GROWS: Mapping[Charge, tuple[str, ...]] = {
    Charge.QUADRATIC: ("curvature", "critical"),
    Charge.EXPONENTIAL: ("sharpness", "critical"),
    Charge.EXPONENTIAL_INPUT_FIRST: ("sharpness", "critical"),
}

# For each synapse rule the one parameter that it needs.
FLOWS: Mapping[Synapse, str] = {
    **dict.fromkeys(Synapse, "syn_rate"),
    **dict.fromkeys((Synapse.DECAY, Synapse.SUM_THEN_DECAY), "syn_decay"),
}

# The synapse rules whose last operation is a sum that a recurrent current can join.
SUMS = (Synapse.DECAY, Synapse.JUMP, Synapse.LATE_JUMP)

# For each rule of adaptation the parameters that it needs beside `adapt_gain`.
FORGETS: Mapping[Adapt, tuple[str, ...]] = {
    Adapt.COUNT: ("adapt_decay",),
    Adapt.RELAX: ("adapt_rate",),
    Adapt.CURRENT: ("adapt_rate", "adapt_coupling"),
}

# The timings that each reset allows.
RESET_TIMINGS: Mapping[Reset, tuple[ResetTiming, ...]] = {
    Reset.SUBTRACT: (ResetTiming.SAME_STEP, ResetTiming.NEXT_STEP, ResetTiming.CORRECTED),
    Reset.VALUE: tuple(ResetTiming),
    Reset.NONE: (ResetTiming.SAME_STEP,),
}
