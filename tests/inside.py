"""What an app of a test holds now, asked by name; and what a test does to it that no request can ask for."""

from typing import Any

from fastapi import FastAPI

from spikeserve.service.catalog.catalog import Catalog
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.catalog.loader import Loader
from spikeserve.service.inference.scheduling.queue import Queue
from spikeserve.service.inference.scheduling.scheduler import Scheduler
from spikeserve.service.inference.sessions.table import EndReason
from spikeserve.service.services import Services
from tests import held


class Inside:
    """The one place where tests reach into the services of an app."""

    def __init__(self, app: FastAPI | Any) -> None:
        self.services: Services = app.state.services
        self.loader: Loader = self.services.loader
        self.catalog: Catalog = self.services.catalog
        self.scheduler: Scheduler = self.services.batcher.scheduler

    def model(self, name: str | None = None) -> LoadedModel:
        """Return a model, whose queue is there: its cost is the one that was measured, whatever a test makes of it."""
        model = self.catalog.get(name)
        self.scheduler.queue(model)
        return model

    def queue(self, name: str | None = None) -> Queue:
        """Return the work that waits for a model."""
        return self.scheduler.queue(self.model(name))

    @property
    def reserved(self) -> int:
        """The bytes of bodies and answers that count in the memory budget."""
        return self.services.budget.reserved

    @property
    def requests(self) -> int:
        """How many requests of HTTP are in progress."""
        return self.services.metrics.requests.in_flight

    @property
    def sessions(self) -> int:
        """How many sessions and sequences are open."""
        return self.services.places.usage.count

    @property
    def held(self) -> dict[str, Any]:
        """What requests hold now, by name."""
        return {name: value for name, value in held.by_requests(self.services).items() if value}

    def drain(self, *, drains: bool = True) -> None:
        """Shut down as a signal has it, up to where requests are refused."""
        self.catalog.draining = drains

    def end_sessions(self, name: str | None = None) -> None:
        """End every session and sequence, or those of one model, as a server that drains does."""
        self.services.places.end_all(EndReason.DRAINING, name)

    def forget(self) -> None:
        """Forget what is known of heads and frames of requests."""
        self.catalog.changes += 1
