"""A loaded model: a bundle that was verified on its engine and has run, so that no request is its first."""

from __future__ import annotations

from models.bundle.external import AnyBundle
from models.bundle.repository import ModelRepository
from models.engines.base import Runner
from models.errors import InvalidBundle
from service.catalog.cost import Cost
from service.catalog.engine_choice import engine_for
from service.catalog.limits import ModelLimits
from service.settings import Settings


class InProgress:
    """How many requests for a model have begun and not ended: an object, so that it can be read without the model."""

    def __init__(self) -> None:
        self.count = 0


class LoadedModel:
    """One version of one model, ready to run. No request leaves anything behind in it.

    Any number of threads may run its engine at once; `requests` is counted on the event loop alone.
    """

    def __init__(self, bundle: AnyBundle, engine: Runner, settings: Settings) -> None:
        self.name = bundle.manifest.name
        self.version = bundle.manifest.version
        self.bundle = bundle
        self.spec = bundle.task
        self.engine = engine
        self.layers = self.spec.layers
        self.limits = ModelLimits(self.spec, settings)
        self.cost = Cost.of(engine, self.spec, bundle.sample)  # of one sample, as most requests are
        self.requests = InProgress()

    @classmethod
    def load(cls, name: str, version: int, settings: Settings) -> LoadedModel:
        """Read a version from the repository, verify it on its engine and run it once.

        Raises BundleNotFound, InvalidBundle or EngineUnavailable.
        """
        bundle = ModelRepository(settings.repository).read_any(name, version)
        if bundle.task.time_steps > settings.max_time_steps:
            raise InvalidBundle(
                f"time_steps: the model runs for {bundle.task.time_steps}, but max_time_steps is "
                f"{settings.max_time_steps}"
            )
        engine = engine_for(bundle, settings)
        bundle.verify(engine)
        return cls(bundle, engine, settings)
