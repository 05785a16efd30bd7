"""What snnTorch's neurons computed in earlier releases, where no named neuron computes the same: steps as lines.

Until 0.7.0 a neuron that keeps its state (`init_hidden`) and one that is handed it had an equation each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import snntorch as snn

from spikeserve.training.importers.frameworks.layer import Layer

LATE = "late = hold(fire_above(membrane, threshold))"
FIRES = "spikes = fire_above(membrane, threshold)"


@dataclass(frozen=True)
class Step:
    """The states of a step, of which the membrane is the first and all begin at 0, and its lines before it fires."""

    states: tuple[str, ...]
    lines: tuple[str, ...]


# Handed its state, 0.5.3 to 0.7.0: the threshold is subtracted before the membrane decays.
SUBTRACTS_FIRST = Step(("membrane",), (LATE, "membrane = decay * (membrane - late * threshold) + current"))
SUBTRACTS_FIRST_RECURRENT = Step(
    ("membrane",), (LATE, "membrane = decay * (membrane - late * threshold) + current + feedback")
)
# Keeping its state, to 0.7.0: Synaptic charges its membrane by its input, and takes its current only to reset to zero.
CHARGED_BY_INPUT = Step(
    ("membrane", "synapse"),
    (
        LATE,
        "synapse = syn_decay * synapse + current",
        "leaked = decay * membrane",
        "membrane = leaked + current - late * (leaked + synapse)",
    ),
)
# Keeping its state, to 0.7.0: RSynaptic resets its current to zero too.
RESETS_CURRENT = Step(
    ("membrane", "synapse"),
    (
        LATE,
        "arrived = syn_decay * synapse + current + feedback",
        "charged = decay * membrane + arrived",
        "synapse = arrived - late * arrived",
        "membrane = charged - late * charged",
    ),
)
# Handed its state, to 0.7.0: the membrane of an Alpha that subtracts is not reset.
KEEPS_MEMBRANE = Step(
    ("membrane", "synapse", "inhibition"),
    (
        LATE,
        "excites = exc_decay * synapse + current",
        "inhibits = inh_decay * inhibition - current",
        "membrane = gain * (excites + inhibits)",
        "synapse = excites - late * threshold",
        "inhibition = inhibits - late * inhibits",
    ),
)
# Handed its state, 0.8.0 to 0.9.1: Synaptic takes the membrane of the step before for its current.
CURRENT_IS_MEMBRANE: Mapping[str, Step] = MappingProxyType(
    {
        reset: Step(("membrane",), (LATE, "charged = decay * membrane + (syn_decay * membrane + current)", line))
        for reset, line in (
            ("subtract", "membrane = charged - late * threshold"),
            ("zero", "membrane = charged - late * charged"),
        )
    }
    | {"none": Step(("membrane",), ("membrane = decay * membrane + (syn_decay * membrane + current)",))}
)


def past_step(layer: Layer, kind: type[Any] | None, reset: str) -> Step | None:
    """Return the step of a neuron in the release asked for; None where a named neuron computes the same."""
    if not layer.before("0.8.0"):
        is_handed = kind is snn.Synaptic and layer.given_state and layer.before("0.9.4")
        return CURRENT_IS_MEMBRANE[reset] if is_handed else None
    if layer.module.init_hidden:
        keeps = {(snn.Synaptic, "zero"): CHARGED_BY_INPUT, (snn.RSynaptic, "zero"): RESETS_CURRENT}
        return keeps.get((kind, reset))
    handed = {(snn.Alpha, "subtract"): KEEPS_MEMBRANE}
    if not layer.before("0.5.3"):
        handed |= {
            (snn.Leaky, "subtract"): SUBTRACTS_FIRST,
            (snn.RLeaky, "subtract"): SUBTRACTS_FIRST_RECURRENT,
        }
    return handed.get((kind, reset))
