"""Bodies that are not JSON, as samples: one .npy array, or event records.

Only what a body says of its size is read at first. The protocol's codec checks that against the limits, and then has
the samples made.

The header of a .npy array is checked against the body's size before anything of it is made. NumPy's own reader of
headers is not made for those of strangers: some end in errors that it does not name, others in a warning. The format is
that of https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.lib.format import descr_to_dtype
from numpy.typing import NDArray
from pydantic import Field

from spikeserve.models.coding import Inputs
from spikeserve.models.coding.records import Records, Times, binner, make_records, records_of, times_of
from spikeserve.models.errors import InvalidInput
from spikeserve.models.recordings.columns import Column, fields_of, named, whole_columns
from spikeserve.models.spec import EventBinning
from spikeserve.models.spec.network import FloatArray
from spikeserve.models.spec.parameters import Shape, show
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.errors import MalformedBody, TooLarge, UnsupportedMedia, cut, shown
from spikeserve.service.inference.decoding.media import MAGIC, BodyFormat
from spikeserve.service.inference.decoding.validation import Strict, channels_hint

LENGTHS = {b"\x01\x00": 2, b"\x02\x00": 4}  # by format, the bytes of the header's length
MAX_HEADER_BYTES = 10_000  # as many as NumPy allows, since its text is evaluated as a literal
MAX_AXES, MAX_EXTENT = 64, 2**63  # of NumPy
# What Python's parser writes a warning of: a backslash, and a number that runs into a keyword, as in `1or 2`.
WARNED_OF = re.compile(r"\\|\b[0-9][\w.]*(?:and|else|for|i[fns]|not|or)")


class _Fields(Strict):
    """What Python's literal in a header has to be."""

    descr: Any
    fortran_order: bool
    shape: tuple[Annotated[int, Field(ge=0, lt=MAX_EXTENT)], ...] = Field(max_length=MAX_AXES)


class Header(NamedTuple):
    """What a header says, and where the array's values begin."""

    dtype: np.dtype[Any]
    shape: Shape
    by_columns: bool
    start: int


def read_npy(content: bytes) -> NDArray[Any]:
    """Return the array that a body holds, without a copy, read-only; raises MalformedBody. Nothing is unpickled."""
    header = header_of(content)
    count = math.prod(header.shape)
    takes, holds = count * header.dtype.itemsize, len(content) - header.start
    if takes != holds:
        raise MalformedBody(
            f"the body is an .npy whose shape {cut(show(header.shape))} takes {cut(str(takes))} bytes as "
            f"{cut(str(header.dtype))}, but {holds} follow its header"
        )
    empty: NDArray[Any] = np.empty(0, header.dtype)
    flat = np.frombuffer(content, header.dtype, count, header.start) if takes else empty
    try:
        return flat.reshape(header.shape, order="F" if header.by_columns else "C")
    except ValueError as error:  # of an empty array, whose other axes NumPy bounds as well
        raise MalformedBody(f"the body is an .npy whose axes no array can have: {cut(show(header.shape))}") from error


def header_of(content: bytes) -> Header:
    """Read the header at the beginning of `content`; raises MalformedBody."""
    version, at = content[len(MAGIC) : len(MAGIC) + 2], len(MAGIC) + 2
    if not content.startswith(MAGIC) or version not in LENGTHS:
        raise MalformedBody(f"the body is no .npy of format 1.0 or 2.0, but begins with {shown(repr(content[:8]))}")
    start = at + LENGTHS[version]
    end = start + int.from_bytes(content[at:start], "little")
    if end > min(len(content), start + MAX_HEADER_BYTES):
        most = min(len(content) - start, MAX_HEADER_BYTES)
        raise MalformedBody(f"the body is an .npy whose header has {end - start} bytes, expected at most {most} here")
    text = content[start:end].decode("latin-1")
    try:
        fields = _Fields.model_validate(ast.literal_eval("" if WARNED_OF.search(text) else text.strip()))
        dtype = descr_to_dtype(fields.descr)
    except Exception as error:  # a literal or a type that makes no sense is any of a dozen errors
        raise MalformedBody(
            f"the body is an .npy whose header is {shown(text.strip())}, expected descr, fortran_order and shape"
        ) from error
    if dtype.hasobject:
        raise MalformedBody("the body is an .npy of Python objects, expected numbers, which need no pickle")
    if dtype.subdtype is not None:  # its axes would come on top of the shape
        raise MalformedBody(f"the body is an .npy of arrays, {cut(str(dtype))}, expected one of numbers and its shape")
    return Header(dtype, fields.shape, fields.fortran_order, end)


WHERE = "the body"


@dataclass(frozen=True)
class BodySamples:
    """The samples of a body: how many, of how many steps, and what makes them, which must be within the limits."""

    samples: int
    time_steps: int
    make: Callable[[], FloatArray | Inputs]


def sent(form: BodyFormat, content: bytes, model: LoadedModel, time_steps: int | None) -> BodySamples:
    """Return the samples of a body that is not JSON; `time_steps` is what was asked for, if anything.

    Raises UnsupportedMedia, MalformedBody, InvalidInput and TooLarge, as `BodySamples.make` does.
    """
    if form is BodyFormat.NPY:
        array = read_npy(content)
        return _array(array, model, time_steps) if array.dtype.names is None else _columns(array, model, time_steps)
    return _records(content, model, time_steps)


def _array(array: NDArray[Any], model: LoadedModel, time_steps: int | None) -> BodySamples:
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
        sizes = ("time_steps", *shape) if time else shape
        expected = "×".join(map(str, sizes))
        raise InvalidInput(
            f"the body is an array of shape {show(array.shape)}, expected samples×{expected}, or one"
            f"{channels_hint(array.shape, shape)}"
        )

    def make() -> FloatArray:
        with np.errstate(over="ignore", invalid="ignore"):  # what is beyond float32 is beyond the range, which says so
            return np.ascontiguousarray(array, np.float32).reshape(len(array), *one)

    return BodySamples(len(array), steps, make)


def _columns(array: NDArray[Any], model: LoadedModel, time_steps: int | None) -> BodySamples:
    """Return a recording of a structured array, whose fields are t, x, y and p, or t and unit."""
    _events_of(model, "an array with fields")
    fields = fields_of(array, WHERE)
    named(list(fields), WHERE)
    _check_count(array.size, model)
    return _recording(lambda: recorded(whole_columns(fields, WHERE)), model, time_steps)


def recorded(columns: Mapping[str, Column]) -> tuple[Times, Records]:
    """Return the times of events in microseconds, and their records, both (events,); without a polarity all are on."""
    return columns["t"], make_records(
        columns["t"], columns.get("unit", columns.get("x", 0)), columns.get("y", 0), columns.get("p", "y" in columns)
    )


def _records(content: bytes, model: LoadedModel, time_steps: int | None) -> BodySamples:
    _events_of(model, "event records")
    records = records_of(content, WHERE)
    _check_count(len(records), model)
    return _recording(lambda: (times_of(records), records), model, time_steps)


def _recording(read: Callable[[], tuple[Times, Records]], model: LoadedModel, time_steps: int | None) -> BodySamples:
    """Return one sample of the events that `read` returns: it has the model's own steps unless others are asked for."""
    steps = time_steps or model.spec.time_steps

    def make() -> Inputs:
        times, records = read()
        events = binner(_events_of(model, "a recording")).recording(records, times, steps, where=WHERE)
        return events.inputs(model.spec, steps)

    return BodySamples(1, steps, make)


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
        raise TooLarge(f"the body has {count} events, expected at most {model.limits.events}")
