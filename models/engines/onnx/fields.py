"""Check an ONNX file, by reading the few fields that matter from its bytes, before ONNX Runtime reads it.

ONNX Runtime would read a tensor's external data from any file of the serving machine, and the onnx package, which could
check for that, is not installed there. So these fields are read here from the protobuf encoding: the operators of every
graph, subgraph and function, the outputs of one that may keep state, and where each tensor keeps its data. Every
occurrence of a field is checked, and bytes that another protobuf parser might read differently are refused, so that a
file cannot mean two things.

Field numbers: onnx.proto of ONNX 1.23. Encoding: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from spikeserve.models.errors import InvalidBundle

MAX_BYTES = 2**29  # of a model; the limit of protobuf is four times as much
MAX_FIELDS = 2_000_000  # reading them takes some seconds; a graph of 1,000 nodes has about 20,000
MAX_DEPTH = 64  # of nested messages; a subgraph is three of them, and subgraphs are rarely nested more than three deep
MAX_NAME = 60  # bytes of a name that are shown
STANDARD = frozenset({"", "ai.onnx", "ai.onnx.ml"})
# In training mode it has more than one output. ONNX Runtime (1.32) then writes into the mean and variance that it
# loaded, so that every run changes all later answers, and crashes where an output between them is left out.
BATCH_NORM = "BatchNormalization"

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
WIDTHS = {FIXED64: 8, FIXED32: 4}
MAX_TAG_BYTES, MAX_VARINT_BYTES = 5, 10

Span: TypeAlias = tuple[int, int]
Operator: TypeAlias = tuple[str, str]


@dataclass
class Outline:
    """An outline of a model: its imported operator sets, and the operators, (domain, name), used and defined."""

    opsets: dict[str, int] = field(default_factory=dict)
    used: set[Operator] = field(default_factory=set)
    defined: set[Operator] = field(default_factory=set)


def outline(model: bytes) -> Outline:
    """Return the outline of a serialised ModelProto.

    Raises InvalidBundle for bytes that are not a model, are too many, keep a tensor's data in another file, or hold a
    batch normalisation in training mode.
    """
    if len(model) > MAX_BYTES:
        raise InvalidBundle(f"model.onnx: has {len(model)} bytes, expected at most {MAX_BYTES}")
    return _Walk(model).outline()


def check(model: bytes) -> Outline:
    """Return the outline of a self-contained model: no external data, and only its own or ONNX's operators.

    Raises InvalidBundle with a sentence for any other.
    """
    found = outline(model)
    for domain, name in sorted(found.used - found.defined):
        if domain not in STANDARD:
            raise InvalidBundle(
                f"model.onnx: uses the operator '{name}' of the domain '{domain}', expected only those of ONNX itself "
                "(domains ai.onnx and ai.onnx.ml) and functions that the model defines"
            )
    if not found.used:
        raise InvalidBundle("model.onnx: holds no operator, expected an ONNX model")
    return found


class _Walk:
    """One pass over a model, with an explicit stack instead of recursion."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.found = Outline()
        self.fields = 0
        self.waiting: list[tuple[Message, Span, int]] = [(_model, (0, len(data)), 0)]

    def outline(self) -> Outline:
        while self.waiting:
            message, span, depth = self.waiting.pop()
            if depth > MAX_DEPTH:
                raise InvalidBundle(f"model.onnx: its graphs lie in one another more than {MAX_DEPTH} messages deep")
            for kind, inner in message(self, span).items():
                self.waiting += [(kind, each, depth + 1) for each in inner]
        return self.found

    def spans(self, span: Span) -> dict[int, list[Span]]:
        """Return the spans of the length-delimited fields, by field number."""
        found: dict[int, list[Span]] = {}
        for number, wire, value in self.read(span):
            if wire == LENGTH:
                found.setdefault(number, []).append(value)
        return found

    def read(self, span: Span) -> Iterator[tuple[int, int, Span]]:
        """Yield each field's number, wire type and span; for a varint, its value and 0 instead of a span."""
        place, end = span
        while place < end:
            self.fields += 1
            if self.fields > MAX_FIELDS:
                raise InvalidBundle(f"model.onnx: has more than {MAX_FIELDS} fields")
            tag, place = self.varint(place, end, MAX_TAG_BYTES)
            number, wire = tag >> 3, tag & 7
            if number == 0 or tag >= 2**32:
                raise InvalidBundle("model.onnx: is not an ONNX model: a field has no number")
            if wire == VARINT:
                value, place = self.varint(place, end, MAX_VARINT_BYTES)
                yield number, wire, (value, 0)
                continue
            if wire == LENGTH:
                length, place = self.varint(place, end, MAX_TAG_BYTES)
            elif wire in WIDTHS:
                length = WIDTHS[wire]
            else:
                raise InvalidBundle(f"model.onnx: is not an ONNX model: a field has the wire type {wire}")
            if length > end - place:
                raise InvalidBundle("model.onnx: is not an ONNX model, or is cut off: a field ends after its message")
            yield number, wire, (place, place + length)
            place += length

    def varint(self, place: int, end: int, most: int) -> tuple[int, int]:
        value = 0
        for index in range(most):
            if place + index >= end:
                raise InvalidBundle("model.onnx: is not an ONNX model, or is cut off: a number has no end")
            byte = self.data[place + index]
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                return value, place + index + 1
        raise InvalidBundle(f"model.onnx: is not an ONNX model: a number has more than {most} bytes")

    def text(self, spans: list[Span]) -> str:
        """Return a string field; of several occurrences the last one counts, as in protobuf."""
        if not spans:
            return ""
        start, end = spans[-1]
        return self.data[start : min(end, start + MAX_NAME)].decode(errors="replace")


