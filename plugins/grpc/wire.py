"""Part an infer request's message: its tensors' values are taken out as they are, and the short rest is parsed.

protobuf's own parser makes objects of a whole message at once. Of 16 MiB it can make gigabytes, and a large message
would hold the interpreter for long. So the fields are counted first. The values of tensors are not parsed here: they
stay bytes of the message until a codec thread takes the request.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError

from spikeserve.plugins.grpc import protobuf
from spikeserve.plugins.grpc.messages import InferTensorContents, ModelInferRequest
from spikeserve.service.errors import MalformedBody, TooLarge

MAX_FIELDS = 256  # of the message, its inputs and their contents; real ones have some 20
MAX_REST_BYTES = 2**16  # of names, shapes and outputs; parsed, they take some 25 times as much

PARAMETERS = ModelInferRequest.PARAMETERS_FIELD_NUMBER
INPUTS = ModelInferRequest.INPUTS_FIELD_NUMBER
RAW = ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER
CONTENTS = ModelInferRequest.InferInputTensor.CONTENTS_FIELD_NUMBER
NOT_VARINT = {
    FieldDescriptor.TYPE_FLOAT: protobuf.FIXED32,
    FieldDescriptor.TYPE_DOUBLE: protobuf.FIXED64,
    FieldDescriptor.TYPE_BYTES: protobuf.DELIMITED,
}
# The wire type of one value, by the number of the field of contents; several may be packed into one field.
SINGLE = {each.number: NOT_VARINT.get(each.type, protobuf.VARINT) for each in InferTensorContents.DESCRIPTOR.fields}


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
    request = SplitRequest(ModelInferRequest())
    try:
        content, parameters = _without_values(data, request)
    except protobuf.TooManyFields:
        raise TooLarge(
            f"the message has more than {MAX_FIELDS} fields, expected fewer; send values packed or raw"
        ) from None
    except protobuf.MalformedMessage as error:
        raise MalformedBody(f"the message is not a ModelInferRequest: {error}") from error
    if len(content) - parameters > MAX_REST_BYTES:
        raise TooLarge(
            f"the message has {len(content) - parameters} bytes beside its parameters and its tensors' values, "
            f"expected at most {MAX_REST_BYTES}"
        )
    try:
        request.message.MergeFromString(content)
    except DecodeError as error:
        raise MalformedBody("the message is not a ModelInferRequest: a field is malformed, or is not UTF-8") from error
    return request


def _without_values(data: bytes, request: SplitRequest) -> tuple[bytes, int]:
    """Return a message without its tensors' values, which go to `request`, and the length of its parameters."""
    reader, view = protobuf.FieldReader(data, MAX_FIELDS), memoryview(data)
    rest: list[bytes | memoryview] = []
    parameters = 0

    def without_contents(tensor: protobuf.Field) -> bytes:
        kept: list[memoryview] = []
        for each in reader.fields(tensor.start, tensor.stop):
            if each.number == CONTENTS and each.kind == protobuf.DELIMITED:
                for values in reader.fields(each.start, each.stop):
                    if values.kind in (protobuf.DELIMITED, SINGLE.get(values.number)):
                        request.contents.setdefault(values.number, []).append(view[values.start : values.stop])
                        request.places.append((values.start, values.stop))
            else:
                kept.append(view[each.begin : each.stop])
        return b"".join(kept)

    for each in reader.fields(0, len(data)):
        if each.number == RAW and each.kind == protobuf.DELIMITED:
            request.raw.append(view[each.start : each.stop])
            request.places.append((each.start, each.stop))
        elif each.number == INPUTS and each.kind == protobuf.DELIMITED:
            rest.append(delimited(INPUTS, without_contents(each)))
        else:
            rest.append(view[each.begin : each.stop])
            if each.number == PARAMETERS:  # the state of a sequence is one of them, and may be long
                parameters += each.stop - each.begin
    return b"".join(rest), parameters


def delimited(number: int, content: bytes) -> bytes:
    """Return a field of a message, a text or bytes."""
    return head(number, len(content)) + content


@lru_cache
def head(number: int, length: int) -> bytes:
    """Return the bytes in front of the `length` bytes of a field's value."""
    return varint(number << 3 | protobuf.DELIMITED) + varint(length)


def varint(value: int) -> bytes:
    """Return a number as bytes, seven bits in each."""
    written = bytearray()
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    written.append(value)
    return bytes(written)
