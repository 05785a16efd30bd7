"""What is ordinary in the native protocol: `{"inputs": …}` with samples of numbers or events, or a .npy."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from spikeserve.models.engines.anytime import StopRule
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.inference.decoding.binary import header_of
from spikeserve.service.inference.decoding.media import MAGIC, NPY
from spikeserve.service.inference.decoding.readers import Reader
from spikeserve.service.inference.ordinary.frames import (
    OF_EVENTS,
    Columns,
    Content,
    Frame,
    Group,
    Span,
    Write,
    is_short,
    span_at,
)
from spikeserve.service.inference.protocols.native.codec import NativeCodec
from spikeserve.service.inference.protocols.native.schemas import UnitEvents
from spikeserve.service.inference.protocols.v2.tensors import outputs_of
from spikeserve.service.inference.scheduling.query import SMALL_BODY, RunOptions

OF_CLASSES = ("class_index", "label", "spike_counts", "probabilities")
OF_VALUES = ("values", "spike_counts")
MAX_READERS = 16  # of events that a format has, each for other steps
NPY_BEGIN = MAGIC + b"\x01\x00"


class NativeFormat:
    """The ordinary bodies of numbers for one model, at most a sample for each row of `reader`, and their answers."""

    def __init__(self, model: LoadedModel, reader: Reader) -> None:
        self.model = model
        self.reader = reader
        self.codec = NativeCodec(model)
        self.brackets = {2, 1 + len(model.spec.input.shape)}
        self.rows = len(reader.rows)
        self.most: dict[int, int] = {}  # samples of a request, by its time steps

    def span(self, body: bytes) -> Span | None:
        """Return where the first array of a body is."""
        span = span_at(body, body.find(b"["))
        return span if span is not None and span.brackets in self.brackets else None

    def frame(self, before: bytes, after: bytes, brackets: int) -> Frame | None:
        """Return the frame of a body whose first array is that of `inputs`; raises what the codec raises."""
        zero: Any = 0.0
        for _ in range(brackets):
            zero = [zero]
        options = self.options(before, b"[" * brackets + b"0" + b"]" * brackets, after, zero)
        return options and self.frame_of(options, self.reader)

    def options(self, before: bytes, one: bytes, after: bytes, expected: list[Any]) -> RunOptions | None:
        """Return the options of a body with the sample `one`; None where that is not its inputs as `expected`."""
        request, options, _ = self.codec.validated(before + one + after)
        return options if request.inputs == expected and not options.returned else None

    def frame_of(self, options: RunOptions, reader: Reader) -> Frame:
        """Return the frame of bodies with these options and as many samples as are small."""
        steps = options.time_steps
        most = self.most.get(steps)
        if most is None:
            size = self.model.limits.answer.native
            most = sum(is_short(self.model, n, steps, size(n, steps)) for n in range(1, self.rows + 1))
            self.most[steps] = most
        return Frame(Group.of(self.model, reader, options), most, None, self.writer(steps, options.stop))

    def writer(self, steps: int, stop: StopRule | None) -> Write:
        """Make the function that writes an answer."""
        head, tail = self.codec.envelope(steps)
        names = (
            *(OF_CLASSES if self.model.spec.scores.has_classes else OF_VALUES),
            "synaptic_operations",
            *(("steps_used",) if stop is not None else ()),
        )
        known = outputs_of(self.model.spec)
        outputs = [known[name] for name in names]
        fields = [b'"%b":' % each.name.encode() + (b"[%b]" if each.per_class else b"%b") for each in outputs]
        prediction = b"{" + b",".join(fields) + b"}"

        def write(columns: Columns, own: slice) -> Content:
            rows = zip(*[columns.text(output)[own] for output in outputs], strict=True)
            return Content(b"%b[%b]%b" % (head, b",".join([prediction % row for row in rows]), tail))

        return write


class EventFormat(NativeFormat):
    """The ordinary bodies of events for one model; `make` makes the reader of so many steps."""

    def __init__(self, model: LoadedModel, make: Callable[[int], Reader]) -> None:
        self.make = lru_cache(MAX_READERS)(make)
        super().__init__(model, self.make(model.spec.time_steps))

    def span(self, body: bytes) -> Span | None:
        """Return where the first array of a body is, if it ends with the last object in the body."""
        start, last = body.find(b"["), body.rfind(b"}", 0, body.rfind(b"}"))
        stop = body.find(b"]", last)
        if not 0 <= start < last < stop or not body[start + 1 : last].lstrip().startswith(b"{"):
            return None
        return Span(start, stop + 1, OF_EVENTS)

    def frame(self, before: bytes, after: bytes, brackets: int) -> Frame | None:  # noqa: ARG002
        """Return the frame of a body whose first array is that of `inputs`; raises what the codec raises."""
        options = self.options(before, b'[{"t":[],"unit":[]}]', after, [UnitEvents(t=[], unit=[])])
        return options and self.frame_of(options, self.make(options.time_steps))


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
        samples, steps = len(query.samples), query.options.time_steps
        if samples > self.rows or not is_short(self.model, samples, steps, query.answer_bytes):
            return None
        return Frame(Group.of(self.model, self.reader, query.options), samples, samples, self.writer(steps, None))
