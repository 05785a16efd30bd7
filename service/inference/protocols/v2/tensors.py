"""Convert tensors between NumPy and JSON, nested or flat, or the bytes of the binary tensor extension.

The bytes are little-endian, in row-major order and without padding. A BOOL is one byte; an element of BYTES is its
length in four bytes, followed by its bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json

from spikeserve.models.engines import RunResult
from spikeserve.models.spec import Readout, Spec
from spikeserve.models.spec.network import FloatArray
from spikeserve.models.spec.parameters import Shape, show
from spikeserve.service.catalog.limits import COUNT_BYTES, NUMBER_BYTES, TEXT_BYTES, AnswerSize
from spikeserve.service.errors import shown
from spikeserve.service.inference.decoding.pieces import PIECE_VALUES
from spikeserve.service.inference.protocols.v2.parsing import InvalidRequest

Array = NDArray[Any]


class Datatype(StrEnum):
    """The protocol's datatypes."""

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    FP32 = "FP32"
    FP64 = "FP64"
    BYTES = "BYTES"


# NumPy's type of the same name, where FP is "float"; little-endian.
DTYPES: Mapping[Datatype, np.dtype[Any]] = {
    each: np.dtype(each.lower().replace("fp", "float")).newbyteorder("<")
    for each in Datatype
    if each is not Datatype.BYTES
}

LENGTH_BYTES = 4  # before each text among the bytes
MAX_EXACT = 2**24  # float32 holds every integer up to here

# By the dtype's kind: the Python types that JSON may hold, and their name in errors.
_TYPES: Mapping[str, tuple[frozenset[type], str]] = {
    "b": (frozenset({bool}), "true or false"),
    "u": (frozenset({int}), "an integer"),
    "i": (frozenset({int}), "an integer"),
    "f": (frozenset({int, float}), "a number"),
}


def from_json(data: list[Any], datatype: Datatype, shape: Shape, where: str) -> Array:
    """Return `data`, nested like `shape` or flat, as an array of that shape; raises InvalidRequest."""
    flat, dtype = _flat(data, shape, where), DTYPES[datatype]
    types, expected = _TYPES[dtype.kind]
    if not set(map(type, flat)) <= types:
        at = next(at for at, value in enumerate(flat) if type(value) not in types)
        raise InvalidRequest(f"{where} holds {shown(flat[at])} at {at}, expected {expected} as {datatype} is")
    if dtype.kind in "ui" and flat:
        limits = np.iinfo(dtype)
        for value in (min(flat), max(flat)):
            if not limits.min <= value <= limits.max:
                raise InvalidRequest(f"{where} holds {shown(value)}, expected {limits.min} to {limits.max}")
    return (_floats(flat, datatype, where) if dtype.kind == "f" else np.array(flat, dtype)).reshape(shape)


def _floats(flat: list[float], datatype: Datatype, where: str) -> Array:
    try:
        doubles = np.array(flat, np.float64)
    except OverflowError as error:  # an integer beyond any float
        raise InvalidRequest(f"{where} holds an integer beyond ±{np.finfo(DTYPES[datatype]).max:g}") from error
    return to_datatype(doubles, datatype, where)


def to_datatype(doubles: Array, datatype: Datatype, where: str) -> Array:
    """Return doubles as an array of a datatype of floats; raises InvalidRequest for one that is beyond it."""
    dtype = DTYPES[datatype]
    with np.errstate(over="ignore"):
        array = doubles.astype(dtype)
    finite = np.isfinite(array)
    if not finite.all():
        value = float(doubles.flat[int(finite.argmin())])
        raise InvalidRequest(f"{where} holds {shown(value)}, expected a number within ±{np.finfo(dtype).max:g}")
    return array


def _flat(data: list[Any], shape: Shape, where: str) -> list[Any]:
    size = math.prod(shape)
    if not data or not isinstance(data[0], list):
        if len(data) != size:
            raise InvalidRequest(f"{where} holds {len(data)} values, expected {size} for shape {show(shape)}")
        return data
    rows: list[Any] = [data]
    for extent in shape:
        wrong = next((row for row in rows if type(row) is not list or len(row) != extent), None)
        if wrong is not None:
            what = f"a row of {len(wrong)}" if isinstance(wrong, list) else shown(wrong)
            raise InvalidRequest(f"{where} holds {what} where its shape {show(shape)} has {extent}")
        rows = list(chain.from_iterable(rows))
    return rows


def from_bytes(blob: memoryview, datatype: Datatype, shape: Shape, where: str) -> Array:
    """Return `blob` as an array, without a copy; raises InvalidRequest unless it has exactly the array's bytes."""
    dtype = DTYPES[datatype]
    expected = math.prod(shape) * dtype.itemsize
    if len(blob) != expected:
        raise InvalidRequest(
            f"{where} has {len(blob)} bytes, expected {expected} for {datatype} of shape {show(shape)}"
        )
    if datatype is Datatype.BOOL and np.frombuffer(blob, np.uint8).max(initial=0) > 1:
        raise InvalidRequest(f"{where} holds a byte that is neither 0 nor 1, expected BOOL")
    return np.frombuffer(blob, dtype).reshape(shape)


