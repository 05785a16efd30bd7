"""Render an engine's arrays as the JSON of an answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.engines import RunResult
from spikeserve.models.spec import Spec
from spikeserve.models.spec.network import FloatArray
from spikeserve.service.inference.protocols.native.schemas import Prediction, Raster, RecordedFields, ValuesPrediction
from spikeserve.service.inference.scheduling.query import AnswerField

Row = Callable[[NDArray[Any]], list[Any]]
Predictions = list[Prediction] | list[ValuesPrediction]


def predictions(
    result: RunResult, task: Spec, returned: Set[AnswerField] = frozenset(), row: Row = np.ndarray.tolist
) -> Predictions:
    """Return one prediction for each sample of `result`, in order, with the optional fields that `returned` names.

    `row` makes a list of an array.
    """
    has_classes = task.scores.has_classes
    made: Predictions = list(_classes(result, task, row)) if has_classes else list(_values(result, row))
    _add_recorded(made, result, returned, row)
    return made


def _classes(result: RunResult, task: Spec, row: Row) -> Iterator[Prediction]:
    probabilities = task.scores.probabilities(result.readout)
    counts, operations = row(result.spike_counts), result.synaptic_operations.tolist()
    rows = zip(result.class_index.tolist(), counts, row(probabilities), operations, strict=True)
    for class_index, spike_counts, of_classes, met in rows:
        yield {
            "class_index": class_index,
            "label": task.labels[class_index],
            "spike_counts": spike_counts,
            "probabilities": of_classes,
            "synaptic_operations": met,
        }


def _values(result: RunResult, row: Row) -> Iterator[ValuesPrediction]:
    columns = row(result.readout), row(result.spike_counts), result.synaptic_operations.tolist()
    for values, spike_counts, met in zip(*columns, strict=True):
        yield {"values": values, "spike_counts": spike_counts, "synaptic_operations": met}


def _add_recorded(answers: Sequence[RecordedFields], result: RunResult, returned: Set[AnswerField], row: Row) -> None:
    for sample, answer in enumerate(answers):
        used = None if result.steps_used is None else int(result.steps_used[sample])
        if used is not None:
            answer["steps_used"] = used
        if AnswerField.RASTER in returned:
            answer["raster"] = {name: _events(steps, row) for name, steps in _of(result.rasters, sample, used).items()}
        if AnswerField.MEMBRANE in returned:
            answer["membrane"] = {name: row(steps) for name, steps in _of(result.membranes, sample, used).items()}
        if AnswerField.SPIKES_PER_NODE in returned:
            answer["spikes_per_node"] = {name: int(spikes[sample]) for name, spikes in result.spikes_per_node.items()}


def _of(
    recorded: Mapping[str, NDArray[np.int32]] | Mapping[str, FloatArray], sample: int, used: int | None
) -> dict[str, NDArray[Any]]:
    """Return one sample's part of (time_steps, batch, *shape) arrays, each (steps, units): all steps, or those used."""
    own = {name: steps[:used, sample] for name, steps in recorded.items()}
    return {name: steps.reshape(len(steps), -1) for name, steps in own.items()}


def _events(raster: NDArray[np.int32], row: Row) -> Raster:
    t, unit = raster.nonzero()  # row by row: in order of t and then unit
    if raster.max(initial=0) > 1:  # neurons that fire several times a step
        t, unit = (np.repeat(places, raster[t, unit]) for places in (t, unit))
    return {"t": row(t), "unit": row(unit)}
