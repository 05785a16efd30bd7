"""Control: what the routes do to the whole server, be it one process or several workers.

Here is the interface, and how one process alone does it; `service.process.control` does it for several workers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from service.catalog.registry import Registry
from service.catalog.threads import Threads
from service.errors import NotReady, ShuttingDown
from service.settings import Settings
from service.telemetry.metrics.app import Metrics
from service.telemetry.v2_statistics import InferStatistics, Statistics, model_statistics


class Control(Protocol):
    """Loads and unloads models, and tells what all workers have counted."""

    async def load(self, name: str) -> None:
        """Have every worker load a model's versions. Raises ModelNotFound, LoadFailed, NotReady and ShuttingDown."""
        ...

    async def unload(self, name: str) -> None:
        """Have no worker serve a model any more. Raises ModelNotFound and NotReady."""
        ...

    def check_ready(self) -> None:
        """Raise NotReady, which says why, where the server is not ready. Raises ShuttingDown."""
        ...

    async def exposition(self) -> bytes:
        """Return the metrics of all workers in Prometheus' text format."""
        ...

    async def statistics(self, versions: Iterable[tuple[str, int]]) -> Statistics:
        """Return the v2 statistics of `versions`, (name, version) each, summed over all workers."""
        ...


class LocalControl:
    """Control of this process alone."""

    def __init__(
        self, registry: Registry, threads: Threads, metrics: Metrics, statistics: InferStatistics, settings: Settings
    ) -> None:
        self.registry = registry
        self.threads = threads
        self.metrics = metrics
        self.infer_statistics = statistics
        self.settings = settings

    async def load(self, name: str) -> None:
        """Load a model's versions; it may take long."""
        await self.registry.load(name)

    async def unload(self, name: str) -> None:
        """Serve a model no more."""
        await self.registry.unload(name)

    def check_ready(self) -> None:
        """Raise NotReady or ShuttingDown where the models or the threads do not answer."""
        self.registry.check_ready()
        if self.registry.first_load_over:  # while libraries load, nothing else may run for seconds
            self.threads.check_alive(self.settings.stuck_seconds)

    def is_ready(self) -> bool:
        """Return whether `check_ready` has nothing to raise."""
        try:
            self.check_ready()
        except (NotReady, ShuttingDown):
            return False
        return True

    async def exposition(self) -> bytes:
        """Return this process's metrics in Prometheus' text format."""
        return self.metrics.exposition(self.registry.version_records(), ready=self.is_ready(), labels={}).encode()

    async def statistics(self, versions: Iterable[tuple[str, int]]) -> Statistics:
        """Return this process's v2 statistics of `versions`."""
        keys = list(versions)
        return model_statistics(keys, self.infer_statistics.sums_of(keys))
