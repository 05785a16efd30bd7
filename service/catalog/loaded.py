"""A loaded model: a bundle that was verified on its engine, in a process of its own, and then loaded in this one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Annotated

from pydantic import BaseModel, Field

from spikeserve.models.bundle import Bundle
from spikeserve.models.bundle.repository import ModelRepository, WithGallery
from spikeserve.models.coding import Inputs
from spikeserve.models.engines.anytime import StopRule, check_rule, run_anytime
from spikeserve.models.engines.base import Engine, Record, RunResult, Stop
from spikeserve.models.engines.blob import bytes_per_sample
from spikeserve.models.engines.declared import EngineName
from spikeserve.models.engines.fan_out import dense_operations
from spikeserve.models.errors import InvalidBundle
from spikeserve.models.spec.price import LoadLimits
from spikeserve.service.catalog.cost import Cost, seconds_per_step
from spikeserve.service.catalog.engine_choice import engine_for
from spikeserve.service.catalog.limits import ModelLimits
from spikeserve.service.settings import Settings

SESSION_BYTES = 2**13  # of a session beside the arrays of its state


class Verification(BaseModel):
    """What is known of a version once it was verified: its manifest's sha256, its engine, and a step's seconds.

    The engine is the first that can run it of `engines`, or of the candidates.
    """

    digest: str
    engine: EngineName
    engines: list[EngineName] = []
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]


def verify(name: str, version: int, settings: Settings, engines: Sequence[str] = ()) -> Verification:
    """Read a version from the repository, replay its golden samples on its engine, and measure that; see `engine_for`.

    It is called in a process of its own, since a bundle can make it take any time and memory, or end the process.
    Raises BundleNotFound, InvalidBundle or EngineUnavailable.
    """
    bundle = _read(name, version, settings)
    engine = engine_for(bundle, settings, engines=engines)
    bundle.verify(engine)
    seconds = seconds_per_step(engine, bundle.sample)
    return Verification(digest=bundle.digest, engine=engine.name, engines=list(engines), seconds=seconds)


class InProgress:
    """The number of a model's requests in progress; an object, so that it can be kept without the model."""

    def __init__(self) -> None:
        self.count = 0


class LoadedModel:
    """One version of one model, ready to run. A request leaves no state in it.

    Any number of threads may run its engine at the same time; only the event loop changes `requests`.
    """

    def __init__(self, bundle: Bundle, engine: Engine, settings: Settings, cost: Cost) -> None:
        self.name = bundle.manifest.name
        self.version = bundle.manifest.version
        self.bundle = bundle
        self.spec, self.network = bundle.task, bundle.network
        self.engine = engine
        self.layers = self.spec.layers
        rates = bundle.manifest.firing_rates
        self.training_rates = {layer: rates[layer] for layer in self.layers if layer in rates}
        self.dense: tuple[int, int] = dense_operations(self.spec)
        self.limits = ModelLimits(self.spec, settings, self.name)
        self.cost = cost
        self.requests = InProgress()
        self.successor: LoadedModel | None = None  # the same version on another engine, which has taken over

    @property
    def newest(self) -> LoadedModel:
        """The same version on the engine that runs it now, for what goes on from one run to the next."""
        model = self
        while model.successor is not None:
            model = model.successor
        return model

    def check_stop(self, rule: StopRule, time_steps: int, where: str = "stop") -> None:
        """Raise InvalidInput if samples cannot end by a rule, which the field `where` of a request asks for."""
        check_rule(rule, self.spec, self.bundle.calibration, time_steps, where)

    def room(self, time_steps: int) -> int:
        """Return the most samples of `time_steps` that a batch on the event loop may have; 0 where it may have none."""
        return self.cost.room(time_steps) if self.engine.is_bounded else 0

    def run(
        self, inputs: Inputs, rule: StopRule | None, record: Record = Record.NONE, stop: Stop | None = None
    ) -> RunResult:
        """Run every sample from rest: all steps, or until it ends by a rule. Raises what the engine raises."""
        if rule is None:
            if record is Record.NONE:
                return self.engine.answer(inputs, stop=stop)
            return self.engine.run(inputs, record=record, stop=stop)[0]
        return run_anytime(self.engine, inputs, rule, self.bundle.calibration, record, stop)

    @cached_property
    def state_bytes(self) -> int:
        """The bytes that a session of it holds."""
        return SESSION_BYTES + bytes_per_sample(self.network)

    @classmethod
    def load(cls, name: str, version: int, settings: Settings, verified: Verification) -> LoadedModel:
        """Load a version that another process has verified.

        The same files, on the same engine, of the same code: so reading them, making the engine and running one sample
        of a network takes no more time and memory than it took there, and its golden samples need not be replayed.

        Raises BundleNotFound, InvalidBundle or EngineUnavailable, also if the files have changed since.
        """
        bundle = _read(name, version, settings)
        if bundle.digest != verified.digest:
            raise InvalidBundle(
                f"bundle.json: its sha256 is {bundle.digest[:12]}…, but it was {verified.digest[:12]}… when it was "
                "verified, just before"
            )
        engine = engine_for(bundle, settings, settings.threads, verified.engines)
        if engine.name != verified.engine:
            raise InvalidBundle(f"engine '{engine.name}' would run it, but it was verified on '{verified.engine}'")
        engine.run(bundle.sample)
        return cls(bundle, engine, settings, Cost(verified.seconds))


def repository_of(settings: Settings) -> ModelRepository:
    """Return the repository that is served, beside which the gallery's models may be found."""
    kind = WithGallery if settings.gallery else ModelRepository
    return kind(settings.folder, LoadLimits(settings.max_model_bytes))


def _read(name: str, version: int, settings: Settings) -> Bundle:
    bundle = repository_of(settings).read(name, version)
    if bundle.task.time_steps > settings.max_time_steps:
        raise InvalidBundle(
            f"time_steps: the model runs for {bundle.task.time_steps}, but max_time_steps is {settings.max_time_steps}"
        )
    answers = ModelLimits(bundle.task, settings, name)
    if (size := answers.answer.native(1, bundle.task.time_steps)) > answers.answer_bytes:
        raise InvalidBundle(
            f"labels: with the model's {bundle.task.classes}, an answer for one sample may take {size} bytes, "
            f"expected at most {answers.answer_bytes}"
        )
    return bundle
