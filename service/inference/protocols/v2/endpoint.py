"""What is ordinary in the protocol v2: one input of floats, its values as JSON or as bytes behind it."""

from __future__ import annotations

from typing import Any, cast

from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.inference.decoding.readers import Reader
from spikeserve.service.inference.protocols.v2.decode import InferQuery, decode
from spikeserve.service.inference.protocols.v2.tensors import DTYPES, Datatype
from spikeserve.service.inference.scheduling import frames
from spikeserve.service.inference.scheduling.answer import Renderer
from spikeserve.service.inference.sessions.blob import Blobs

DATATYPES = (Datatype.FP32, Datatype.FP64)


def frame_of(query: InferQuery, model: LoadedModel, reader: Reader) -> frames.Frame | None:
    """Return the frame of requests that differ from this one in their values only; None where they are not ordinary.

    Those are of a sequence, have a time of their own, or are long.
    """
    samples, options = len(query.samples), query.options
    if query.sequence is not None or query.timeout is not None or samples > len(reader.rows):
        return None
    group = frames.Group.of(model, reader, options)
    if not group.is_short(samples, query.answer_bytes):
        return None
    return frames.Frame(group, range(samples, samples + 1), cast("Renderer", query.render))


class InferEndpoint(frames.HttpEndpoint):
    """The ordinary bodies for one model, of at most as many samples as `reader` has rows, and their answers.

    `blobs` reads no state here.
    """

    is_v2 = True

    def __init__(self, reader: Reader, blobs: Blobs, *of: Any) -> None:
        super().__init__(*of)
        self.reader = reader
        self.blobs = blobs

    def span(self, body: bytes) -> frames.Span | None:
        """Return the bytes behind the JSON, or the array after the last name `data`."""
        if self.extras.json_bytes:
            return frames.Span(self.extras.json_bytes, len(body), 0)
        name = body.rfind(b'"data"')
        return None if name < 0 else self.array_at(body, body.find(b"[", name))

    def decode(self, body: bytes) -> frames.DecodedBody | None:
        """Decode a body; None where it asks for more than a plain answer. Raises what the codec raises."""
        json_bytes = self.extras.json_bytes
        query = decode(body, str(json_bytes) if json_bytes else None, self.model, self.blobs)
        frame = frame_of(query, self.model, self.reader)
        if frame is None:
            return None
        if json_bytes:
            return frames.DecodedBody(frame._replace(dtype=DTYPES[query.datatype]), query.samples, is_plain=True)
        is_once = body.count(b'"data"') == 1 and b"\\" not in body  # the name of the values, however JSON writes it
        return frames.DecodedBody(frame, query.samples, is_once and query.datatype in DATATYPES)
