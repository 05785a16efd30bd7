"""An ONNX file is read and run once in a process of its own, with bounds on its time and its memory.

A graph may loop for ever, call for any memory, or use a fault of ONNX Runtime, and constants are computed as soon as it
is loaded. So this process never opens it: another one finds its contract and makes the dry run, and what that returns
is published. It costs some 0.5 s, the start of an interpreter with ONNX Runtime.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto
from onnx.external_data_helper import load_external_data_for_tensor
from pydantic import TypeAdapter

from spikeserve.models.bundle.dry_run import random_inputs, verify
from spikeserve.models.engines.onnx import fields as onnx_fields
from spikeserve.models.engines.onnx.engine import open_session
from spikeserve.models.engines.onnx.external import FLOATS, ContractEngine
from spikeserve.models.engines.onnx.fields import Outline
from spikeserve.models.errors import InvalidBundle, InvalidInput
from spikeserve.models.isolated import Limits, NoAnswer, call
from spikeserve.models.spec import Coding, Scores
from spikeserve.models.spec.onnx_contract import PROBABILITY_TOLERANCE, AxisLayout, OnnxContract, OutputKind
from spikeserve.models.spec.parameters import Shape
from spikeserve.models.spec.price import LoadLimits, Price
from spikeserve.training.files import read_bytes
from spikeserve.training.importers.builder import MAX_CLASSES


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


@dataclass(frozen=True)
class OnnxOptions:
    """What the command line says of a model; None is for the file to say. `declared`: fields of the input."""

    input_shape: Shape | None
    labels: tuple[str, ...] | None
    time_steps: int | None
    any_time_steps: bool
    independent_rows: bool
    coding: Coding
    declared: dict[str, Any]
    layout: AxisLayout
    output_kind: OutputKind
    scores: Scores | None
    units: tuple[str, ...] | None
    output_name: str | None


def contract_of(model: OnnxFile, options: OnnxOptions) -> OnnxContract:
    """Return the contract; raises InvalidInput with one sentence for what nobody says, and InvalidSpec.

    Where nobody says what the scores are, two random samples of the declared range are run: what is from 0 to 1 and
    adds up to 1 is probabilities. A single value is no class, and so a value.
    """
    if len(model.inputs) != 1:
        listed = ", ".join(value.name for value in model.inputs)
        raise InvalidInput(f"the model has {len(model.inputs)} inputs: {listed}; expected one")
    (entry,), output = model.inputs, _output(_readable(model, options), options.output_name)
    _require_batch(entry, options.layout)
    fields: dict[str, Any] = {
        "input": {"shape": options.input_shape or _shape(entry, options.layout), **options.declared},
        "coding": options.coding,
        "time_steps": options.time_steps or _time_steps(entry, options.layout) or 1,
        "any_time_steps": options.any_time_steps,
        "independent_rows": options.independent_rows,
        "labels": options.labels or _labels(output),
        "units": options.units,
        "input_name": entry.name,
        "input_layout": options.layout,
        "output_name": output.name,
        "output_kind": options.output_kind,
    }
    if options.scores is not None:
        return _priced(fields | {"scores": options.scores})
    if options.units or (options.output_kind is OutputKind.SCORES and len(fields["labels"]) == 1):
        return _priced(fields | {"scores": Scores.VALUES})
    contract = _priced(fields)
    if options.output_kind is OutputKind.SCORES and _gives_probabilities(contract, model):
        return OnnxContract.of(fields | {"scores": Scores.PROBABILITIES})
    return contract


def _priced(fields: dict[str, Any]) -> OnnxContract:
    """Return a contract, once what it takes to be loaded is known, and before anything is run under it."""
    contract = OnnxContract.of(fields)
    Price.of(contract).check(LoadLimits())
    return contract


def _output(values: tuple[Value, ...], name: str | None) -> Value:
    if name is None and len(values) == 1:
        return values[0]
    if name is None:
        listed = ", ".join(value.name for value in values)
        raise InvalidInput(f"--output-name is missing, and the model has {len(values)} outputs: {listed}")
    # A name that the model does not have is for the engine to refuse, which knows them all.
    return next((value for value in values if value.name == name), Value(name, "", ()))


def _readable(model: OnnxFile, options: OnnxOptions) -> tuple[Value, ...]:
    """Return the outputs that can be meant: those of numbers with an axis for classes, where there are any."""
    if options.output_name is not None:
        return model.outputs
    axes = 3 if options.output_kind is OutputKind.SPIKES_PER_STEP else 2
    found = tuple(value for value in model.outputs if value.type in FLOATS and len(value.shape) in (0, axes))
    return found or model.outputs


def _require_batch(entry: Value, layout: AxisLayout) -> None:
    """Raise InvalidInput where a model takes only several samples at a time, as an exporter's example had them."""
    axis = layout.names.index("batch")
    size = entry.shape[axis] if axis < len(entry.shape) else None
    if isinstance(size, int) and size > 1:
        raise InvalidInput(
            f"the model's input {entry.described} takes {size} samples at a time, expected a free axis or one sample; "
            "export it with dynamic_shapes (or dynamic_axes) or with one sample, or say its --layout"
        )


