"""What is ordinary in the native protocol: `{"inputs": …}` with samples of numbers, or a .npy, with no further wish."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from spikeserve.models.engines.anytime import StopRule
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.inference.decoding.binary import header_of
from spikeserve.service.inference.decoding.media import MAGIC, NPY
from spikeserve.service.inference.ordinary.columns import Columns
from spikeserve.service.inference.ordinary.frames import Content, Frame, Span, Write, is_short, span_at
from spikeserve.service.inference.protocols.native.codec import NativeCodec
from spikeserve.service.inference.protocols.v2.tensors import outputs_of
from spikeserve.service.inference.scheduling.query import SMALL_BODY

OF_CLASSES = ("class_index", "label", "spike_counts", "probabilities")
OF_VALUES = ("values", "spike_counts")
NPY_BEGIN = MAGIC + b"\x01\x00"


class NativeFormat:
    """The ordinary bodies for one model, of at most `rows` samples, and their answers."""

    def __init__(self, model: LoadedModel, rows: int) -> None:
        self.model = model
        self.codec = NativeCodec(model)
        self.brackets = {2, 1 + len(model.spec.input.shape)}
        self.rows = rows
        self.most: dict[int, int] = {}  # samples of a request, by its time steps

    def span(self, body: bytes) -> Span | None:
        """Return where the first array of a body is."""
        span = span_at(body, body.find(b"["))
        return span if span is not None and span.brackets in self.brackets else None

    def frame(self, before: bytes, after: bytes, brackets: int) -> Frame | None:
        """Return the frame of a body whose first array is that of `inputs`; raises what the codec raises."""
        one = b"[" * brackets + b"0" + b"]" * brackets
        request, steps, _ = self.codec.validated(before + one + after)
        zero: Any = 0.0
        for _ in range(brackets):
            zero = [zero]
        if request.inputs != zero or request.returned:
            return None
        most = self.most.get(steps)
        if most is None:
            size = self.model.limits.answer.native
            most = sum(is_short(self.model, n, steps, size(n, steps)) for n in range(1, self.rows + 1))
            self.most[steps] = most
        return Frame(steps, request.seed, request.stop, most, None, self.writer(steps, request.stop))

    def writer(self, steps: int, stop: StopRule | None) -> Write:
        """Make the function that writes an answer."""
        head, tail = self.codec.envelope(steps)
        names = (
            *(OF_CLASSES if self.model.spec.scores.has_classes else OF_VALUES),
            *(("steps_used",) if stop is not None else ()),
            "synaptic_operations",
        )
        known = outputs_of(self.model.spec)
        outputs = [known[name] for name in names]
        fields = [b'"%b":' % each.name.encode() + (b"[%b]" if each.per_class else b"%b") for each in outputs]
        prediction = b"{" + b",".join(fields) + b"}"

        def write(columns: Columns, own: slice) -> Content:
            rows = zip(*[columns.text(output)[own] for output in outputs], strict=True)
            return Content(b"%b[%b]%b" % (head, b",".join([prediction % row for row in rows]), tail))

        return write


class NpyFormat(NativeFormat):
    """The ordinary .npy bodies for one model: little-endian float32 by rows, behind a header of format 1.0."""

    def span(self, body: bytes) -> Span | None:
        """Return where the values are, behind the header."""
        if not body.startswith(NPY_BEGIN):
            return None
        at = len(NPY_BEGIN)
        start = at + 2 + int.from_bytes(body[at : at + 2], "little")
        return Span(start, len(body), 0) if start < len(body) else None

    def frame(self, before: bytes, after: bytes, brackets: int) -> Frame | None:  # noqa: ARG002
        """Return the frame of a header; raises what the codec raises."""
        header = header_of(before)
        size = header.dtype.itemsize * math.prod(header.shape)
        if header.dtype != np.float32 or header.by_columns or size > SMALL_BODY:
            return None
        query = NativeCodec(self.model, kind=NPY).decode_small(before + bytes(size))
        if query is None:
            return None
        samples = len(query.samples)
        if samples > self.rows or not is_short(self.model, samples, query.time_steps, query.answer_bytes):
            return None
        return Frame(query.time_steps, query.seed, query.stop, samples, samples, self.writer(query.time_steps, None))
