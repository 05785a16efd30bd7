"""The codec of the Open Inference Protocol: JSON, or JSON followed by tensors' bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.inference.decoding.media import Unpack
from spikeserve.service.inference.protocols.v2.decode import HEADER_LENGTH, InferQuery, decode
from spikeserve.service.inference.sessions.blob import Blobs

HEADER_LENGTH_BYTES = HEADER_LENGTH.lower().encode()


@dataclass(frozen=True)
class InferCodec:
    """Decodes one request over HTTP for `model`.

    `blobs` reads the state of a sequence; `headers` are the request's, and `unpack` decompresses its body.
    """

    model: LoadedModel
    blobs: Blobs
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
