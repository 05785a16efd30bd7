"""The services: all that the routes work with, one typed object that `service.app` makes."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from service.catalog.registry import Registry
from service.http.control import Control
from service.http.middleware.keys import KeyRing
from service.inference.memory import MemoryBudget
from service.inference.pipeline import Pipeline
from service.settings import Settings
from service.telemetry.metrics.app import Metrics
from service.telemetry.v2_statistics import InferStatistics


@dataclass(frozen=True)
class Services:
    """What an app is made of. Nothing in it is set later."""

    settings: Settings
    keys: KeyRing
    registry: Registry
    pipeline: Pipeline
    control: Control
    budget: MemoryBudget
    metrics: Metrics
    infer_statistics: InferStatistics


async def services_of(request: Request) -> Services:  # async, since FastAPI calls what is not on another thread
    """Return the services of the app that a request came to."""
    services: Services = request.app.state.services
    return services
