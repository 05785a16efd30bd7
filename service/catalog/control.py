"""Control: the operations on the whole server, which load and unload models, and collect readiness and metrics."""

from __future__ import annotations

from collections.abc import Iterable

from spikeserve.service.catalog.registry import Registry
from spikeserve.service.catalog.threads import Threads
from spikeserve.service.errors import NotReady, ShuttingDown
from spikeserve.service.settings import Settings
from spikeserve.service.telemetry.metrics import Metrics
from spikeserve.service.telemetry.v2_statistics import InferStatistics, Statistics, model_statistics


class Control:
    """The control of a server of one process; a worker among several has another (`service.process.control`)."""

    loads_first = False  # whether the models are loaded before the first connection is accepted

    def __init__(
        self, registry: Registry, threads: Threads, metrics: Metrics, statistics: InferStatistics, settings: Settings
    ) -> None:
        self.registry = registry
        self.threads = threads
        self.metrics = metrics
        self.infer_statistics = statistics
        self.settings = settings

    async def start(self) -> None:
        """Start, before the first model is loaded."""

    async def stop(self) -> None:
        """Stop what `start` started."""

    def polled(self) -> None:
        """Handle the end of a poll, in which the registry may have loaded new versions."""

    async def load(self, name: str) -> None:
        """Load a model's versions in every process. Raises ModelNotFound, LoadFailed, NotReady and ShuttingDown."""
        await self.registry.load(name)

    async def unload(self, name: str) -> None:
        """Unload a model in every process. Raises ModelNotFound and NotReady."""
        await self.registry.unload(name)

    async def check_ready(self) -> None:
        """Raise NotReady or ShuttingDown if any process is not ready."""
        self.check_process_ready()

    def check_process_ready(self) -> None:
        """Raise NotReady or ShuttingDown if this process is not ready."""
        self.registry.check_ready()
        self._check_threads(self.settings.stuck_seconds, "")

    def check_live(self) -> None:
        """Raise NotReady if all threads of this process are held by work that does not end: only a restart helps.

        A run is asked to stop at the deadline of its requests. Each thread has had the longest deadline and
        `stuck_seconds` more to become free.
        """
        deadline = self.settings.request_timeout_ms / 1000
        self._check_threads(
            deadline + self.settings.stuck_seconds, ", although no request may take so long: restart the server"
        )

    def _check_threads(self, seconds: float, addition: str) -> None:
        # Importing libraries during the first load can block threads for seconds.
        if self.registry.first_load_over and self.threads.stuck(seconds):
            raise NotReady(f"the worker threads have given no sign of life for more than {seconds:g} s{addition}")

    async def exposition(self) -> bytes:
        """Return the metrics of all processes in Prometheus' text format."""
        return self.process_exposition().encode()

    def process_exposition(self, **labels: str) -> str:
        """Return the metrics of this process, with `labels` added to each."""
        try:
            self.check_process_ready()
            ready = True
        except (NotReady, ShuttingDown):
            ready = False
        return self.metrics.exposition(self.registry.version_records(), ready=ready, labels=labels)

    async def statistics(self, versions: Iterable[tuple[str, int]]) -> Statistics:
        """Return the v2 statistics of `versions`, (name, version) pairs, summed over all processes."""
        keys = list(versions)
        return model_statistics(keys, self.infer_statistics.sums_of(keys))
