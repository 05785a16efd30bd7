"""The table of the parameters that neurons can have: range, default, neutral value and meaning.

The nodes' fields, the ranges of arrays, the engines' per-neuron arrays and docs/spec.md are made from this table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field
from pydantic_core import PydanticKnownError

MIN_POSITIVE = 2.0**-149  # the smallest positive float32


@dataclass(frozen=True)
class NeuronParameter:
    """A parameter: one number for a whole layer, or one for each neuron.

    Its values lie from `low` to `high`. `default` is used if a node does not set it; None means absent. An engine that
    holds every parameter for every neuron uses `neutral` where a node does not have the parameter. A factor of 1 and a
    summand of 0 change no bit, so that the equations may leave them out.
    """

    name: str
    meaning: str
    default: float | None = None
    low: float = -math.inf
    high: float = math.inf
    neutral: float = 0.0

    @property
    def range(self) -> str:
        """The range as text, for docs/spec.md."""
        if self.low == -math.inf:
            return "any"
        if self.low == MIN_POSITIVE:
            return "> 0"
        return ">= 0" if self.high == math.inf else f"{self.low:g} to {self.high:g}"

    def check(self, value: float) -> None:
        """Raise pydantic's error for a number out of range."""
        if value > self.high:
            raise PydanticKnownError("less_than_equal", {"le": self.high})
        if value < self.low:
            raise PydanticKnownError(*(
                ("greater_than", {"gt": 0.0}) if self.low == MIN_POSITIVE else ("greater_than_equal", {"ge": self.low})
            ))  # fmt: skip


# Those of a plain LIF come first, so that an engine that holds one row per parameter has them side by side.
_TABLE = (
    NeuronParameter("decay", "what is left of the membrane", low=0.0, high=1.0, neutral=1.0),
    NeuronParameter("gain", "the factor of the current", 1.0, neutral=1.0),
    NeuronParameter("drive", "a constant current; only without a leak or with `charge` `decay` or `truncated`", 0.0),
    NeuronParameter("threshold", "where a neuron fires", 1.0, low=MIN_POSITIVE, neutral=math.inf),
    NeuronParameter("reset_value", "what it is set to; only with `value`", 0.0),
    NeuronParameter("rate", "dt / tau", low=0.0),
    NeuronParameter(
        "tau",
        "to divide by instead, for `relax`, `leak_then_add`, `quadratic` and `exponential_input_first`",
        low=MIN_POSITIVE,
    ),
    NeuronParameter("leak", "where the membrane rests; not with `decay`, `truncated` or `filter`", 0.0),
    NeuronParameter("refractory", "for how many steps after a spike a neuron neither charges nor fires", low=0.0),
    NeuronParameter("curvature", "the factor of the square; only with `quadratic`", low=0.0),
    NeuronParameter("critical", "from where on it grows by itself; only with `quadratic` and the exponential charges"),
    NeuronParameter(
        "sharpness", "how far the membrane rises while its growth is multiplied by e; only with those", low=MIN_POSITIVE
    ),
    NeuronParameter("syn_decay", "what is left of the current", low=0.0, high=1.0),
    NeuronParameter("syn_rate", "dt / tau_syn", low=0.0),
    NeuronParameter("syn_gain", "the factor of the input", 1.0, neutral=1.0),
    NeuronParameter("floor", "`v = max(v - floor, 0) + floor` after the reset: sinabs `min_v_mem`"),
    NeuronParameter("start", "the membrane before the first step: `v_reset` in SpikingJelly, `v_leak` in Norse", 0.0),
    NeuronParameter("exc_decay", "what is left of the exciting current", low=0.0, high=1.0),
    NeuronParameter("inh_decay", "what is left of the inhibiting current", low=0.0, high=1.0),
    NeuronParameter("cosine", "the cosine of the angle by which a step turns an `RF`", low=-1.0, high=1.0),
    NeuronParameter("sine", "the sine of that angle", low=-1.0, high=1.0),
    NeuronParameter("adapt_decay", "what is left of the adaptation", low=0.0, high=1.0),
    NeuronParameter("adapt_gain", "what a spike adds to the next step's threshold, or current", low=0.0),
    NeuronParameter("adapt_rate", "dt / tau of the way back", low=0.0),
    NeuronParameter(
        "adapt_spike", "what a spike counts in the adaptation; with `count`, or of `AdLIF`", 1.0, low=0.0, neutral=1.0
    ),
    NeuronParameter("adapt_coupling", "how much of `v - leak` the current follows; with `current`, or of `AdLIF`"),
)

NEURON_PARAMETERS: Mapping[str, NeuronParameter] = {parameter.name: parameter for parameter in _TABLE}
ROWS = tuple(NEURON_PARAMETERS)
NEUTRAL: Mapping[str, float] = {name: parameter.neutral for name, parameter in NEURON_PARAMETERS.items()}


def parameter_field(name: str, *, required: bool = False) -> Any:
    """Return the pydantic field of a parameter: its meaning, and its default unless it is `required`."""
    parameter = NEURON_PARAMETERS[name]
    if required:
        return Field(description=parameter.meaning)
    return Field(default=parameter.default, description=parameter.meaning)
