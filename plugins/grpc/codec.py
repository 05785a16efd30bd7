"""The codec of infer requests over gRPC: a ModelInferRequest to a query, a result to a ModelInferResponse.

The fields become what the JSON over HTTP becomes, and are validated by the same schema; only how a tensor's values lie
in the message is gRPC's own. An answer has them as its request had: raw, or in typed fields.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from spikeserve.models.engines import State
from spikeserve.models.spec.parameters import Shape
from spikeserve.plugins.grpc.contents import from_contents, to_contents
from spikeserve.plugins.grpc.messages import ModelInferResponse
from spikeserve.plugins.grpc.wire import CONTENTS, SplitRequest, delimited, head, part
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.inference.protocols.v2.decode import InferQuery, query_of
from spikeserve.service.inference.protocols.v2.parsing import InvalidRequest, validated
from spikeserve.service.inference.protocols.v2.render import TensorRenderer
from spikeserve.service.inference.protocols.v2.schemas import InferRequest, InputTensor
from spikeserve.service.inference.protocols.v2.tensors import Array, Datatype, from_bytes, to_bytes
from spikeserve.service.inference.scheduling.answer import Content, Results
from spikeserve.service.inference.sessions.blob import Blobs

OUTPUTS = ModelInferResponse.OUTPUTS_FIELD_NUMBER
RAW = ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER
# Parameters that clients send unasked, and that mean nothing here. Over HTTP they say where bytes are. Another asks a
# model of many answers to end them with an empty one.
IGNORED = frozenset({"binary_data", "binary_data_output", "binary_data_size", "triton_enable_empty_final_response"})


@dataclass(frozen=True)
class MessageRenderer(TensorRenderer):
    """Renders answers as messages, with the values `raw` or in typed fields."""

    raw: bool

    def __call__(self, results: Results, own: slice, after: State | None = None) -> Content:
        """Render an answer's message, with the state `after` it where that was asked."""
        (head, tensors), values = self._template, list[bytes]()
        described = [head]
        if (state := self.state_text(after)) is not None:
            told = ModelInferResponse()
            told.parameters["sequence_state"].string_param = state
            described.append(bytes(told.SerializeToString()))
        for requested, tensor in zip(self.outputs, tensors, strict=True):
            array = self.array(requested, results, own)
            if self.raw:
                described.append(delimited(OUTPUTS, tensor))
                values += _long(RAW, to_bytes(array, requested.datatype))
            else:
                described += _long(OUTPUTS, [tensor, *_long(CONTENTS, to_contents(array, requested.datatype))])
        # Messages are merged by joining their bytes: so no long field is copied more than once.
        return Content(b"".join([*described, *values]))

    @cached_property
    def _template(self) -> tuple[bytes, list[bytes]]:
        """The message without its outputs, and each output without its values."""
        first = ModelInferResponse(model_name=self.model.name, model_version=str(self.model.version), id=self.id or "")
        tensors = [
            ModelInferResponse.InferOutputTensor(
                name=each.output.name, datatype=each.datatype, shape=each.shape(self.samples, self.model.spec)
            )
            for each in self.outputs
        ]
        return bytes(first.SerializeToString()), [bytes(each.SerializeToString()) for each in tensors]


@dataclass(frozen=True)
class MessageCodec:
    """Decodes one request for `model`, which may be `parted` already; `blobs` reads the state of a sequence."""

    model: LoadedModel
    blobs: Blobs
    parted: SplitRequest | None = None

    def decode(self, body: bytes) -> InferQuery:
        """Decode the message. Raises MalformedBody, InvalidRequest, InvalidInput or TooLarge."""
        parted = self.parted or part(body)
        request = validated(_fields(parted), InferRequest)
        renderer = partial(MessageRenderer, raw=bool(parted.raw))
        return query_of(request, partial(_values, parted), self.model, self.blobs, renderer)

    decode_small = decode


def _fields(parted: SplitRequest) -> dict[str, Any]:
    """Return the message's fields as JSON has them."""
    message = parted.message
    inputs = [{"datatype": each.datatype, "shape": list(each.shape), **_tensor(each)} for each in message.inputs]
    outputs = [_tensor(each) for each in message.outputs]
    parameters = plain(message.parameters) | {"binary_data_output": bool(parted.raw)}
    return {"id": message.id or None, "inputs": inputs, "outputs": outputs, "parameters": parameters}


def _values(parted: SplitRequest, tensor: InputTensor, shape: Shape) -> Array:
    """Return the array of the only input, (batch, *shape); raises InvalidRequest and MalformedBody."""
    raw, contents = parted.raw, parted.contents
    if tensor.datatype is Datatype.BYTES:
        raise InvalidRequest("inputs[0].datatype is BYTES, expected FP32 or another of numbers")
    if not raw:
        return from_contents(contents, tensor.datatype, shape, "inputs[0].contents")
    if contents:
        raise InvalidRequest("the message has inputs[0].contents and raw_input_contents, expected one of them")
    if len(raw) != 1:
        raise InvalidRequest(f"raw_input_contents has {len(raw)} elements, expected 1, of the only input")
    return from_bytes(raw[0], tensor.datatype, shape, "raw_input_contents[0]")


def plain(parameters: Any) -> dict[str, Any]:
    """Return parameters of a message as JSON has them, without ignored ones; one that holds nothing is null."""
    choices = {name: value.WhichOneof("parameter_choice") for name, value in parameters.items() if name not in IGNORED}
    return {name: getattr(parameters[name], choice) if choice else None for name, choice in choices.items()}


def _tensor(tensor: Any) -> dict[str, Any]:
    """Return the name and parameters of an input or an output as JSON has them."""
    return {"name": tensor.name, "parameters": plain(tensor.parameters)}


def _long(number: int, parts: Iterable[bytes]) -> list[bytes]:
    """Return a field of bytes that are in parts, as parts."""
    content = list(parts)
    return [head(number, sum(map(len, content))), *content]
