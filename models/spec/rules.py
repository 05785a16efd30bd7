"""The rules that neurons follow, by name: how they charge, how a synaptic current flows, when they fire and reset."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Fire(StrEnum):
    """When a neuron fires: at its threshold (`>=`), only above it (`>`), or as often as thresholds fit (sinabs)."""

    AT_THRESHOLD = "at_threshold"
    ABOVE_THRESHOLD = "above_threshold"
    MULTIPLE = "multiple"


class Reset(StrEnum):
    """What a spike does to the membrane."""

    SUBTRACT = "subtract"
    VALUE = "value"
    NONE = "none"


class ResetTiming(StrEnum):
    """When a reset happens; late ones hang on whether the membrane of the step before fires, as in snnTorch.

    `same_step`: right after the spike. `next_step`: in the step after, by subtraction from what was charged, to a value
    before the membrane decays. `next_step_charged`: to a value in place of what was charged, which is lost.
    `corrected`: as `next_step`, and then again for a spike that was new in this step. `corrected_charged`: the same
    with `next_step_charged`.
    """

    SAME_STEP = "same_step"
    NEXT_STEP = "next_step"
    NEXT_STEP_CHARGED = "next_step_charged"
    CORRECTED = "corrected"
    CORRECTED_CHARGED = "corrected_charged"


class Charge(StrEnum):
    """How a membrane charges. The last four are one equation in four orders of rounding, each a peer's."""

    DECAY = "decay"
    EULER = "euler"
    EULER_INPUT_FIRST = "euler_input_first"
    RELAX = "relax"
    LEAK_THEN_ADD = "leak_then_add"


class Synapse(StrEnum):
    """How a synaptic current flows, each as a peer computes it."""

    DECAY = "decay"
    EULER = "euler"
    JUMP = "jump"
    SUM_THEN_DECAY = "sum_then_decay"


class Joins(StrEnum):
    """Where a recurrent current is added: to the layer's input, or last to what that input charges (snnTorch)."""

    INPUT = "input"
    CHARGE = "charge"


# The parameters that each way to charge needs one of.
LEAKS: Mapping[Charge, tuple[str, ...]] = {
    Charge.DECAY: ("decay",),
    Charge.EULER: ("rate",),
    Charge.EULER_INPUT_FIRST: ("rate",),
    Charge.RELAX: ("rate", "tau"),
    Charge.LEAK_THEN_ADD: ("rate", "tau"),
}

# When each reset can happen.
RESET_TIMINGS: Mapping[Reset, tuple[ResetTiming, ...]] = {
    Reset.SUBTRACT: (ResetTiming.SAME_STEP, ResetTiming.NEXT_STEP, ResetTiming.CORRECTED),
    Reset.VALUE: tuple(ResetTiming),
    Reset.NONE: (ResetTiming.SAME_STEP,),
}
