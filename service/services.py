"""The objects that routes and calls use, in one typed container that `service.app` makes."""

from __future__ import annotations

from dataclasses import dataclass

from spikeserve.service.catalog.catalog import Catalog
from spikeserve.service.catalog.control import Control
from spikeserve.service.catalog.loader import Loader
from spikeserve.service.catalog.readiness import Readiness
from spikeserve.service.catalog.threads import Threads
from spikeserve.service.inference.decoding.memory import MemoryBudget
from spikeserve.service.inference.decoding.pieces import Iteration
from spikeserve.service.inference.protocols.v2.sequences import Sequences
from spikeserve.service.inference.scheduling.batcher import Batcher
from spikeserve.service.inference.sessions.blob import Blobs
from spikeserve.service.inference.sessions.table import Places, Sessions
from spikeserve.service.keys import KeyRing
from spikeserve.service.settings import Settings
from spikeserve.service.telemetry.metrics import Metrics
from spikeserve.service.telemetry.tracing import Tracing


@dataclass(frozen=True)
class Services:
    """The objects that one app is made of."""

    settings: Settings
    iteration: Iteration
    threads: tuple[Threads, ...]  # that live as long as the app
    keys: KeyRing
    catalog: Catalog
    loader: Loader
    readiness: Readiness
    batcher: Batcher
    control: Control
    budget: MemoryBudget
    metrics: Metrics
    places: Places
    sessions: Sessions
    sequences: Sequences
    blobs: Blobs
    tracing: Tracing | None