def to_float32(array: Array, where: str) -> FloatArray:
    """Return `array` as float32; raises InvalidRequest for an integer beyond ±MAX_EXACT, which float32 would round.

    FP64 is rounded to the nearest float32, as numbers in JSON are.
    """
    if array.dtype.kind in "ui":
        beyond = (array > MAX_EXACT) | (array < -MAX_EXACT)
        if beyond.any():
            raise InvalidRequest(f"{where} holds {array[beyond][0]}, expected integers within ±{MAX_EXACT}, as FP32 is")
    with np.errstate(over="ignore"):
        return array.astype(np.float32, copy=False)


def to_bytes(array: Array, datatype: Datatype) -> list[bytes]:
    """Return the bytes of an array, in parts of PIECE_VALUES elements; for BYTES it holds text, with dtype object."""
    flat = array.ravel()
    parts = (flat[start : start + PIECE_VALUES] for start in range(0, flat.size, PIECE_VALUES))
    if datatype is Datatype.BYTES:
        encoded = ([text.encode() for text in part] for part in parts)
        return [b"".join(struct.pack("<I", len(each)) + each for each in part) for part in encoded]
    return [part.astype(DTYPES[datatype], copy=False).tobytes() for part in parts]


INPUT = "inputs"
VARIES = -1


@dataclass(frozen=True, eq=False)
class Output:
    """An output (batch, width), of one column per class or one column, and the function that computes it from a run."""

    name: str
    datatype: Datatype
    per_class: bool
    of: Callable[[RunResult, Spec], Array]

    def width(self, spec: Spec) -> int:
        """Return the number of its columns."""
        return spec.classes if self.per_class else 1

    def texts(self, result: RunResult, spec: Spec) -> list[bytes]:
        """Write each sample of it as JSON, without the brackets of its row; NaN and infinities are null."""
        rows = self.of(result, spec).tolist()
        if self.datatype is Datatype.BYTES:  # which may hold brackets
            return [to_json(text) for (text,) in rows]
        return to_json(rows, inf_nan_mode="null")[2:-2].split(b"],[")

    def row_bytes(self, size: AnswerSize, classes: int | None, *, binary: bool) -> int:
        """Return the most bytes of one sample in it, as bytes or JSON, or as its `classes` greatest values."""
        columns = size.classes if self.per_class else 1
        if classes is not None:
            return min(columns, classes) * (TEXT_BYTES + COUNT_BYTES + size.label)
        if self.datatype is Datatype.BYTES:
            return columns * (size.label + LENGTH_BYTES)
        if binary:
            return columns * DTYPES[self.datatype].itemsize
        return columns * (NUMBER_BYTES if self.datatype is Datatype.FP32 else COUNT_BYTES)


def _labels(result: RunResult, spec: Spec) -> Array:
    return np.array([spec.labels[index] for index in result.class_index.tolist()], object)[:, np.newaxis]


_COUNTS = Output("spike_counts", Datatype.INT64, True, lambda result, _: result.spike_counts)
_OF_CLASSES = (
    _COUNTS,
    Output("probabilities", Datatype.FP32, True, lambda result, spec: spec.scores.probabilities(result.readout)),
    Output("class_index", Datatype.INT64, False, lambda result, _: result.class_index[:, np.newaxis]),
    Output("label", Datatype.BYTES, False, _labels),
)
_OPERATIONS = Output(
    "synaptic_operations", Datatype.INT64, False, lambda run, _: np.asarray(run.synaptic_operations)[:, np.newaxis]
)
STEPS_USED = Output("steps_used", Datatype.INT64, False, lambda result, _: np.asarray(result.steps_used)[:, np.newaxis])
_OF_VALUES = (Output("values", Datatype.FP32, True, lambda result, _: result.readout), _COUNTS)
_READOUT = Output("readout", Datatype.FP32, True, lambda result, _: result.readout)


def outputs_of(spec: Spec) -> Mapping[str, Output]:
    """Return a model's outputs by name.

    `readout` is an output only where it is no other one, and `steps_used` where samples can end before their last step.
    """
    if spec.scores.has_classes:
        read = [] if spec.readout is Readout.SPIKE_COUNT else [_READOUT]
        outputs = [*_OF_CLASSES, _OPERATIONS, *read, STEPS_USED]
    else:
        outputs = [*_OF_VALUES, _OPERATIONS]
    return {output.name: output for output in outputs}


def sample_shape(spec: Spec) -> tuple[int, ...]:
    """Return the shape of one sample; -1 stands for the time steps of one that has a value for each step."""
    return (VARIES, *spec.input.shape) if spec.coding.per_step else spec.input.shape
