"""A model that answers: a bundle that was verified on its engine and has run once, so that no request is its first."""

from __future__ import annotations

from pydantic_core import to_json

from models.bundle.external import AnyBundle
from models.bundle.repository import ModelRepository
from models.coding import EncodedInputs, encode
from models.engines import RunResult
from models.engines.base import Runner
from models.errors import InvalidBundle
from service.catalog.cost import Cost
from service.catalog.engines import engine_for
from service.inference.answers import predictions
from service.inference.batching import policy_of
from service.inference.inputs import Query, Reader
from service.inference.jobs import SMALL_BODY
from service.inference.limits import Limits
from service.inference.queues import Queue
from service.inference.schemas import PredictResponse
from service.settings import Settings


class InProgress:
    """How many requests have begun with a model and not ended yet: an object, to be counted without the model."""

    def __init__(self) -> None:
        self.count = 0


class ServedModel:
    """One version of one model, asked and answered in JSON (a `Form`). No request leaves anything behind in it.

    Any number of threads may use it at once, but its queue and its count of requests are the event loop's.
    """

    def __init__(self, bundle: AnyBundle, engine: Runner, settings: Settings) -> None:
        self.name = bundle.manifest.name
        self.version = bundle.manifest.version
        self.bundle = bundle
        self.spec = bundle.task
        self.engine = engine
        self.reader = Reader(self.spec, Limits.of(settings))
        self.layers = self.spec.layers
        self.cost = Cost.of(engine, self.spec, bundle.sample)  # of one sample, as most requests are
        self.requests = InProgress()
        self.queue = Queue(policy_of(engine.name, settings), self.cost, settings.max_queue)

    @classmethod
    def load(cls, name: str, version: int, settings: Settings) -> ServedModel:
        """Read a version from the repository, verify it on its engine and run it once.

        Raises BundleNotFound, InvalidBundle or EngineUnavailable.
        """
        bundle = ModelRepository(settings.repository).read_any(name, version)
        limits = Limits.of(settings)
        if bundle.task.time_steps > limits.time_steps:
            raise InvalidBundle(
                f"time_steps: the model runs for {bundle.task.time_steps}, but max_time_steps is {limits.time_steps}"
            )
        engine = engine_for(bundle, settings)
        bundle.verify(engine)
        return cls(bundle, engine, settings)

    def is_quick(self, query: Query) -> bool:
        """Return whether to run `query` takes less than to hand it to another thread and back."""
        return not query.wanted and self.cost.is_quick(len(query.samples), query.time_steps)

    def read_small(self, body: bytes) -> Query | None:
        """Return what a small request's body asks, else None. Raises as `read` does."""
        return self.reader.read_small(body) if len(body) <= SMALL_BODY else None

    def read(self, body: bytes) -> Query:
        """Return what a request's body asks. Raises MalformedBody, InvalidInput or TooLarge."""
        return self.reader.read(body)

    def encode(self, query: Query) -> EncodedInputs:
        """Return what the network sees. Raises InvalidInput."""
        return encode(query.samples, self.spec, query.time_steps, query.seed)

    def render(self, query: Query, result: RunResult) -> bytes:
        """Return the JSON of an answer."""
        response: PredictResponse = {
            "model": self.name,
            "version": self.version,
            "engine": self.engine.name,
            "time_steps": query.time_steps,
            "predictions": predictions(result, self.spec.labels, query.wanted),
        }
        return to_json(response, inf_nan_mode="null")
