"""Check an ONNX file, by reading the few fields that matter from its bytes, before ONNX Runtime reads it.

ONNX Runtime would read a tensor's external data from any file of the serving machine, and the onnx package, which could
check for that, is not installed there. So these fields are read here from the protobuf encoding: the operators of every
graph, subgraph and function, the outputs of one that may keep state, and where each tensor keeps its data. Every
occurrence of a field is checked, and bytes that another protobuf parser might read differently are refused, so that a
file cannot mean two things.

Field numbers: onnx.proto of ONNX 1.23.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from spikeserve.models.errors import InvalidBundle
from spikeserve.models.protobuf import DELIMITED, VARINT, Field, FieldReader, MalformedMessage, TooManyFields

MAX_BYTES = 2**29  # of a model; the limit of protobuf is four times as much
MAX_FIELDS = 2_000_000  # reading them takes some seconds; a graph of 1,000 nodes has about 20,000
MAX_DEPTH = 64  # of nested messages; a subgraph is three of them, and subgraphs are rarely nested more than three deep
MAX_NAME = 60  # bytes of a name that are shown
STANDARD = frozenset({"", "ai.onnx", "ai.onnx.ml"})
# In training mode it has more than one output. ONNX Runtime (1.32) then writes into the mean and variance that it
# loaded, so that every run changes all later answers, and crashes where an output between them is left out.
BATCH_NORM = "BatchNormalization"

# The messages in each message that matter here, by the number of the field that holds them.
MODEL, GRAPH, NODE, ATTRIBUTE, TENSOR, SPARSE, FUNCTION, TRAINING = range(8)
INNER: Mapping[int, Mapping[int, int]] = {
    MODEL: {7: GRAPH, 20: TRAINING, 25: FUNCTION},
    GRAPH: {1: NODE, 5: TENSOR, 15: SPARSE},
    NODE: {5: ATTRIBUTE},
    ATTRIBUTE: {5: TENSOR, 6: GRAPH, 10: TENSOR, 11: GRAPH, 22: SPARSE, 23: SPARSE},
    TENSOR: {},
    SPARSE: {1: TENSOR, 2: TENSOR},
    FUNCTION: {7: NODE, 11: ATTRIBUTE},
    TRAINING: {1: GRAPH, 2: GRAPH},
}

Operator: TypeAlias = tuple[str, str]


def check(model: bytes) -> None:
    """Raise InvalidBundle unless a serialised ModelProto is self-contained: with no operators but its own or ONNX's.

    Refused are bytes that are not a model, are too many, keep a tensor's data in another file, or hold a batch
    normalisation in training mode.
    """
    if len(model) > MAX_BYTES:
        raise InvalidBundle(f"model.onnx: has {len(model)} bytes, expected at most {MAX_BYTES}")
    walk = _Walk(model)
    try:
        walk.run()
    except MalformedMessage as error:
        raise InvalidBundle(f"model.onnx: is not an ONNX model, or is cut off: {error}") from error
    except TooManyFields:
        raise InvalidBundle(f"model.onnx: has more than {MAX_FIELDS} fields") from None
    for domain, name in sorted(walk.used - walk.defined):
        if domain not in STANDARD:
            raise InvalidBundle(
                f"model.onnx: uses the operator '{name}' of the domain '{domain}', expected only those of ONNX itself "
                "(domains ai.onnx and ai.onnx.ml) and functions that the model defines"
            )
    if not walk.used:
        raise InvalidBundle("model.onnx: holds no operator, expected an ONNX model")


class _Walk:
    """One pass over a model, with an explicit stack instead of recursion."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.used, self.defined = set[Operator](), set[Operator]()
        self.reader = FieldReader(data, MAX_FIELDS)

    def run(self) -> None:
        waiting = [(MODEL, 0, len(self.data), 0)]
        while waiting:
            message, start, stop, depth = waiting.pop()
            if depth > MAX_DEPTH:
                raise InvalidBundle(f"model.onnx: its graphs lie in one another more than {MAX_DEPTH} messages deep")
            fields: dict[tuple[int, int], list[Field]] = {}
            for each in self.reader.fields(start, stop):
                fields.setdefault((each.number, each.kind), []).append(each)
            self.note(message, fields)
            waiting += [
                (inner, each.start, each.stop, depth + 1)
                for number, inner in INNER[message].items()
                for each in fields.get((number, DELIMITED), ())
            ]

    def note(self, message: int, fields: Mapping[tuple[int, int], Sequence[Field]]) -> None:
        """Note what a message says itself, by its fields' numbers and wire types; raises InvalidBundle."""
        if message == FUNCTION:
            self.defined.add((self.text(fields, 10), self.text(fields, 1)))
        elif message == NODE:
            domain, name, outputs = self.text(fields, 7), self.text(fields, 4), len(fields.get((2, DELIMITED), ()))
            if domain in STANDARD and name == BATCH_NORM and outputs > 1:
                raise InvalidBundle(
                    f"model.onnx: has a {BATCH_NORM} with {outputs} outputs, which is in training mode and keeps state "
                    "from run to run, expected one output; export the model for inference"
                )
            self.used.add((domain, name))
        elif message == TENSOR:
            external_data = any(number == 13 for number, _ in fields)
            data_location = any(
                number == 14 and (kind != VARINT or any(self.data[each.start : each.stop] != b"\0" for each in every))
                for (number, kind), every in fields.items()
            )
            if external_data or data_location:
                raise InvalidBundle(
                    f"model.onnx: keeps the tensor '{self.text(fields, 8)}' in another file, expected all data within "
                    "model.onnx"
                )

    def text(self, fields: Mapping[tuple[int, int], Sequence[Field]], number: int) -> str:
        """Return a string field; of several occurrences the last one counts, as in protobuf."""
        *_, last = fields.get((number, DELIMITED), (Field(number, DELIMITED, 0, 0, 0),))
        return self.data[last.start : min(last.stop, last.start + MAX_NAME)].decode(errors="replace")
