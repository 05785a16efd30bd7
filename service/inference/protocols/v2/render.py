"""Render answers of the protocol v2: what is known before the run as a template, then the outputs' values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
from pydantic_core import to_json

from spikeserve.models.engines import State
from spikeserve.models.spec import Spec
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.inference.decoding.pieces import SHORT_BYTES, joined, json_fragments
from spikeserve.service.inference.protocols.v2.schemas import InferResponse, ResultTensor
from spikeserve.service.inference.protocols.v2.tensors import STEPS_USED, Array, Datatype, Output, to_bytes
from spikeserve.service.inference.scheduling.answer import JSON_LINE, Content, Results
from spikeserve.service.inference.sessions.blob import Blobs
from spikeserve.service.inference.sessions.session import SessionState

BYTES_LINES = b"content-type: application/octet-stream\r\ninference-header-content-length: %d\r\n"
HERE = b"\0"  # in a template, where a value goes; JSON writes this character otherwise


@dataclass(frozen=True)
class RequestedOutput:
    """An output that the answer holds, as bytes or JSON; with `classes`, its k greatest values as text."""

    output: Output
    binary: bool
    classes: int | None = None

    @property
    def datatype(self) -> Datatype:
        """The datatype of its values."""
        return self.output.datatype if self.classes is None else Datatype.BYTES

    def shape(self, samples: int, spec: Spec) -> list[int]:
        """Return its shape for so many samples."""
        width = self.output.width(spec)
        return [samples, width if self.classes is None else min(self.classes, width)]


@dataclass(frozen=True)
class TensorRenderer:
    """Renders answers as tensors, over HTTP or gRPC; `answer_bytes` is the most that one takes.

    `blobs` writes the state of a sequence, where the request asked for it.
    """

    model: LoadedModel
    outputs: tuple[RequestedOutput, ...]
    samples: int
    time_steps: int
    id: str | None
    answer_bytes: int
    blobs: Blobs | None

    def array(self, requested: RequestedOutput, results: Results, own: slice) -> Array:
        """Return the values of an output (samples, width); of BYTES, the array holds text."""
        if requested.output is STEPS_USED and results.result.steps_used is None:  # all of them
            return np.full((self.samples, 1), self.time_steps)
        array = results.once(requested.output.of)[own]
        return array if requested.classes is None else classified(array, requested.classes, self.model.spec)

    def state_text(self, after: State | None) -> str | None:
        """Return the state `after` a request of a sequence as text, if the request asked for it."""
        if after is None or self.blobs is None:
            return None
        return self.blobs.write(self.model, SessionState.begin(self.model.spec.classes, after))


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


@dataclass(frozen=True)
class InferRenderer(TensorRenderer):
    """Renders answers over HTTP: JSON, or JSON followed by tensors' bytes."""

    def __call__(self, results: Results, own: slice, after: State | None = None) -> Content:
        """Render an answer, with the state `after` it where that was asked."""
        *before, end = self._template
        text, blobs = list[bytes](), list[bytes]()
        for start, requested in zip(before, self.outputs, strict=True):
            text.append(start)
            if requested.binary:
                parts = to_bytes(self.array(requested, results, own), requested.datatype)
                text.append(b"%d" % sum(map(len, parts)))
                blobs += parts
            elif requested.classes is not None or requested.output is STEPS_USED or self.answer_bytes > SHORT_BYTES:
                text += [*json_fragments(self.array(requested, results, own).ravel())][1:-1]
            else:
                text.append(b",".join(results.once(requested.output.texts)[own]))
        if (state := self.state_text(after)) is not None:
            end = b'%b,"parameters":{"sequence_state":%b}}' % (end[:-1], to_json(state))
        text.append(end)
        headers = BYTES_LINES % sum(map(len, text)) if blobs else JSON_LINE
        first, *more = joined(chain(text, blobs))
        return Content(first, headers, more=more)

    @cached_property
    def _template(self) -> list[bytes]:
        """The JSON of an answer: what is in front of each output's values or their size, and the end."""
        tensors: list[ResultTensor] = []
        for each in self.outputs:
            shape = each.shape(self.samples, self.model.spec)
            tensors.append({"name": each.output.name, "datatype": each.datatype, "shape": shape})
            if each.binary:
                tensors[-1]["parameters"] = {"binary_data_size": 0}
            else:
                tensors[-1]["data"] = []
        name, version = self.model.name, str(self.model.version)
        response: InferResponse = {"model_name": name, "model_version": version, "outputs": tensors}
        if self.id is not None:
            response["id"] = self.id
        text = to_json(response).replace(b'"data":[]', b'"data":[' + HERE + b"]")
        return text.replace(b'"binary_data_size":0', b'"binary_data_size":' + HERE).split(HERE)
