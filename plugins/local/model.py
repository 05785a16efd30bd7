"""A model in this process: requests are decoded, run and answered by the code of the service, without its queues."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import numpy as np

from spikeserve.models.bundle import Bundle
from spikeserve.models.coding import encode
from spikeserve.models.engines.compiling import FOLDER, Compiler, can_share
from spikeserve.models.errors import SpikeserveError
from spikeserve.models.spec.price import LoadLimits
from spikeserve.service.catalog.cost import Cost, seconds_per_step
from spikeserve.service.catalog.engine_choice import engine_for, meanwhile
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


def load(bundle: Bundle, settings: Settings, engines: Sequence[str] = ()) -> LoadedModel:
    """Replay a bundle's golden samples, and return it loaded; raises InvalidBundle and EngineUnavailable."""
    engine = engine_for(bundle, settings, engines=engines)
    bundle.verify(engine)
    return LoadedModel(bundle, engine, settings, Cost(seconds_per_step(engine, bundle.sample)))


@contextmanager
def loaded(bundle: Bundle, settings: Settings, prepare: Callable[[str], None]) -> Iterator[LoadedModel]:
    """Load a bundle as `load` does; while a process compiles the kernels of the best engine, another runs it.

    The `newest` of it is the best one's from then on, unless the kernels cannot be kept on this machine.
    """
    compiler, stop, engines = Compiler(prepare), Event(), meanwhile(settings)
    if engines:
        compiler.begin()
    try:
        model = load(bundle, settings, engines)
    except SpikeserveError:
        if not engines:
            raise
        model, engines = load(bundle, settings), ()  # which may be the only one that can run it, and waits for kernels
    if not engines or not can_share():
        if engines:
            print(f"spikeserve: {model.engine.name} answers: no kernels can be kept in {FOLDER}", file=sys.stderr)
        yield model
        return
    print(f"spikeserve: compiling kernels: answers come by {model.engine.name} until then", file=sys.stderr)

    def take_over() -> None:
        try:
            if compiler.wait(stop):
                model.successor = load(bundle, settings)
            elif not stop.is_set():
                print("spikeserve: the kernels could not be compiled", file=sys.stderr)
        except SpikeserveError as error:
            print(f"spikeserve: {error}", file=sys.stderr)

    thread = Thread(target=take_over)
    thread.start()
    try:
        yield model
    finally:
        stop.set()
        thread.join()


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
