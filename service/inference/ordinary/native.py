"""What is ordinary in the native protocol: `{"inputs": …}` with samples of numbers, which asks for nothing extra."""

from __future__ import annotations

from typing import Any

from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.inference.ordinary.columns import Columns
from spikeserve.service.inference.ordinary.frames import Frame, Span, is_short, span_at
from spikeserve.service.inference.protocols.native.codec import NativeCodec
from spikeserve.service.inference.protocols.v2.tensors import outputs_of

OF_CLASSES = ("class_index", "label", "spike_counts", "probabilities")
OF_VALUES = ("values", "spike_counts")


class NativeForm:
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
        head, tail = self.codec.envelope(steps)
        names = (
            *(OF_CLASSES if self.model.spec.scores.has_classes else OF_VALUES),
            *(("steps_used",) if request.stop is not None else ()),
            "synaptic_operations",
        )
        known = outputs_of(self.model.spec)
        outputs = [known[name] for name in names]
        fields = [b'"%b":' % each.name.encode() + (b"[%b]" if each.per_class else b"%b") for each in outputs]
        prediction = b"{" + b",".join(fields) + b"}"

        def write(columns: Columns, own: slice) -> bytes:
            rows = zip(*[columns.text(output)[own] for output in outputs], strict=True)
            return b"%b[%b]%b" % (head, b",".join([prediction % row for row in rows]), tail)

        return Frame(steps, request.seed, request.stop, most, None, write)
