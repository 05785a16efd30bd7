"""A query: a decoded request, the same for both protocols."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from spikeserve.models.coding import Inputs
from spikeserve.models.engines import Record, State
from spikeserve.models.engines.anytime import StopRule
from spikeserve.models.spec.network import FloatArray
from spikeserve.service.errors import shown


class Returned(StrEnum):
    """The optional fields of an answer."""

    RASTER = "raster"
    MEMBRANE = "membrane"
    SPIKES_PER_NODE = "spikes_per_node"
    REPORT = "report"


RECORDED = {Returned.RASTER: Record.RASTER, Returned.MEMBRANE: Record.MEMBRANE}  # those that the engine must record


@dataclass(frozen=True)
class InSequence:
    """The sequence that a request belongs to, and whether it is the first or last of it.

    A first one begins at `state`, where None is rest. `tells_state`: whether the answer holds the state after it.
    """

    id: int | str
    start: bool
    end: bool
    state: State | None = None
    tells_state: bool = False

    @property
    def shown(self) -> str:
        """The id as a sentence shows it."""
        return shown(self.id)


@dataclass(frozen=True)
class Query:
    """A decoded request.

    `samples`: raw values, not yet encoded, (batch, *shape), or (batch, time_steps, *shape) for `spikes` and `current`
    coding; or inputs already, where they were sent as events.
    """

    samples: FloatArray | Inputs
    time_steps: int
    seed: int
    answer_bytes: int  # the most that the answer can take, before it is compressed; at most max_answer_bytes
    returned: frozenset[Returned] = frozenset()
    timeout: float | None = None  # the body's own timeout, in seconds from the request's arrival
    stop: StopRule | None = None  # the rule by which its samples may end before the last step
    sequence: InSequence | None = None

    @property
    def record(self) -> Record:
        """What the engine must record for the answer."""
        record = Record.NONE
        for each in self.returned & RECORDED.keys():
            record |= RECORDED[each]
        return record
