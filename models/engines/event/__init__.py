"""The `event` engine: spikes travel as events, and work is done for each of them."""

from spikeserve.models.engines.event.engine import EventEngine

__all__ = ["EventEngine"]
