"""The values of a tensor in the typed fields of InferTensorContents: bytes of a message to an array, and back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from spikeserve.models.spec.parameters import Shape, show
from spikeserve.plugins.grpc.messages import InferTensorContents
from spikeserve.plugins.grpc.protobuf import MAX_VARINT_BYTES
from spikeserve.plugins.grpc.wire import delimited
from spikeserve.service.errors import MalformedBody, shown
from spikeserve.service.inference.decoding.pieces import PIECE_VALUES, before_piece
from spikeserve.service.inference.protocols.v2.parsing import InvalidRequest
from spikeserve.service.inference.protocols.v2.tensors import DTYPES, Array, Datatype, from_bytes

FIELDS: Mapping[Datatype, str] = {  # as the protocol has them; FP16 has none
    Datatype.BOOL: "bool_contents",
    Datatype.INT8: "int_contents",
    Datatype.INT16: "int_contents",
    Datatype.INT32: "int_contents",
    Datatype.INT64: "int64_contents",
    Datatype.UINT8: "uint_contents",
    Datatype.UINT16: "uint_contents",
    Datatype.UINT32: "uint_contents",
    Datatype.UINT64: "uint64_contents",
    Datatype.FP32: "fp32_contents",
    Datatype.FP64: "fp64_contents",
    Datatype.BYTES: "bytes_contents",
}
NUMBERS = {each.name: each.number for each in InferTensorContents.DESCRIPTOR.fields}
NAMES = {number: name for name, number in NUMBERS.items()}
PIECE_BYTES = 2**14  # of numbers of variable length that protobuf parses in one call, in well under a millisecond
LAST = 128  # a byte below ends a number of variable length


def from_contents(contents: Mapping[int, list[memoryview]], datatype: Datatype, shape: Shape, where: str) -> Array:
    """Return a tensor's values from the fields of its contents as an array of `shape`; `where` names the contents.

    Raises InvalidRequest, and MalformedBody.
    """
    name = FIELDS.get(datatype)
    if name is None:
        raise InvalidRequest(f"{where} cannot hold {datatype}, expected its bytes in raw_input_contents")
    number, where = NUMBERS[name], f"{where}.{name}"
    for other in contents:
        if other != number:
            raise InvalidRequest(f"{NAMES.get(other, 'a field')} has values, expected them in {where} for {datatype}")
    parts = contents.get(number, [])
    blob = parts[0] if len(parts) == 1 else memoryview(b"".join(parts))  # without a copy of one
    if DTYPES[datatype].kind == "f":
        return from_bytes(blob, datatype, shape, where)
    return _integers(blob, name, datatype, shape, where)


def _integers(blob: memoryview, name: str, datatype: Datatype, shape: Shape, where: str) -> Array:
    """Return integers, or truths, of variable length; the array is made once their number is known to be right."""
    size, dtype = math.prod(shape), DTYPES[datatype]
    limits = None if datatype is Datatype.BOOL else np.iinfo(dtype)
    count = sum(int(np.count_nonzero(np.frombuffer(piece, np.uint8) < LAST)) for piece in _pieces(blob))
    if count != size:
        raise InvalidRequest(f"{where} holds {count} values, expected {size} for shape {show(shape)}")
    array, at = np.empty(size, dtype), 0
    for piece in _pieces(blob):
        before_piece()
        try:
            values = getattr(InferTensorContents.FromString(delimited(NUMBERS[name], bytes(piece))), name)
        except DecodeError as error:
            raise MalformedBody(f"{where} holds a number that is malformed") from error
        wide = np.array(values, np.uint64 if dtype.kind == "u" else np.int64)
        for value in (int(wide.min()), int(wide.max())):  # the field may hold more than the datatype
            if limits is not None and not limits.min <= value <= limits.max:
                raise InvalidRequest(f"{where} holds {shown(value)}, expected {limits.min} to {limits.max}")
        array[at : at + len(wide)] = wide
        at += len(wide)
    return array.reshape(shape)


def _pieces(blob: memoryview) -> Iterator[memoryview]:
    """Yield parts of some PIECE_BYTES, each of whole numbers. Raises MalformedBody for one without an end."""
    start = 0
    while start < len(blob):
        stop = min(start + PIECE_BYTES, len(blob))
        least = max(start, stop - MAX_VARINT_BYTES)
        while stop > least and blob[stop - 1] >= LAST:
            stop -= 1
        if stop == least:
            raise MalformedBody("the message is not a ModelInferRequest: a number in a tensor's contents has no end")
        yield blob[start:stop]
        start = stop


def to_contents(array: Array, datatype: Datatype) -> list[bytes]:
    """Return the bytes of an InferTensorContents, in parts of PIECE_VALUES values; for BYTES the array holds text."""
    flat, parts = array.ravel(), list[bytes]()
    for start in range(0, flat.size, PIECE_VALUES):
        values: Any = flat[start : start + PIECE_VALUES].tolist()
        if datatype is Datatype.BYTES:
            values = [text.encode() for text in values]
        before_piece()
        parts.append(bytes(InferTensorContents(**{FIELDS[datatype]: values}).SerializeToString()))
    return parts
