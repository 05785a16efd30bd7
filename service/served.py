"""A model that answers: a bundle that was verified on its engine and has run once, so that no request is its first."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import Self

from pydantic_core import to_json

from models.bundle import Bundle
from models.coding import encode
from models.engines import Engine, RunResult
from models.errors import InvalidBundle
from models.repository import ModelRepository
from service.answers import predictions
from service.engines import engine_for
from service.inputs import Query, Reader
from service.limits import Limits
from service.quick import Cost
from service.schemas import PredictResponse
from service.settings import Settings


@dataclass(frozen=True)
class Run:
    """One run of the engine: what it gave, and the seconds that its inputs' coding and the engine took."""

    result: RunResult
    encode_seconds: float
    inference_seconds: float


@dataclass(frozen=True)
class Answer:
    """The body of an answer, and what it took: of these the metrics and the log are made."""

    content: bytes
    samples: int
    spikes: int
    synaptic_operations: int
    inference_seconds: float

    @classmethod
    def of(cls, run: Run, content: bytes) -> Self:
        """Return the answer that `content` makes of a run."""
        result = run.result
        return cls(
            content=content,
            samples=len(result.spike_counts),
            spikes=sum(int(spikes.sum()) for spikes in result.spikes_per_node.values()),
            synaptic_operations=int(result.synaptic_operations.sum()),
            inference_seconds=run.inference_seconds,
        )


class ServedModel:
    """One version of one model. It holds no state between requests, and any number of threads may ask it at once."""

    def __init__(self, bundle: Bundle, engine: Engine, limits: Limits) -> None:
        self.name = bundle.manifest.name
        self.version = bundle.manifest.version
        self.bundle = bundle
        self.spec = bundle.network.spec
        self.engine = engine
        self.reader = Reader(self.spec, limits)
        self.cost = Cost.of(engine, bundle.golden.inputs[:1])  # of one sample, as most requests are

    @classmethod
    def load(cls, name: str, version: int, settings: Settings) -> ServedModel:
        """Read a version from the repository, replay its golden samples and run it once.

        Raises BundleNotFound, InvalidBundle or EngineUnavailable.
        """
        bundle = ModelRepository(settings.repository).read(name, version)
        limits = Limits.of(settings)
        if bundle.network.spec.time_steps > limits.time_steps:
            raise InvalidBundle(
                f"time_steps: the model runs for {bundle.network.spec.time_steps}, "
                f"but max_time_steps is {limits.time_steps}"
            )
        engine = engine_for(bundle, settings)
        bundle.verify(engine)
        return cls(bundle, engine, limits)

    def answer(self, body: bytes) -> Answer:
        """Classify each sample of a request's body, from rest. Raises MalformedBody, InvalidInput or TooLarge."""
        return self.run(self.reader.read(body))

    def is_quick(self, query: Query) -> bool:
        """Return whether to run `query` takes less than to hand it to another thread and back."""
        return not query.wanted and self.cost.is_quick(len(query.samples), query.time_steps)

    def run(self, query: Query) -> Answer:
        """Classify each sample of a request, from rest. Raises InvalidInput.

        It takes a while: never call it on the event loop, unless `query` is quick.
        """
        run = self.infer(query)
        response: PredictResponse = {
            "model": self.name,
            "version": self.version,
            "engine": self.engine.name,
            "time_steps": query.time_steps,
            "predictions": predictions(run.result, self.spec.labels, query.wanted),
        }
        return Answer.of(run, to_json(response, inf_nan_mode="null"))

    def infer(self, query: Query) -> Run:
        """Run a request's samples from rest, whatever form its answer takes. Raises InvalidInput."""
        started = perf_counter()
        inputs = encode(query.samples, self.spec, query.time_steps, query.seed)
        encoded = perf_counter()
        result = self.engine.run(inputs, record=query.record)
        return Run(result, encoded - started, perf_counter() - encoded)
