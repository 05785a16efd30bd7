"""The codec of the Open Inference Protocol: JSON, JSON followed by tensors' bytes, or bytes alone; maybe compressed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

from models.engines import RunResult
from service.catalog.loaded import LoadedModel
from service.inference.compression import Encoding, accepted, pack
from service.inference.media import BYTES, CONTENT_ENCODING, CONTENT_TYPE, JSON, Unpack
from service.inference.pieces import SHORT_BYTES, Pieces
from service.inference.v2.decode import HEADER_LENGTH, InferQuery, decode
from service.inference.v2.render import render

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
class InferCodec:
    """Decodes and answers one request for `model`; `headers` are the request's, `unpack` decompresses its body."""

    model: LoadedModel
    headers: Mapping[bytes, bytes]
    unpack: Unpack | None

    def decode_small(self, body: bytes) -> InferQuery | None:
        """Decode a short body; return None where it is compressed, since it may be long. Raises as `decode` does."""
        return None if self.unpack is not None else self.decode(body)

    def decode(self, body: bytes) -> InferQuery:
        """Decode a body. Raises MalformedBody, InvalidRequest, TooLarge or Overloaded."""
        began = perf_counter()
        unpacked = body if self.unpack is None else self.unpack(body)
        return decode(unpacked, self._header(HEADER_LENGTH_BYTES), self.model, began)

    def render(self, query: InferQuery, result: RunResult) -> InferContent:
        """Render the answer, compressed if the client accepts that."""
        began = perf_counter()
        rendered = render(query, result, self.model, short=query.answer_bytes <= SHORT_BYTES)
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
