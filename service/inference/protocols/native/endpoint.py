"""The bodies of the native protocol that kernels read: `{"inputs": …}` with numbers or events, or a .npy."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from http import HTTPStatus
from typing import Any, cast

from spikeserve.service.inference.decoding.binary import header_of
from spikeserve.service.inference.decoding.media import JSON, MAGIC, Unpack
from spikeserve.service.inference.decoding.readers import Reader, Readers
from spikeserve.service.inference.protocols.native.codec import NativeCodec
from spikeserve.service.inference.scheduling import frames
from spikeserve.service.inference.scheduling.answer import Renderer
from spikeserve.service.inference.scheduling.query import Query

MAX_READERS = 16  # of events that a form has, each for other steps
NPY_BEGIN = MAGIC + b"\x01\x00"


class NativeEndpoint(frames.BatchedEndpoint):
    """The bodies of one media type for one model, of which `readers` read some."""

    invalid = HTTPStatus.UNPROCESSABLE_ENTITY

    def __init__(self, kind: bytes, readers: Readers, *of: Any) -> None:
        super().__init__(*of)
        self.kind = kind
        self.events = readers.events is not None
        self.is_read = self.events or readers.rows is not None
        self.reader_of = lru_cache(MAX_READERS)(readers.events or (lambda _: cast("Reader", readers.rows)))
        self.plain = NativeCodec(self.model, kind=kind or None)
        self.counts: dict[int, range] = {}  # of samples that a request may have, by its time steps

    def span(self, body: bytes) -> frames.Span | None:
        """Return where the numbers of a body are: behind a .npy's header, else its first array.

        An array of events ends with the last object in the body.
        """
        if body.startswith(NPY_BEGIN) and self.kind != JSON:
            start = len(NPY_BEGIN) + 2 + int.from_bytes(body[len(NPY_BEGIN) :][:2], "little")
            return frames.Span(start, len(body), 0) if start < len(body) else None
        start = body.find(b"[") if self.kind in (JSON, b"") else -1
        if not self.events:
            return self.array_at(body, start)
        last = body.rfind(b"}", 0, body.rfind(b"}"))
        stop = body.find(b"]", last)
        if not 0 <= start < last < stop or not body[start + 1 : last].lstrip().startswith(b"{"):
            return None
        return frames.Span(start, stop + 1, frames.OF_EVENTS)

    def codec(self, unpack: Unpack | None = None) -> NativeCodec:
        """Return the decoder of a body, which `unpack` decompresses first."""
        return self.plain if unpack is None else replace(self.plain, unpack=unpack)

    def framed(self, body: bytes, query: Query) -> frames.DecodedBody | None:
        """Return the frame of a decoded body; None where its request shares no batch on the event loop."""
        if query.options.returned:
            return None
        steps, samples, size = query.options.time_steps, len(query.samples), self.model.limits.answer.native
        group = frames.Group.of(self.model, self.reader_of(steps), query.options)
        counts = self.counts.get(steps)
        if counts is None:
            rows = range(1, len(group.reader.rows) + 1)
            counts = self.counts[steps] = rows[: sum(group.is_short(n, size(n, steps)) for n in rows)]
        frame = frames.Frame(group, counts, cast("Renderer", query.render))
        if not body.startswith(MAGIC):
            return frames.DecodedBody(frame, is_plain=True)
        header = header_of(body)
        frame = frame._replace(counts=counts[samples - 1 : samples], dtype=header.dtype)
        return frames.DecodedBody(frame, is_plain=not header.by_columns)
