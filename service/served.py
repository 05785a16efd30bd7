"""A model that answers: a bundle that was verified on its engine and has run once, so that no request is its first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter

from pydantic_core import to_json

from models.bundle import Bundle
from models.coding import encode
from models.engines import Engine
from models.engines.base import Counts
from models.errors import InvalidBundle
from models.nodes import Spiking
from models.repository import ModelRepository
from service.answers import predictions
from service.engines import engine_for
from service.inputs import Query, Reader
from service.limits import Limits
from service.quick import Cost
from service.schemas import PredictResponse
from service.settings import Settings


@dataclass(frozen=True)
class Answer:
    """The JSON of an answer, and what it took: of these the metrics and the log are made."""

    content: bytes
    samples: int
    time_steps: int
    spikes_per_layer: Mapping[str, int]
    synaptic_operations: int
    started: float  # as `perf_counter` counts
    encode_seconds: float
    inference_seconds: float


class ServedModel:
    """One version of one model. It holds no state between requests, and any number of threads may ask it at once."""

    def __init__(self, bundle: Bundle, engine: Engine, limits: Limits) -> None:
        self.name = bundle.manifest.name
        self.version = bundle.manifest.version
        self.bundle = bundle
        self.spec = bundle.network.spec
        self.engine = engine
        self.reader = Reader(self.spec, limits)
        shapes = self.spec.output_shapes
        self.layers = {node.name: math.prod(shapes[node.name]) for node in self.spec.nodes if isinstance(node, Spiking)}
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
        started = perf_counter()
        inputs = encode(query.samples, self.spec, query.time_steps, query.seed)
        encoded = perf_counter()
        result = self.engine.run(inputs, record=query.record)
        done = perf_counter()
        response: PredictResponse = {
            "model": self.name,
            "version": self.version,
            "engine": self.engine.name,
            "time_steps": query.time_steps,
            "predictions": predictions(result, self.spec.labels, query.wanted),
        }
        return Answer(
            content=to_json(response, inf_nan_mode="null"),
            samples=inputs.batch,
            time_steps=query.time_steps,
            spikes_per_layer={name: _total(spikes) for name, spikes in result.spikes_per_node.items()},
            synaptic_operations=_total(result.synaptic_operations),
            started=started,
            encode_seconds=encoded - started,
            inference_seconds=done - encoded,
        )


def _total(counts: Counts) -> int:
    """Add up (batch,); a batch of one, as most are, needs no sum, which would take twenty times as long."""
    return int(counts[0]) if len(counts) == 1 else int(counts.sum())
