"""The codec of the Open Inference Protocol: JSON, JSON followed by tensors' bytes, or bytes alone; maybe compressed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from spikeserve.models.engines import RunResult, State
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.inference.decoding.compression import Encoding, accepted, pack
from spikeserve.service.inference.decoding.media import (
    BYTES,
    CONTENT_ENCODING,
    CONTENT_TYPE,
    INFER_TYPES,
    JSON,
    Form,
    Unpack,
    form_of,
)
from spikeserve.service.inference.decoding.pieces import SHORT_BYTES, Pieces
from spikeserve.service.inference.protocols.v2.decode import HEADER_LENGTH, InferQuery, decode, decode_binary
from spikeserve.service.inference.protocols.v2.render import render
from spikeserve.service.inference.sessions.blob import Blobs, Carried

ACCEPT_ENCODING = b"accept-encoding"
HEADER_LENGTH_BYTES = HEADER_LENGTH.lower().encode()


@dataclass(frozen=True)
class InferContent:
    """An answer's body and headers, their names in lower case, and the seconds of decoding and rendering."""

    pieces: Pieces
    headers: Sequence[tuple[bytes, bytes]]
    decode_seconds: float
    render_seconds: float


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
        return self.blobs.write(self.model, Carried(after, 0, None, np.zeros(self.model.spec.classes)))


@dataclass(frozen=True)
class InferCodec(TensorCodec):
    """Decodes and answers one request over HTTP.

    `headers` are the request's, `unpack` decompresses its body, and `kind` is its media type.
    """

    headers: Mapping[bytes, bytes]
    unpack: Unpack | None
    kind: bytes | None = JSON

    def decode_small(self, body: bytes) -> InferQuery | None:
        """Decode a short body; return None where it is compressed, since it may be long, or is a recording's file.

        Raises as `decode` does.
        """
        return None if self.unpack is not None or self.waits(body) else self.decode(body)

    def waits(self, body: bytes) -> bool:
        """Return whether decoding a body waits for another process; whether a compressed one does is not known."""
        if self._is_tensors:
            return False
        return self.unpack is not None or self._form(body) is Form.FILE

    def decode(self, body: bytes) -> InferQuery:
        """Decode a body. Raises a ServiceError, such as MalformedBody, or InvalidInput."""
        began = perf_counter()
        unpacked = body if self.unpack is None else self.unpack(body)
        form = Form.JSON if self._is_tensors else self._form(unpacked)
        if form is Form.JSON:
            return decode(unpacked, self._header(HEADER_LENGTH_BYTES), self.model, self.blobs, began)
        return decode_binary(form, unpacked, self.model, began)

    @property
    def _is_tensors(self) -> bool:
        """Whether the body is JSON, or has the bytes of tensors, whatever it begins with."""
        return (
            self.kind == JSON or HEADER_LENGTH_BYTES in self.headers or (self.kind is None and self.unpack is not None)
        )

    def _form(self, body: bytes) -> Form:
        return form_of(self.kind, body, INFER_TYPES, octets=Form.JSON)

    def render(self, query: InferQuery, result: RunResult, after: State | None) -> InferContent:
        """Render the answer, compressed if the client accepts that; with the state `after` it where that was asked."""
        began = perf_counter()
        state = self.state_text(query, after)
        rendered = render(query, result, self.model, state, short=query.answer_bytes <= SHORT_BYTES)
        headers = [(CONTENT_TYPE, JSON)]
        if rendered.header_length is not None:
            headers = [(CONTENT_TYPE, BYTES), (HEADER_LENGTH_BYTES, b"%d" % rendered.header_length)]
        pieces = rendered.content
        if ACCEPT_ENCODING in self.headers:
            encoding = accepted(self._header(ACCEPT_ENCODING), sum(map(len, pieces)))
            if encoding is not Encoding.IDENTITY:
                headers += [(CONTENT_ENCODING, encoding.encode()), (b"vary", ACCEPT_ENCODING)]
                pieces = pack(pieces, encoding)
        return InferContent(pieces, headers, query.decode_seconds, perf_counter() - began)

    def _header(self, name: bytes) -> str | None:
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")
