"""Part an infer request's message: its tensors' values are taken out as they are, and the short rest is parsed.

protobuf's own parser makes objects of whatever a message holds, at once: of 16 MiB it can make gigabytes, and a large
one would hold the interpreter for long. So the fields are counted first, and the values of tensors are not parsed here:
they stay bytes of the message until the request's turn on a codec thread comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from google.protobuf.message import DecodeError

from spikeserve.service.errors import MalformedBody, TooLarge
from spikeserve.service.grpc.messages import InferTensorContents, ModelInferRequest

MAX_FIELDS = 256  # of the message, its inputs and their contents; real ones have some 20
MAX_REST_BYTES = 2**16  # of names, shapes and outputs; parsed, they take some 25 times as much
MAX_VARINT_BYTES = 10

VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5  # protobuf's wire types
LENGTHS = {FIXED64: 8, FIXED32: 4}
PARAMETERS = ModelInferRequest.PARAMETERS_FIELD_NUMBER
INPUTS = ModelInferRequest.INPUTS_FIELD_NUMBER
RAW = ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER
CONTENTS = ModelInferRequest.InferInputTensor.CONTENTS_FIELD_NUMBER
SINGLE = {  # the wire type of one value, by the number of the field of contents; several may be packed into one field
    InferTensorContents.BOOL_CONTENTS_FIELD_NUMBER: VARINT,
    InferTensorContents.INT_CONTENTS_FIELD_NUMBER: VARINT,
    InferTensorContents.INT64_CONTENTS_FIELD_NUMBER: VARINT,
    InferTensorContents.UINT_CONTENTS_FIELD_NUMBER: VARINT,
    InferTensorContents.UINT64_CONTENTS_FIELD_NUMBER: VARINT,
    InferTensorContents.FP32_CONTENTS_FIELD_NUMBER: FIXED32,
    InferTensorContents.FP64_CONTENTS_FIELD_NUMBER: FIXED64,
    InferTensorContents.BYTES_CONTENTS_FIELD_NUMBER: DELIMITED,
}


class Field(NamedTuple):
    """A field of a message: its number and wire type, and where its tag, its value and the next field begin."""

    number: int
    kind: int
    begin: int
    start: int
    stop: int


@dataclass(frozen=True)
class SplitRequest:
    """An infer request without the values of its tensors, and these as bytes.

    `contents` has them by the number of their field in InferTensorContents, `places` where they are in the message.
    """

    message: ModelInferRequest
    raw: list[memoryview] = field(default_factory=list)
    contents: dict[int, list[memoryview]] = field(default_factory=dict)
    places: list[tuple[int, int]] = field(default_factory=list)


def part(data: bytes) -> SplitRequest:
    """Part the bytes of a ModelInferRequest. Raises MalformedBody and TooLarge."""
    reader, view = _Reader(data), memoryview(data)
    raw: list[memoryview] = []
    places: list[tuple[int, int]] = []
    contents: dict[int, list[memoryview]] = {}
    rest: list[bytes | memoryview] = []
    parameters = 0
    for each in reader.fields(0, len(data)):
        if each.number == RAW and each.kind == DELIMITED:
            raw.append(view[each.start : each.stop])
            places.append((each.start, each.stop))
        elif each.number == INPUTS and each.kind == DELIMITED:
            rest.append(delimited(INPUTS, reader.without_contents(each, view, contents, places)))
        else:
            rest.append(view[each.begin : each.stop])
            if each.number == PARAMETERS:  # the state of a sequence is one of them, and may be long
                parameters += each.stop - each.begin
    content = b"".join(rest)
    if len(content) - parameters > MAX_REST_BYTES:
        raise TooLarge(
            f"the message has {len(content) - parameters} bytes beside its parameters and its tensors' values, "
            f"expected at most {MAX_REST_BYTES}"
        )
    try:
        return SplitRequest(ModelInferRequest.FromString(content), raw, contents, places)
    except DecodeError as error:
        raise MalformedBody("the message is not a ModelInferRequest: a field is malformed, or is not UTF-8") from error


class _Reader:
    """Walks the fields of a message and of those in it, MAX_FIELDS in all."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.left = MAX_FIELDS

    def fields(self, at: int, end: int) -> Iterator[Field]:
        """Yield the fields that lie from `at` to `end`. Raises MalformedBody and TooLarge."""
        while at < end:
            if not self.left:
                raise TooLarge(
                    f"the message has more than {MAX_FIELDS} fields, expected fewer; send values packed or raw"
                )
            self.left -= 1
            begin = at
            tag, start = self._varint(at, end)
            number, kind = tag >> 3, tag & 7
            if kind == DELIMITED:
                length, start = self._varint(start, end)
                stop = start + length
            elif kind == VARINT:
                _, stop = self._varint(start, end)
            elif kind in LENGTHS:
                stop = start + LENGTHS[kind]
            else:
                raise MalformedBody(f"the message is not a ModelInferRequest: a field has wire type {kind}")
            if stop > end:
                raise _cut_off()
            yield Field(number, kind, begin, start, stop)
            at = stop

    def without_contents(
        self,
        tensor: Field,
        view: memoryview,
        contents: dict[int, list[memoryview]],
        places: list[tuple[int, int]],
    ) -> bytes:
        """Return an input tensor's message without its contents, which are added to `contents` and `places`."""
        rest: list[memoryview] = []
        for each in self.fields(tensor.start, tensor.stop):
            if each.number == CONTENTS and each.kind == DELIMITED:
                for values in self.fields(each.start, each.stop):
                    if values.kind in (DELIMITED, SINGLE.get(values.number)):
                        contents.setdefault(values.number, []).append(view[values.start : values.stop])
                        places.append((values.start, values.stop))
            else:
                rest.append(view[each.begin : each.stop])
        return b"".join(rest)

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """Return a number of variable length, and where it ends."""
        data, value, shift = self.data, 0, 0
        for place in range(at, min(end, at + MAX_VARINT_BYTES)):
            byte = data[place]
            value |= (byte & 127) << shift
            if byte < 128:
                return value, place + 1
            shift += 7
        raise _cut_off()


def _cut_off() -> MalformedBody:
    return MalformedBody("the message is not a ModelInferRequest: it ends within a field")


def delimited(number: int, content: bytes) -> bytes:
    """Return a field of a message, a text or bytes."""
    return head(number, len(content)) + content


def head(number: int, length: int) -> bytes:
    """Return the bytes in front of the `length` bytes of a field's value."""
    return varint(number << 3 | DELIMITED) + varint(length)


def varint(value: int) -> bytes:
    """Return a number as bytes, seven bits in each."""
    written = bytearray()
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    written.append(value)
    return bytes(written)


def joined_view(parts: Iterable[memoryview]) -> memoryview:
    """Return one view of all parts, without a copy where there is one part."""
    found = list(parts)
    return found[0] if len(found) == 1 else memoryview(b"".join(found))
