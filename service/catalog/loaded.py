"""A loaded model: a bundle that was verified on its engine and warmed up."""

from __future__ import annotations

from models.bundle.external import AnyBundle
from models.bundle.repository import ModelRepository
from models.engines.base import Runner
from models.errors import InvalidBundle
from models.spec.onnx_contract import OnnxContract
from service.catalog.cost import Cost
from service.catalog.engine_choice import engine_for
from service.catalog.limits import ModelLimits
from service.settings import Settings


class InProgress:
    """The number of a model's requests in progress; an object, so that it can be kept without the model."""

    def __init__(self) -> None:
        self.count = 0


class LoadedModel:
    """One version of one model, ready to run. A request leaves no state in it.

    Any number of threads may run its engine at the same time; only the event loop changes `requests`.
    """

    def __init__(self, bundle: AnyBundle, engine: Runner, settings: Settings) -> None:
        self.name = bundle.manifest.name
        self.version = bundle.manifest.version
        self.bundle = bundle
        self.spec = bundle.task
        self.engine = engine
        # Whether one run may hold samples of several requests; somebody else's graph needs its author's promise.
        self.shares_runs = not isinstance(self.spec, OnnxContract) or self.spec.independent_rows
        self.layers = self.spec.layers
        self.limits = ModelLimits(self.spec, settings, self.name)
        self.cost = Cost.of(engine, self.spec, bundle.sample)
        self.requests = InProgress()

    @classmethod
    def load(cls, name: str, version: int, settings: Settings) -> LoadedModel:
        """Read a version from the repository, verify it on its engine and warm it up.

        Raises BundleNotFound, InvalidBundle or EngineUnavailable.
        """
        bundle = ModelRepository(settings.repository).read_any(name, version)
        if bundle.task.time_steps > settings.max_time_steps:
            raise InvalidBundle(
                f"time_steps: the model runs for {bundle.task.time_steps}, but max_time_steps is "
                f"{settings.max_time_steps}"
            )
        limits = ModelLimits(bundle.task, settings, name)
        if (size := limits.answer.native(1, bundle.task.time_steps)) > limits.answer_bytes:
            raise InvalidBundle(
                f"labels: with the model's {bundle.task.classes}, an answer for one sample may take {size} bytes, but "
                f"max_answer_bytes is {limits.answer_bytes}"
            )
        engine = engine_for(bundle, settings)
        bundle.verify(engine)
        return cls(bundle, engine, settings)
