"""The engines: one protocol and several implementations, which run the same spec spike for spike."""

from spikeserve.models.engines.base import Engine, Record, RunResult, State, Stop
from spikeserve.models.engines.declared import ENGINES, EngineName, available, create

__all__ = ["ENGINES", "Engine", "EngineName", "Record", "RunResult", "State", "Stop", "available", "create"]
