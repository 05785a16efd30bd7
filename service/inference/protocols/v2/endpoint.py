"""The bodies of the protocol v2 that kernels read: one input of floats, its values as JSON or as bytes behind it."""

from __future__ import annotations

from typing import Any, cast

from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.inference.decoding.media import Unpack
from spikeserve.service.inference.decoding.readers import Reader
from spikeserve.service.inference.protocols.v2.codec import HEADER_LENGTH_BYTES, InferCodec
from spikeserve.service.inference.protocols.v2.decode import InferQuery
from spikeserve.service.inference.protocols.v2.tensors import DTYPES, Datatype
from spikeserve.service.inference.scheduling import frames
from spikeserve.service.inference.scheduling.answer import Renderer
from spikeserve.service.inference.sessions.blob import Blobs

DATATYPES = (Datatype.FP32, Datatype.FP64)


def frame_of(query: InferQuery, model: LoadedModel, reader: Reader) -> frames.Frame | None:
    """Return the frame of requests that differ from this one in their values only; None where they share no batch.

    Those are of a sequence, have a time of their own, or are long.
    """
    samples, options = len(query.samples), query.options
    if query.sequence is not None or query.timeout is not None or samples > len(reader.rows):
        return None
    group = frames.Group.of(model, reader, options)
    if not group.is_short(samples, query.answer_bytes):
        return None
    return frames.Frame(group, range(samples, samples + 1), cast("Renderer", query.render))


class InferEndpoint(frames.BatchedEndpoint):
    """The bodies for one model, of which `reader` reads some; `blobs` reads the state of a sequence."""

    is_v2 = True

    def __init__(self, reader: Reader | None, blobs: Blobs, *of: Any) -> None:
        super().__init__(*of)
        self.reader = reader
        self.is_read = reader is not None
        self.blobs = blobs

    def span(self, body: bytes) -> frames.Span | None:
        """Return the bytes behind the JSON, or the array after the last name `data`."""
        if self.extras.json_bytes:
            return frames.Span(self.extras.json_bytes, len(body), 0)
        name = body.rfind(b'"data"')
        return None if name < 0 else self.array_at(body, body.find(b"[", name))

    def codec(self, unpack: Unpack | None = None) -> InferCodec:
        """Return the decoder of a body, which `unpack` decompresses first."""
        length = self.extras.json_bytes
        return InferCodec(self.model, self.blobs, {HEADER_LENGTH_BYTES: b"%d" % length} if length else {}, unpack)

    def framed(self, body: bytes, query: InferQuery) -> frames.DecodedBody | None:
        """Return the frame of a decoded body; None where its request shares no batch on the event loop."""
        frame = None if self.reader is None else frame_of(query, self.model, self.reader)
        if frame is None:
            return None
        if self.extras.json_bytes:
            return frames.DecodedBody(frame._replace(dtype=DTYPES[query.datatype]), is_plain=True)
        is_once = body.count(b'"data"') == 1 and b"\\" not in body  # the name of the values, however JSON writes it
        return frames.DecodedBody(frame, is_once and query.datatype in DATATYPES)
