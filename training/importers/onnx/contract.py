"""The contract of an ONNX file: what the user says, and for the rest what the file says or one run shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from spikeserve.models.bundle.dry_run import random_inputs
from spikeserve.models.engines.onnx.external import FLOATS, ContractEngine
from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec import Coding, Scores
from spikeserve.models.spec.onnx_contract import PROBABILITY_TOLERANCE, AxisLayout, OnnxContract, OutputKind
from spikeserve.models.spec.parameters import Shape
from spikeserve.models.spec.price import LoadLimits, Price
from spikeserve.training.importers.builder import MAX_CLASSES
from spikeserve.training.importers.onnx.file import OnnxFile, Value


@dataclass(frozen=True)
class OnnxOptions:
    """What the command line says of a model; None is for the file to say. `declared`: fields of the input."""

    input_shape: Shape | None
    labels: tuple[str, ...]
    time_steps: int | None
    any_time_steps: bool
    independent_rows: bool
    coding: Coding
    declared: dict[str, Any]
    layout: AxisLayout
    output_kind: OutputKind
    scores: Scores | None
    units: tuple[str, ...] | None
    input_name: str | None
    output_name: str | None


def contract_of(model: OnnxFile, options: OnnxOptions) -> OnnxContract:
    """Return the contract; raises InvalidInput with one sentence for what nobody says, and InvalidSpec.

    Where nobody says what the scores are, two random samples of the declared range are run: what is from 0 to 1 and
    adds up to 1 is probabilities. A single value is no class, and so a value.
    """
    entry = _chosen(model.inputs, options.input_name, "input")
    output = _chosen(_readable(model, options), options.output_name, "output")
    _require_batch(entry, options.layout)
    fields: dict[str, Any] = {
        "input": {"shape": options.input_shape or _shape(entry, options.layout), **options.declared},
        "coding": options.coding,
        "time_steps": options.time_steps or _time_steps(entry, options.layout) or 1,
        "any_time_steps": options.any_time_steps,
        "independent_rows": options.independent_rows,
        "labels": options.labels or _labels(model, output),
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


def _chosen(values: tuple[Value, ...], name: str | None, kind: str) -> Value:
    if name is None and len(values) == 1:
        return values[0]
    if name is None:
        listed = ", ".join(value.name for value in values)
        raise InvalidInput(f"--{kind}-name is missing, and the model has {len(values)} {kind}s: {listed}")
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


def _labels(model: OnnxFile, output: Value) -> tuple[str, ...]:
    size = output.shape[-1] if output.shape else None
    if model.class_names and size in (len(model.class_names), None):
        return model.class_names
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
