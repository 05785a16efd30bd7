"""An ONNX file as an exporter left it, made into one that can be served: all its data inside.

PyTorch's exporter puts weights into a file beside the model, from where they are taken in. Nothing else of a model is
changed, and one without such a file keeps every byte.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto
from onnx.external_data_helper import load_external_data_for_tensor

from spikeserve.models.engines.onnx import fields as onnx_fields
from spikeserve.models.engines.onnx.engine import open_session
from spikeserve.models.engines.onnx.fields import Outline
from spikeserve.models.errors import InvalidBundle
from spikeserve.training.files import read_bytes


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
    """A model that can be served: its bytes, what it asks of a runtime, its inputs and outputs.

    `changes` has a sentence for each thing in which it is not the file that was read.
    """

    name: str
    content: bytes
    outline: Outline
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    changes: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> OnnxFile:
        """Read a model and refuse what could not be served; raises InvalidBundle."""
        try:
            content, changes = read_bytes(path, onnx_fields.MAX_BYTES), list[str]()
        except OSError as error:
            raise InvalidBundle(f"'{path}' cannot be read: {error.strerror}") from error
        try:
            model = onnx.ModelProto.FromString(content)
        except DecodeError:
            pass  # the outline says what is wrong with it
        else:
            changes = _take_in_data(model.graph, path)
            content = model.SerializeToString() if changes else content
        outline = onnx_fields.outline(content)
        session = open_session(content, threads=1)
        inputs, outputs = (
            tuple(Value(value.name, value.type, tuple(value.shape)) for value in values)
            for values in (session.get_inputs(), session.get_outputs())
        )
        return cls(path.name, content, outline, inputs, outputs, tuple(changes))


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
