"""Render answers of the native protocol: an engine's arrays as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json

from spikeserve.models.engines import RunResult, State
from spikeserve.models.spec import Spec
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.inference.decoding import pieces
from spikeserve.service.inference.protocols.native import schemas
from spikeserve.service.inference.protocols.native.schemas import Prediction, Raster, ValuesPrediction
from spikeserve.service.inference.scheduling.answer import Content, Results
from spikeserve.service.inference.scheduling.query import AnswerField, RunOptions

Row = Callable[[NDArray[Any]], list[Any]]
Predictions = list[Prediction] | list[ValuesPrediction]


@dataclass(frozen=True)
class NativeRenderer:
    """Renders the answers of `model` to requests with these options; `answer_bytes` is the most that one takes."""

    model: LoadedModel
    options: RunOptions
    answer_bytes: int

    def __call__(self, results: Results, own: slice, _: State | None = None) -> Content:
        """Render an answer. Raises InvalidInput where a raster would hold too many spikes."""
        (head, tail), returned, samples = self._envelope, self.options.returned, own.stop - own.start
        if not returned and self.answer_bytes <= pieces.SHORT_BYTES:
            made = results.once(predictions)[own]
            return Content(b"%b%b%b" % (head, to_json(made, inf_nan_mode="null"), tail))
        result = results.result[own]
        if AnswerField.RASTER in returned:
            spikes = sum(int(spikes.sum()) for spikes in result.spikes_per_node.values())
            self.model.limits.check_raster(spikes, self.answer_bytes, samples, self.options.time_steps)
        # Several samples are written at once or, if each is long, one in parts.
        at_once = samples * pieces.PIECE_BYTES // self.answer_bytes
        first, *more = pieces.joined(chain([head], self._predictions(result, samples, at_once), [tail]))
        return Content(first, more=more)

    @cached_property
    def _envelope(self) -> tuple[bytes, bytes]:
        """The JSON of an answer before and after its predictions."""
        task = self.model.spec
        response: schemas.PredictResponse = {
            "model": self.model.name,
            "version": self.model.version,
            "engine": self.model.engine.name,
            "time_steps": self.options.time_steps,
            "predictions": [],
        }
        if not task.scores.has_classes:
            response["names"] = list(task.labels)
            if task.units is not None:
                response["units"] = list(task.units)
        head, _, tail = to_json(response).rpartition(b'"predictions":[]')
        return head + b'"predictions":', tail

    def _predictions(self, result: RunResult, samples: int, at_once: int) -> Iterator[bytes]:
        """Yield the predictions; `at_once` is how many samples fit a piece, 0 where one does not."""
        opening = b"["
        for start in range(0, samples, max(1, at_once)):
            asked = result[start : start + max(1, at_once)], self.model.spec, self.options.returned
            made = predictions(*asked) if at_once else predictions(*asked, pieces.as_array)
            yield opening
            opening = b","
            if at_once:
                yield to_json(made, inf_nan_mode="null")[1:-1]
            else:
                yield from pieces.json_fragments(made[0])
        yield b"]"


def predictions(
    result: RunResult, task: Spec, returned: Set[AnswerField] = frozenset(), row: Row = np.ndarray.tolist
) -> Predictions:
    """Return one prediction for each sample of `result`, in order, with the optional fields that `returned` names.

    `row` makes a list of an array.
    """
    has_classes = task.scores.has_classes
    made: Predictions = list(_classes(result, task, row)) if has_classes else list(_values(result, row))
    for sample, answer in enumerate(made):
        used = None if result.steps_used is None else int(result.steps_used[sample])
        if used is not None:
            answer["steps_used"] = used
        if AnswerField.RASTER in returned:
            answer["raster"] = {name: _events(steps, row) for name, steps in _of(result.rasters, sample, used).items()}
        if AnswerField.MEMBRANE in returned:
            answer["membrane"] = {name: row(steps) for name, steps in _of(result.membranes, sample, used).items()}
        if AnswerField.SPIKES_PER_NODE in returned:
            answer["spikes_per_node"] = {name: int(spikes[sample]) for name, spikes in result.spikes_per_node.items()}
    return made


def _classes(result: RunResult, task: Spec, row: Row) -> Iterator[Prediction]:
    counts, probabilities = row(result.spike_counts), row(task.scores.probabilities(result.readout))
    columns = result.class_index.tolist(), counts, probabilities, result.synaptic_operations.tolist()
    for class_index, spike_counts, of_classes, met in zip(*columns, strict=True):
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


def _of(recorded: Mapping[str, NDArray[Any]], sample: int, used: int | None) -> dict[str, NDArray[Any]]:
    """Return one sample's part of (time_steps, batch, *shape) arrays, each (steps, units): all steps, or those used."""
    own = {name: steps[:used, sample] for name, steps in recorded.items()}
    return {name: steps.reshape(len(steps), -1) for name, steps in own.items()}


def _events(raster: NDArray[np.int32], row: Row) -> Raster:
    t, unit = raster.nonzero()  # row by row: in order of t and then unit
    if raster.max(initial=0) > 1:  # neurons that fire several times a step
        t, unit = (np.repeat(places, raster[t, unit]) for places in (t, unit))
    return {"t": row(t), "unit": row(unit)}
