"""An ONNX file as an exporter left it, made into one that can be served: all its data inside, and tensors as outputs.

PyTorch's exporter puts weights into a file beside the model, from where they are taken in. skl2onnx turns
probabilities into a list of dictionaries at the very end, by a ZipMap, which is taken off: the tensor before it is the
output. Nothing else of a model is changed, and one without either keeps every byte.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper
from onnx.external_data_helper import load_external_data_for_tensor

from spikeserve.models.engines.onnx import fields as onnx_fields
from spikeserve.models.engines.onnx.engine import open_session
from spikeserve.models.engines.onnx.fields import Outline
from spikeserve.models.errors import InvalidBundle
from spikeserve.training.files import read_bytes

CLASS_NAMES = ("classlabels_strings", "classlabels_int64s", "classlabels_ints")


@dataclass(frozen=True)
class Value:
    """An input or output: its name, its type as ONNX Runtime writes it, and its sizes, None or a name where free."""

    name: str
    type: str
    shape: tuple[int | str | None, ...]

    @property
    def described(self) -> str:
        """The name and the sizes, as in `'x' [batch, 4]`."""
        sizes = ", ".join("free" if size is None else str(size) for size in self.shape)
        return f"'{self.name}' [{sizes}]"


@dataclass(frozen=True)
class OnnxFile:
    """A model that can be served: its bytes, what it asks of a runtime, its inputs and outputs, the classes it names.

    `changes` has a sentence for each thing in which it is not the file that was read.
    """

    name: str
    content: bytes
    outline: Outline
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    class_names: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> OnnxFile:
        """Read a model and refuse what could not be served; raises InvalidBundle."""
        try:
            content, changes = read_bytes(path, onnx_fields.MAX_BYTES), list[str]()
        except OSError as error:
            raise InvalidBundle(f"'{path}' cannot be read: {error.strerror}") from error
        names: tuple[str, ...] = ()
        try:
            model = onnx.ModelProto.FromString(content)
        except DecodeError:
            pass  # the outline says what is wrong with it
        else:
            names = _class_names(model.graph)
            changes = _take_in_data(model.graph, path) + _take_off_zip_maps(model.graph)
            content = model.SerializeToString() if changes else content
        outline = onnx_fields.outline(content)
        session = open_session(content, threads=1)
        inputs, outputs = (
            tuple(Value(value.name, value.type, tuple(value.shape)) for value in values)
            for values in (session.get_inputs(), session.get_outputs())
        )
        return cls(path.name, content, outline, inputs, outputs, names, tuple(changes))


def _take_in_data(graph: Any, path: Path) -> list[str]:
    """Read the weights that lie in a file beside the model; any other place is left for the outline to refuse."""
    taken: dict[str, int] = {}
    for tensor in graph.initializer:
        where = {entry.key: entry.value for entry in tensor.external_data}.get("location", "")
        if tensor.data_location != TensorProto.EXTERNAL or not where or Path(where).name != where:
            continue
        beside = path.parent / where
        if beside.is_symlink() or not beside.is_file():
            raise InvalidBundle(
                f"{path.name}: keeps the tensor '{tensor.name}' in '{where}', which is no file beside it"
            )
        if max(beside.stat().st_size, sum(taken.values())) > onnx_fields.MAX_BYTES:
            raise InvalidBundle(f"{path.name}: has more than {onnx_fields.MAX_BYTES} bytes of weights beside it")
        try:
            load_external_data_for_tensor(tensor, str(path.parent))
        except (OSError, ValueError, OverflowError, onnx.checker.ValidationError) as error:
            raise InvalidBundle(
                f"{path.name}: the tensor '{tensor.name}' cannot be read from '{where}': {error}"
            ) from error
        taken[where] = taken.get(where, 0) + len(tensor.raw_data)
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
    return [f"{count} bytes of weights were taken in from `{name}`" for name, count in taken.items()]


def _take_off_zip_maps(graph: Any) -> list[str]:
    """Give out the tensor before each ZipMap that makes an output, under the output's name."""
    outputs = {value.name: value for value in graph.output}
    zipped = [node for node in _joined(graph, "ZipMap") if node.output[0] in outputs]
    for node in zipped:
        name, classes = node.output[0], len(_names_of(node))
        declared = onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, classes])
        outputs[name].CopyFrom(declared)
        node.CopyFrom(onnx.helper.make_node("Identity", [node.input[0]], [name]))
    return [f"a ZipMap was taken off the output `{node.output[0]}`" for node in zipped]


def _class_names(graph: Any) -> tuple[str, ...]:
    """Return the classes that a classifier of skl2onnx names; empty where there is none."""
    found = sorted((node for node in graph.node if _names_of(node)), key=lambda node: node.op_type != "ZipMap")
    if found:
        return _names_of(found[0])
    picked = {node.input[0] for node in _joined(graph, "ArrayFeatureExtractor")}
    for tensor in graph.initializer:
        if tensor.name in picked and tensor.data_location != TensorProto.EXTERNAL:
            try:
                values = np.ravel(numpy_helper.to_array(tensor))
            except (ValueError, KeyError, TypeError):
                return ()  # a damaged one is for ONNX Runtime to refuse
            return tuple(each.decode() if isinstance(each, bytes) else str(each) for each in values.tolist())
    return ()


def _joined(graph: Any, operator: str) -> list[Any]:
    """Return the nodes of an operator, but those without an input or output, which are for ONNX Runtime to refuse."""
    return [node for node in graph.node if node.op_type == operator and node.input and node.output]


def _names_of(node: Any) -> tuple[str, ...]:
    for attribute in node.attribute:
        if attribute.name in CLASS_NAMES and (attribute.strings or attribute.ints):
            texts = (text.decode(errors="replace") for text in attribute.strings)
            return tuple(texts) if attribute.strings else tuple(map(str, attribute.ints))
    return ()
