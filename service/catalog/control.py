"""Control: the operations on the whole server, which load and unload models, and collect readiness and metrics."""

from __future__ import annotations

from spikeserve.service.catalog.catalog import Catalog
from spikeserve.service.catalog.loader import Loader
from spikeserve.service.catalog.readiness import Readiness
from spikeserve.service.errors import NotReady, ShuttingDown
from spikeserve.service.telemetry.metrics import Metrics


class Control:
    """The control of a server of one process; a worker among several has another (`service.process.control`)."""

    loads_first = False  # whether the models are loaded before the first connection is accepted

    def __init__(self, catalog: Catalog, loader: Loader, readiness: Readiness, metrics: Metrics) -> None:
        self.catalog = catalog
        self.loader = loader
        self.readiness = readiness
        self.metrics = metrics

    async def start(self) -> None:
        """Start, before the first model is loaded."""

    def polled(self) -> None:
        """Handle the end of a poll, which may have found new versions."""

    async def load(self, name: str) -> None:
        """Load a model's versions in every process. Raises ModelNotFound, LoadFailed, NotReady and ShuttingDown."""
        await self.loader.load(name)

    async def unload(self, name: str) -> None:
        """Unload a model in every process. Raises ModelNotFound and NotReady."""
        await self.loader.unload(name)

    async def check_ready(self) -> None:
        """Raise NotReady or ShuttingDown if any process is not ready."""
        self.readiness.check()

    async def exposition(self) -> bytes:
        """Return the metrics of all processes in Prometheus' text format."""
        return self.process_exposition().encode()

    def process_exposition(self, **labels: str) -> str:
        """Return the metrics of this process, with `labels` added to each."""
        try:
            self.readiness.check()
            ready = True
        except (NotReady, ShuttingDown):
            ready = False
        return self.metrics.exposition(self.catalog.every_version(), ready=ready, labels=labels)
