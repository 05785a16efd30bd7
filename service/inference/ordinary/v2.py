"""What is ordinary in the protocol v2: one input of floats with its values as JSON, and outputs as JSON."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic_core import to_json

from spikeserve.models.spec.parameters import Shape
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.inference.ordinary.columns import Columns
from spikeserve.service.inference.ordinary.frames import Frame, Span, Write, is_short, span_at
from spikeserve.service.inference.protocols.v2.decode import InferQuery, query_of
from spikeserve.service.inference.protocols.v2.parsing import InvalidRequest, parse
from spikeserve.service.inference.protocols.v2.schemas import InferRequest, InferResponse, InputTensor
from spikeserve.service.inference.protocols.v2.tensors import STEPS_USED, Array, Datatype
from spikeserve.service.inference.sessions.blob import Blobs

DATATYPES = (Datatype.FP32, Datatype.FP64)


class InferForm:
    """The ordinary bodies for one model, of at most `rows` samples, and their answers; `blobs` reads no state here."""

    def __init__(self, model: LoadedModel, rows: int, blobs: Blobs) -> None:
        self.model = model
        self.rows = rows
        self.blobs = blobs
        self.brackets = {1, 1 + len(model.spec.input.shape)}

    def span(self, body: bytes) -> Span | None:
        """Return where the array after the last name `data` is."""
        name = body.rfind(b'"data"')
        span = None if name < 0 else span_at(body, body.find(b"[", name))
        return span if span is not None and span.brackets in self.brackets else None

    def frame(self, before: bytes, after: bytes, brackets: int) -> Frame | None:
        """Return the frame of a body whose array is the `data` of its only input; raises what the codec raises."""
        request = parse(before + b"[" * brackets + b"0" + b"]" * brackets + after, InferRequest)
        zero: Any = 0
        for _ in range(brackets):
            zero = [zero]
        tensor = request.inputs[0] if len(request.inputs) == 1 else None
        if tensor is None or tensor.data != zero or tensor.datatype not in DATATYPES:
            return None
        if tensor.parameters.binary_data_size is not None or request.model_name not in (None, self.model.name):
            return None
        query = query_of(request, self._zeros, self.model, self.blobs, 0.0)
        samples = len(query.samples)
        if query.sequence is not None or query.timeout is not None:
            return None
        if not is_short(self.model, samples, query.time_steps, query.answer_bytes):
            return None
        write = self._writer(query)
        return write and Frame(query.time_steps, query.seed, query.stop, samples, samples, write)

    def _zeros(self, _: InputTensor, shape: Shape) -> Array:
        if shape[0] > self.rows:
            raise InvalidRequest(f"inputs[0] has {shape[0]} samples, expected at most {self.rows} where it is ordinary")
        return np.zeros(shape, np.float32)

    def _writer(self, query: InferQuery) -> Write | None:
        """Make the function that writes an answer; None where what is asked for is no plain JSON."""
        outputs = [wanted.output for wanted in query.outputs]
        if any(wanted.binary or wanted.classes is not None for wanted in query.outputs):
            return None
        if STEPS_USED in outputs and query.stop is None:
            return None
        response: InferResponse = {
            "model_name": self.model.name,
            "model_version": str(self.model.version),
            "outputs": [
                {
                    "name": output.name,
                    "datatype": output.datatype,
                    "shape": [len(query.samples), output.width(self.model.spec)],
                    "data": [],
                }
                for output in outputs
            ],
        }
        if query.id is not None:
            response["id"] = query.id
        answer = b'"data":[%b]'.join(part.replace(b"%", b"%%") for part in to_json(response).split(b'"data":[]'))

        def write(columns: Columns, own: slice) -> bytes:
            return answer % tuple([b",".join(columns.text(output)[own]) for output in outputs])

        return write
