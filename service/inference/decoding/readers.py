"""The readers of a model's ordinary requests, which are made once and live as long as the model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.bundle.bundle import Manifest
from spikeserve.models.coding import EventCoder, Inputs
from spikeserve.models.engines.declared import ENGINES
from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec import Coding
from spikeserve.service.catalog.loaded import LoadedModel

FLOAT32 = np.dtype("<f4")


class Reader(Protocol):
    """Reads the samples of requests into one batch. `rows` are their places: a slice of it is given to `read`."""

    @property
    def rows(self) -> NDArray[Any]:
        """The rows of a batch, one for each sample."""

    def read(
        self, body: bytes, start: int, stop: int, brackets: int, rows: NDArray[Any], dtype: np.dtype[Any] = ..., /
    ) -> int:
        """Read body[start:stop] to `rows`; return how many samples it has, or -1 where it is odd.

        It begins with so many `brackets`; without any it is numbers of `dtype` as bytes, by default FLOAT32.
        """

    def inputs(self, end: int, time_steps: int, seed: int, /) -> Inputs:
        """Return the samples in the rows before `end`, encoded."""


class Readers(NamedTuple):
    """What reads samples of numbers, and what makes a reader of events of so many steps; None for what is not read."""

    rows: Reader | None = None
    events: Callable[[int], Reader] | None = None


_readers: WeakKeyDictionary[LoadedModel, Readers] = WeakKeyDictionary()


def readers_of(model: LoadedModel) -> Readers:
    """Return the readers that were made for a model."""
    return _readers.get(model, Readers())


def make_readers(model: LoadedModel) -> None:
    """Make a model's readers, on a thread; none where each step has currents of its own, or Numba is not installed."""
    task = model.spec
    if task.coding is Coding.CURRENT or find_spec("numba") is None:
        return
    from spikeserve.service.inference.decoding.json_events import EventReader  # here, since Numba may not be installed
    from spikeserve.service.inference.decoding.rows import RowReader, compile_reader

    compile_reader()
    if task.coding is not Coding.SPIKES:
        _readers[model] = Readers(rows=RowReader(task))
    elif EventCoder(task).current is not None:
        _readers[model] = Readers(events=partial(EventReader, task))


def prepare(engine: str) -> None:
    """Import what an engine needs, and have its kernels and those of the readers compiled.

    The process that forks those in which versions are verified begins with this.
    """
    Manifest.model_rebuild()  # here, and not in each process
    with suppress(ImportError, InvalidInput):  # the processes say so in a sentence, or run another engine
        ENGINES[engine].load()
        if engine == "event":
            from spikeserve.models.engines.compiling import compiled, compiling
            from spikeserve.models.engines.event.engine import compile_kernels
            from spikeserve.service.inference.decoding.rows import compile_reader

            with nullcontext() if compiled() else compiling(tells=False):  # among the lines of the log
                compile_reader()  # first, since `are_cached` asks for the others
                compile_kernels()
