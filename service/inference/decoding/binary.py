"""Bodies that are not JSON, as samples: one .npy array, event records, and the files of recordings.

Only what a body says of its size is read at first. The protocol's codec checks that against the limits, and then has
the samples made.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.coding import Inputs
from spikeserve.models.coding.columns import from_columns, named
from spikeserve.models.coding.records import Records, Times, binner, records_of, times_of
from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec import EventBinning
from spikeserve.models.spec.network import FloatArray
from spikeserve.models.spec.parameters import Shape, show
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.errors import TooLarge, UnsupportedMedia
from spikeserve.service.inference.decoding.event_files import read_file, require_reader
from spikeserve.service.inference.decoding.event_formats import FileFormat, file_format
from spikeserve.service.inference.decoding.media import Form
from spikeserve.service.inference.decoding.npy import read_npy
from spikeserve.service.inference.decoding.validation import channels_hint

WHERE = "the body"


@dataclass(frozen=True)
class Sent:
    """The samples of a body: how many, of how many steps, and what makes them, which must be within the limits."""

    samples: int
    time_steps: int
    make: Callable[[], FloatArray | Inputs]


def sent(form: Form, content: bytes, model: LoadedModel, time_steps: int | None) -> Sent:
    """Return the samples of a body that is not JSON; `time_steps` is what was asked for, if anything.

    Raises UnsupportedMedia, MalformedBody, InvalidInput and TooLarge, as `Sent.make` does.
    """
    if form is Form.NPY:
        array = read_npy(content)
        return _array(array, model, time_steps) if array.dtype.names is None else _columns(array, model, time_steps)
    if form is Form.RECORDS:
        return _records(content, model, time_steps)
    return _file(content, model, time_steps)


def _array(array: NDArray[Any], model: LoadedModel, time_steps: int | None) -> Sent:
    """Return samples of numbers, one or a batch, nested like the model's input or flat."""
    if array.dtype.kind not in "biuf":
        raise InvalidInput(f"the body is an array of {array.dtype}, expected numbers")
    task, shape = model.spec, model.spec.input.shape
    steps = time_steps or task.time_steps
    time: Shape = ()
    if task.coding.per_step:
        axes = array.ndim - len(shape)
        nested = axes in (1, 2) and array.shape[axes:] == shape
        steps = array.shape[axes - 1] if nested else array.shape[-2] if array.ndim >= 2 else 0
        time = (steps,)
        if time_steps not in (None, steps):
            raise InvalidInput(f"time_steps is {time_steps}, but the body has {steps} steps")
        model.limits.check_steps(steps, "the number of steps of the body")
    one, flat = (*time, *shape), (*time, math.prod(shape))
    if array.shape in (one, flat):
        array = array[np.newaxis]
    if array.shape[1:] not in (one, flat) or not len(array):
        wanted = ("time_steps", *shape) if time else shape
        expected = "×".join(map(str, wanted))
        raise InvalidInput(
            f"the body is an array of shape {show(array.shape)}, expected samples×{expected}, or one"
            f"{channels_hint(array.shape, shape)}"
        )

    def make() -> FloatArray:
        with np.errstate(over="ignore", invalid="ignore"):  # what is beyond float32 is beyond the range, which says so
            return np.ascontiguousarray(array, np.float32).reshape(len(array), *one)

    return Sent(len(array), steps, make)


def _columns(array: NDArray[Any], model: LoadedModel, time_steps: int | None) -> Sent:
    """Return a recording of a structured array, whose fields are t, x, y and p, or t and unit."""
    _events_of(model, "an array with fields")
    columns = named(list(array.dtype.names or ()), WHERE)
    _check_count(array.size, model)
    names = {field: (array.dtype.names or ())[place] for field, place in columns.items()}
    return _recording(lambda: from_columns({f: array[name] for f, name in names.items()}, WHERE), model, time_steps)


def _records(content: bytes, model: LoadedModel, time_steps: int | None) -> Sent:
    _events_of(model, "event records")
    records = records_of(content, WHERE)
    _check_count(len(records), model)
    return _recording(lambda: (times_of(records), records), model, time_steps)


def _file(content: bytes, model: LoadedModel, time_steps: int | None) -> Sent:
    kind = file_format(content) or FileFormat.CSV
    events = _events_of(model, f"a recording ({kind})")
    require_reader(kind)
    steps = time_steps or model.spec.time_steps
    return _recording(lambda: read_file(content, kind, events, steps, model.limits.events), model, time_steps)


def _recording(read: Callable[[], tuple[Times, Records]], model: LoadedModel, time_steps: int | None) -> Sent:
    """Return one sample of the events that `read` returns: it has the model's own steps unless others are asked for."""
    steps = time_steps or model.spec.time_steps

    def make() -> Inputs:
        times, records = read()
        events = binner(_events_of(model, "a recording")).recording(records, times, steps, where=WHERE)
        return events.inputs(model.spec, steps)

    return Sent(1, steps, make)


def _events_of(model: LoadedModel, what: str) -> EventBinning:
    events = model.spec.input.events
    if events is None:
        raise UnsupportedMedia(
            f"the body is {what}, but model '{model.name}' does not say how recorded events become its input "
            "(input.events of its spec), expected JSON or an array of samples"
        )
    return events


def _check_count(count: int, model: LoadedModel) -> None:
    if count > model.limits.events:
        raise TooLarge(f"the body has {count} events, expected at most {model.limits.events} (max_events)")
