"""What the routes ask of the whole server: load and unload models, readiness, metrics and statistics."""

from __future__ import annotations

from collections.abc import Iterable

from service.catalog.registry import Registry
from service.inference.v2.schemas import Statistics
from service.telemetry.metrics.app import Metrics
from service.telemetry.v2_statistics import RequestStats, model_statistics


class Control:
    """The control of a server that is one process; one of several workers has its own (`service.process.control`)."""

    loads_first = False  # whether the models are to be loaded before the first connection is accepted

    def __init__(self, registry: Registry, metrics: Metrics, stats: RequestStats) -> None:
        self.registry, self.metrics, self.stats = registry, metrics, stats

    async def start(self) -> None:
        """Begin, once the registry has its threads."""

    async def stop(self) -> None:
        """End what `start` began."""

    def polled(self) -> None:
        """Note that the registry has looked for new versions, and may have loaded some."""

    async def load(self, name: str) -> None:
        """Load a model's versions in every process, as `Registry.load` does; raises what that does, and NotReady."""
        await self.registry.load(name)

    async def unload(self, name: str) -> None:
        """Serve a model in no process any more. Raises ModelNotFound and NotReady."""
        await self.registry.unload(name)

    async def check_ready(self) -> None:
        """Raise NotReady or ShuttingDown with a sentence where a process is not ready."""
        self.registry.check_ready()

    async def exposition(self) -> bytes:
        """Return the metrics of all processes in Prometheus' text format."""
        return self.metrics.exposition({}).encode()

    async def statistics(self, versions: Iterable[tuple[str, int]]) -> Statistics:
        """Return the statistics of `versions`, (name, version) each, summed over all processes."""
        keys = list(versions)
        return model_statistics(keys, self.stats.sums_of(keys))
