"""The objects that the routes use, in one typed container that `service.app` makes."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from service.catalog.registry import Registry
from service.http.control import Control
from service.http.middleware.keys import KeyRing
from service.inference.memory import MemoryBudget
from service.inference.pipeline import Pipeline
from service.inference.sessions.blob import Blobs
from service.inference.sessions.table import Sessions
from service.settings import Settings
from service.telemetry.metrics.app import Metrics
from service.telemetry.tracing import Tracing
from service.telemetry.v2_statistics import InferStatistics


@dataclass(frozen=True)
class Services:
    """The objects that one app is made of."""

    settings: Settings
    keys: KeyRing
    registry: Registry
    pipeline: Pipeline
    control: Control
    budget: MemoryBudget
    metrics: Metrics
    infer_statistics: InferStatistics
    sessions: Sessions
    blobs: Blobs
    tracing: Tracing | None


async def services_of(request: Request) -> Services:  # async, since FastAPI runs a plain function on another thread
    """Return the services of the app that handles a request."""
    services: Services = request.app.state.services
    return services
