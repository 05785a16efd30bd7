"""What is ordinary in the protocol v2: one input of floats, its values as JSON or as bytes behind it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from pydantic_core import to_json

from spikeserve.models.spec.parameters import Shape
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.inference.decoding.readers import Reader
from spikeserve.service.inference.ordinary.frames import Columns, Content, Frame, Group, Span, Write, is_short, span_at
from spikeserve.service.inference.protocols.v2.decode import InferQuery, query_of
from spikeserve.service.inference.protocols.v2.parsing import InvalidRequest, parse
from spikeserve.service.inference.protocols.v2.schemas import InferRequest, InferResponse, InputTensor, ResultTensor
from spikeserve.service.inference.protocols.v2.tensors import STEPS_USED, Array, Datatype, to_bytes
from spikeserve.service.inference.sessions.blob import Blobs

BYTES_LINES = b"content-type: application/octet-stream\r\ninference-header-content-length: %d\r\n"
DATATYPES = (Datatype.FP32, Datatype.FP64)


def frame_of(query: InferQuery, model: LoadedModel, reader: Reader, write: Write) -> Frame | None:
    """Return the frame of requests that differ from this one in their values only; None where they are not ordinary.

    Those are that ask for more than plain outputs, are of a sequence, have a time of their own, or are long.
    """
    samples, options = len(query.samples), query.options
    plain = all(each.classes is None and (options.stop or each.output is not STEPS_USED) for each in query.outputs)
    if not plain or query.sequence is not None or query.timeout is not None or samples > len(reader.rows):
        return None
    short = is_short(model, samples, options.time_steps, query.answer_bytes)
    return Frame(Group.of(model, reader, options), samples, samples, write) if short else None


@dataclass(frozen=True)
class InferFormat:
    """The ordinary bodies for one model, of at most as many samples as `reader` has rows, and their answers.

    `blobs` reads no state here. In its bodies the values are bytes behind `json_bytes` of JSON; where these are 0, all
    is JSON.
    """

    model: LoadedModel
    reader: Reader
    blobs: Blobs
    json_bytes: int = 0

    @cached_property
    def brackets(self) -> set[int]:
        """The numbers of brackets that values may begin with."""
        return {1, 1 + len(self.model.spec.input.shape)}

    def span(self, body: bytes) -> Span | None:
        """Return where the bytes are, or the array after the last name `data`."""
        if self.json_bytes:
            return Span(self.json_bytes, len(body), 0)
        name = body.rfind(b'"data"')
        span = None if name < 0 else span_at(body, body.find(b"[", name))
        return span if span is not None and span.brackets in self.brackets else None

    def frame(self, before: bytes, after: bytes, brackets: int) -> Frame | None:
        """Return the frame of a body with the values of its only input; raises what the codec raises."""
        zero: Any = 0
        for _ in range(brackets):
            zero = [zero]
        text = b"[" * brackets + b"0" + b"]" * brackets if brackets else b""
        request = parse(before + text + after, InferRequest)
        tensor = request.inputs[0] if len(request.inputs) == 1 else None
        if tensor is None or tensor.data != (zero if brackets else None) or tensor.datatype not in DATATYPES:
            return None
        size = tensor.parameters.binary_data_size
        if size != (None if brackets else 4 * math.prod(tensor.shape)) or (size and tensor.datatype != Datatype.FP32):
            return None
        if request.model_name not in (None, self.model.name):
            return None
        query = query_of(request, self._zeros, self.model, self.blobs)
        return frame_of(query, self.model, self.reader, self._writer(query))

    def _zeros(self, _: InputTensor, shape: Shape) -> Array:
        if shape[0] > len(self.reader.rows):
            raise InvalidRequest(f"inputs[0] has {shape[0]} samples, expected fewer where it is ordinary")
        return np.zeros(shape, np.float32)

    def _writer(self, query: InferQuery) -> Write:
        """Make the function that writes an answer."""
        outputs = [(requested.output, requested.binary) for requested in query.outputs]
        tensors: list[ResultTensor] = []
        for output, binary in outputs:
            shape = [len(query.samples), output.width(self.model.spec)]
            tensors.append({"name": output.name, "datatype": output.datatype, "shape": shape})
            if binary:
                tensors[-1]["parameters"] = {"binary_data_size": 0}
            else:
                tensors[-1]["data"] = []
        response: InferResponse = {
            "model_name": self.model.name,
            "model_version": str(self.model.version),
            "outputs": tensors,
        }
        if query.id is not None:
            response["id"] = query.id
        text = to_json(response).replace(b"%", b"%%")
        text = text.replace(b'"data":[]', b'"data":[%b]').replace(b'"binary_data_size":0', b'"binary_data_size":%d')
        as_bytes = any(binary for _, binary in outputs)

        def write(columns: Columns, own: slice) -> Content:
            blobs: list[bytes] = []
            parts: list[bytes | int] = []
            for output, binary in outputs:
                if binary:
                    blobs.append(b"".join(to_bytes(columns.array(output)[own], output.datatype)))
                    parts.append(len(blobs[-1]))
                else:
                    parts.append(b",".join(columns.text(output)[own]))
            header = text % tuple(parts)
            return Content(header + b"".join(blobs), BYTES_LINES % len(header)) if as_bytes else Content(header)

        return write
