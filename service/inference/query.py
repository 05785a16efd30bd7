"""What a request asks of a model, whatever protocol it came in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from models.engines import Record
from models.spec.network import FloatArray


class Returned(StrEnum):
    """What an answer may hold beyond its counts."""

    RASTER = "raster"
    MEMBRANE = "membrane"
    SPIKES_PER_NODE = "spikes_per_node"


RECORDED = {Returned.RASTER: Record.RASTER, Returned.MEMBRANE: Record.MEMBRANE}  # by the engine, where it is asked to


@dataclass(frozen=True)
class Query:
    """What a request asks: samples (batch, *shape), or (batch, time_steps, *shape) for `spikes`, not yet encoded."""

    samples: FloatArray
    time_steps: int
    seed: int
    returned: frozenset[Returned] = frozenset()
    timeout: float | None = None  # seconds from its arrival, where the body says that it may take no longer

    @property
    def record(self) -> Record:
        """What the engine must keep for the answer."""
        record = Record.NONE
        for each in self.returned & RECORDED.keys():
            record |= RECORDED[each]
        return record
