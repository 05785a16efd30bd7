"""The codec of the Open Inference Protocol: JSON, or JSON followed by tensors' bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from pydantic_core import to_json

from spikeserve.models.engines import RunResult, State
from spikeserve.models.spec import Spec
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.inference.decoding.media import BYTES, CONTENT_TYPE, JSON, Unpack
from spikeserve.service.inference.decoding.pieces import SHORT_BYTES, Pieces, as_array, joined, json_fragments
from spikeserve.service.inference.protocols.v2.decode import HEADER_LENGTH, InferQuery, RequestedOutput, decode
from spikeserve.service.inference.protocols.v2.schemas import InferResponse, ResultTensor
from spikeserve.service.inference.protocols.v2.tensors import STEPS_USED, Array, Datatype, to_bytes
from spikeserve.service.inference.sessions.blob import Blobs
from spikeserve.service.inference.sessions.session import SessionState


def output_arrays(
    query: InferQuery, result: RunResult, model: LoadedModel
) -> Iterator[tuple[RequestedOutput, Datatype, Array]]:
    """Yield each output that a query requested, with its datatype and its array; of BYTES, the array holds text."""
    if result.steps_used is None and any(requested.output is STEPS_USED for requested in query.outputs):  # all of them
        result = replace(result, steps_used=np.full(len(result.readout), query.options.time_steps))
    for requested in query.outputs:
        array = requested.output.of(result, model.spec)
        if requested.classes is None:
            yield requested, requested.output.datatype, array
        else:
            yield requested, Datatype.BYTES, classified(array, requested.classes, model.spec)


def classified(values: Array, classes: int, spec: Spec) -> Array:
    """Return the greatest values (batch, classes) as text, "value:index:label", the greatest first.

    A tie goes to the lower index. Floats are written with six decimals, as Triton does.
    """
    form = "d" if values.dtype.kind == "i" else "f"
    rows = []
    for row in values:  # one sample at a time, since sorting all at once would hold the interpreter
        top = np.argsort(-row, kind="stable")[:classes]
        chosen = zip(row[top].tolist(), top.tolist(), strict=True)
        rows.append([f"{value:{form}}:{index}:{spec.labels[index]}" for value, index in chosen])
    return np.array(rows, object)


HEADER_LENGTH_BYTES = HEADER_LENGTH.lower().encode()


@dataclass(frozen=True)
class InferContent:
    """An answer's body and headers, their names in lower case."""

    pieces: Pieces
    headers: Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True)
class TensorCodec:
    """What the codecs of the protocol have in common, over HTTP and gRPC: a request for `model`, as tensors.

    `blobs` writes and reads the states of sequences.
    """

    model: LoadedModel
    blobs: Blobs

    def state_text(self, query: InferQuery, after: State | None) -> str | None:
        """Return the state `after` a request of a sequence as text, if the request asked for it."""
        if after is None or query.sequence is None or not query.sequence.tells_state:
            return None
        return self.blobs.write(self.model, SessionState.begin(self.model.spec.classes, after))


@dataclass(frozen=True)
class InferCodec(TensorCodec):
    """Decodes and answers one request over HTTP; `headers` are the request's, and `unpack` decompresses its body."""

    headers: Mapping[bytes, bytes]
    unpack: Unpack | None

    def decode_small(self, body: bytes) -> InferQuery | None:
        """Decode a short body; return None where it is compressed, since it may be long. Raises as `decode` does."""
        return None if self.unpack is not None else self.decode(body)

    def decode(self, body: bytes) -> InferQuery:
        """Decode a body. Raises a ServiceError, such as MalformedBody, or InvalidInput."""
        length = self.headers.get(HEADER_LENGTH_BYTES)
        unpacked = body if self.unpack is None else self.unpack(body)
        return decode(unpacked, None if length is None else length.decode("latin-1"), self.model, self.blobs)

    def render(self, query: InferQuery, result: RunResult, after: State | None) -> InferContent:
        """Render the answer, with the state `after` it where that was asked."""
        model, short = self.model, query.answer_bytes <= SHORT_BYTES
        outputs: list[ResultTensor] = []
        blobs: list[bytes] = []
        for requested, datatype, array in output_arrays(query, result, model):
            tensor: ResultTensor = {"name": requested.output.name, "datatype": datatype, "shape": list(array.shape)}
            if requested.binary:
                own = to_bytes(array, datatype)
                tensor["parameters"] = {"binary_data_size": sum(map(len, own))}
                blobs += own
            else:
                tensor["data"] = array.ravel().tolist() if short else as_array(array.ravel())
            outputs.append(tensor)
        response: InferResponse = {"model_name": model.name, "model_version": str(model.version), "outputs": outputs}
        if query.id is not None:
            response["id"] = query.id
        if (state := self.state_text(query, after)) is not None:
            response["parameters"] = {"sequence_state": state}
        text = [to_json(response, inf_nan_mode="null")] if short else list(json_fragments(response))
        pieces, headers = joined(chain(text, blobs)), [(CONTENT_TYPE, JSON)]
        if blobs:
            headers = [(CONTENT_TYPE, BYTES), (HEADER_LENGTH_BYTES, b"%d" % sum(map(len, text)))]
        return InferContent(pieces, headers)