Message: TypeAlias = Callable[[_Walk, Span], Mapping["Message", list[Span]]]


def _model(walk: _Walk, span: Span) -> Mapping[Message, list[Span]]:
    inner = walk.spans(span)
    return {
        _graph: inner.get(7, []),
        _operator_set: inner.get(8, []),
        _training: inner.get(20, []),
        _function: inner.get(25, []),
    }


def _operator_set(walk: _Walk, span: Span) -> Mapping[Message, list[Span]]:
    domain, version = "", 0
    for number, wire, value in walk.read(span):
        if (number, wire) == (1, LENGTH):
            domain = walk.text([value])
        elif (number, wire) == (2, VARINT):
            version = value[0]
    walk.found.opsets[domain] = version
    return {}


def _training(walk: _Walk, span: Span) -> Mapping[Message, list[Span]]:
    inner = walk.spans(span)
    return {_graph: inner.get(1, []) + inner.get(2, [])}


def _function(walk: _Walk, span: Span) -> Mapping[Message, list[Span]]:
    inner = walk.spans(span)
    walk.found.defined.add((walk.text(inner.get(10, [])), walk.text(inner.get(1, []))))
    return {_node: inner.get(7, []), _operator_set: inner.get(9, []), _attribute: inner.get(11, [])}


def _graph(walk: _Walk, span: Span) -> Mapping[Message, list[Span]]:
    inner = walk.spans(span)
    return {_node: inner.get(1, []), _tensor: inner.get(5, []), _sparse: inner.get(15, [])}


def _node(walk: _Walk, span: Span) -> Mapping[Message, list[Span]]:
    inner = walk.spans(span)
    domain, name = walk.text(inner.get(7, [])), walk.text(inner.get(4, []))
    if domain in STANDARD and name == BATCH_NORM and len(inner.get(2, [])) > 1:
        raise InvalidBundle(
            f"model.onnx: has a {BATCH_NORM} with {len(inner[2])} outputs, which is in training mode and keeps state "
            "from run to run, expected one output; export the model for inference"
        )
    walk.found.used.add((domain, name))
    return {_attribute: inner.get(5, [])}


def _attribute(walk: _Walk, span: Span) -> Mapping[Message, list[Span]]:
    inner = walk.spans(span)
    return {
        _tensor: inner.get(5, []) + inner.get(10, []),
        _graph: inner.get(6, []) + inner.get(11, []),
        _sparse: inner.get(22, []) + inner.get(23, []),
    }


def _sparse(walk: _Walk, span: Span) -> Mapping[Message, list[Span]]:
    inner = walk.spans(span)
    return {_tensor: inner.get(1, []) + inner.get(2, [])}


def _tensor(walk: _Walk, span: Span) -> Mapping[Message, list[Span]]:
    name: list[Span] = []
    outside = False
    for number, wire, value in walk.read(span):
        if (number, wire) == (8, LENGTH):
            name.append(value)
        outside = outside or number == 13 or (number == 14 and value != (0, 0))  # external_data, data_location
    if outside:
        raise InvalidBundle(
            f"model.onnx: keeps the tensor '{walk.text(name)}' in another file, expected all data within model.onnx"
        )
    return {}