def _shape(entry: Value, layout: AxisLayout) -> Shape:
    sizes = entry.shape[len(layout.names) :]
    known = tuple(size for size in sizes if isinstance(size, int))
    if not known or len(known) < len(sizes):
        raise InvalidInput(
            f"--input-shape is missing, and the model's input {entry.described} does not say every size after the axes "
            f"{', '.join(layout.names)} of the layout '{layout}'"
        )
    return known


def _time_steps(entry: Value, layout: AxisLayout) -> int | None:
    if len(entry.shape) <= len(layout.names) or "time_steps" not in layout.names:
        return None
    size = entry.shape[layout.names.index("time_steps")]
    return size if isinstance(size, int) else None


def _labels(output: Value) -> tuple[str, ...]:
    size = output.shape[-1] if output.shape else None
    if not isinstance(size, int):
        raise InvalidInput(
            f"--labels is missing, and the model's output {output.described} does not say how many classes there are"
        )
    if size > MAX_CLASSES:
        raise InvalidInput(f"the model's output is {output.described}, expected at most {MAX_CLASSES:,} values")
    return tuple(map(str, range(size)))


def _gives_probabilities(contract: OnnxContract, model: OnnxFile) -> bool:
    result, _ = ContractEngine(contract, model.content).run(random_inputs(contract, contract.time_steps))
    sums = result.readout.sum(axis=1)
    return bool((result.readout >= 0).all() and np.allclose(sums, 1, rtol=0, atol=PROBABILITY_TOLERANCE))


SECONDS = 60.0  # as a server has by default to load a model (load_seconds)
OPTIONS = TypeAdapter(OnnxOptions)
MEMORY = LoadLimits.model_bytes + 2**30  # of addresses; the interpreter and its libraries need some 500 MB of them


@dataclass(frozen=True)
class DryRun:
    """A model that has kept its contract: its bytes, its operator sets and operators, and the largest batch it may get.

    `changes` has a sentence for each thing in which it is not the file that was read.
    """

    contract: OnnxContract
    content: bytes
    opsets: dict[str, int]
    operators: list[str]
    changes: list[str]
    largest_batch: int


def dry_run(path: Path, options: OnnxOptions, seconds: float = SECONDS, memory: int = MEMORY) -> DryRun:
    """Return the model of a file under its contract; raises InvalidBundle with one sentence for any fault of it."""
    given = OPTIONS.dump_json(options).decode()
    try:
        found = call(_run_once, str(path), given, limits=Limits(seconds, memory), refused=InvalidBundle)
    except TimeoutError as error:
        raise InvalidBundle(
            f"'{path}': reading and running it took longer than {seconds:g} s and was stopped"
        ) from error
    except MemoryError as error:
        raise InvalidBundle(
            f"'{path}': its graph needs more than {memory:,} bytes of memory, which is refused"
        ) from error
    except NoAnswer as error:
        raise InvalidBundle(f"'{path}': the process that ran its graph crashed ({error})") from error
    return DryRun(**found | {"contract": OnnxContract.of(found["contract"])})


def _run_once(path: str, options: str) -> dict[str, Any]:
    """Return the fields of a DryRun; raises InvalidBundle, InvalidInput or InvalidSpec. Another process calls this."""
    try:
        model = OnnxFile.read(Path(path))
        contract = contract_of(model, OPTIONS.validate_json(options))
        engine = ContractEngine(contract, model.content)
        verify(contract, engine)
    except OSError as error:
        raise InvalidBundle(f"'{error.filename or path}' cannot be read: {error.strerror or error}") from error
    return {
        "contract": contract.model_dump(mode="json"),
        "content": model.content,
        "opsets": dict(model.outline.opsets),
        "operators": sorted({operator for _, operator in model.outline.used}),
        "changes": model.changes,
        "largest_batch": max(engine.batch_sizes),
    }
