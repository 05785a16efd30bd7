"""A model in this process: requests are decoded, run and answered by the code of the service, without its queues."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from spikeserve.models.bundle import Bundle
from spikeserve.models.coding import encode
from spikeserve.models.spec.price import LoadLimits
from spikeserve.service.catalog.cost import Cost, seconds_per_step
from spikeserve.service.catalog.engine_choice import engine_for
from spikeserve.service.catalog.limits import ModelLimits
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.inference.protocols.native.render import Predictions, predictions
from spikeserve.service.inference.scheduling.job import Terms
from spikeserve.service.inference.scheduling.query import Query
from spikeserve.service.settings import Settings

RUN_SAMPLES = 128  # in one run of the engine: more make it no faster


def read_bundle(folder: Path, settings: Settings) -> Bundle:
    """Read a bundle; raises InvalidBundle."""
    return Bundle.read(folder, LoadLimits(settings.max_model_bytes))


def load(bundle: Bundle, settings: Settings) -> LoadedModel:
    """Replay a bundle's golden samples, and return it loaded; raises InvalidBundle and EngineUnavailable."""
    engine = engine_for(bundle, settings)
    bundle.verify(engine)
    return LoadedModel(bundle, engine, settings, Cost.of(bundle.task, seconds_per_step(engine, bundle.sample)))


def samples_at_once(limits: ModelLimits, time_steps: int) -> int:
    """Return how many samples of so many steps a run takes, at least one."""
    most, own = min(RUN_SAMPLES, limits.max_request_samples), limits.trained_steps
    return max(1, most * own // max(time_steps, own))


def answer(model: LoadedModel, query: Query) -> Predictions:
    """Return one prediction for each sample, as `/predict` does. Raises InvalidInput."""
    samples, options = query.samples, query.options
    if isinstance(samples, np.ndarray):
        samples = encode(samples, model.spec, options.time_steps, options.seed)
    return predictions(model.run(samples, options.stop, Terms(model, options).record), model.spec, options.returned)
