"""From a request's body to arrays: parsed once, checked against the model and the limits, and named in every fault."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from pydantic import ValidationError

from models.coding import Events, rasterise
from models.engines import Record
from models.errors import InvalidInput
from models.spec import Coding, Task
from models.spec.network import FloatArray
from models.spec.parameters import Shape, show
from service import faults
from service.errors import MalformedBody, TooLarge
from service.inference.limits import Limits
from service.inference.marks import EVENT_FIELDS, Marks
from service.inference.schemas import TAGS, PixelEvents, PredictRequest, Recorded, UnitEvents, request_type

MOST_STRINGS = 10_000  # in a body, beside those of its events: a fault in each would take long to find

FEW_VALUES = 2**18  # of samples: more take longer to make than to hand a request to another thread
LONG = 2**20  # bytes of JSON that become so many values that no two are parsed at once
TURN = Lock()
_AT_ONCE = nullcontext()

RECORDS = {Recorded.RASTER: Record.RASTER, Recorded.MEMBRANE: Record.MEMBRANE}


@dataclass(frozen=True)
class Query:
    """What a request asks: samples (batch, *shape), or (batch, time_steps, *shape) for `spikes`, not yet encoded."""

    samples: FloatArray
    time_steps: int
    seed: int
    wanted: frozenset[Recorded]
    timeout: float | None = None  # seconds from its arrival, where the body says that it may take no longer

    @property
    def record(self) -> Record:
        """What the engine must keep for the answer."""
        record = Record.NONE
        for wanted in self.wanted & RECORDS.keys():
            record |= RECORDS[wanted]
        return record


def in_turn(size: int) -> AbstractContextManager[object]:
    """Return what so many bytes of JSON are parsed in, up to the array that they become: a long one alone.

    While it is parsed it takes up to sixty times its bytes. Python parses one body at a time anyway, so that nothing is
    answered later for it.
    """
    return TURN if size > LONG else _AT_ONCE


class Reader:
    """Reads the requests for one model."""

    def __init__(self, spec: Task, limits: Limits) -> None:
        self.spec = spec
        self.limits = limits
        self.marks = Marks.of(spec, limits)
        self.request_type = request_type(spec)
        self.widest = spec.widest
        self.neurons = spec.recordable

    def read(self, body: bytes) -> Query:
        """Return what `body` asks. Raises MalformedBody, InvalidInput or TooLarge."""
        with in_turn(len(body)):
            return self._query(*self._request(body))

    def read_small(self, body: bytes) -> Query | None:
        """Return what `body` asks, or None where it becomes many values, as a few events may. Raises as `read` does."""
        request, time_steps = self._request(body)
        steps = time_steps if self.spec.coding is Coding.SPIKES else 1
        if len(request.inputs) * steps * math.prod(self.spec.input.shape) > FEW_VALUES:
            return None
        return self._query(request, time_steps)

    def _request(self, body: bytes) -> tuple[PredictRequest[Any], int]:
        """Return what a body says, and for how many steps to run; both keep to the limits."""
        request = self._parse(body)
        time_steps = self._time_steps(request)
        self.check_size(len(request.inputs), time_steps, request.wanted)
        return request, time_steps

    def _query(self, request: PredictRequest[Any], time_steps: int) -> Query:
        samples = self._arrays(request.inputs, time_steps)
        return Query(samples, time_steps, request.seed, frozenset(request.wanted))

    def _parse(self, body: bytes) -> PredictRequest[Any]:
        quotes = body.count(b'"')
        most = 2 * (MOST_STRINGS + EVENT_FIELDS * self.limits.samples)
        if quotes > most:
            raise TooLarge(f"the body has {quotes} quotation marks, expected at most {most} in one request")
        self.marks.check(body)
        try:
            request = self.request_type.model_validate_json(body)
        except ValidationError as error:
            fault = faults.first(error, fields=_names(self.request_type), hidden=TAGS)
            if fault.kind == "json_invalid":
                raise MalformedBody(fault.sentence) from error
            raise InvalidInput(fault.sentence) from error
        if quotes != 2 * _strings(request):
            raise MalformedBody("the body says the name of a field twice, expected each name once")
        return request

    def _time_steps(self, request: PredictRequest[Any]) -> int:
        """Return how long to run: as asked, or else as long as a first sample that is a raster, or else as trained."""
        if request.time_steps is not None:
            steps, said = request.time_steps, f"time_steps is {faults.shown(request.time_steps)}"
        elif self.spec.coding is Coding.SPIKES and isinstance(request.inputs[0], list):
            steps, said = len(request.inputs[0]), f"inputs[0] has {len(request.inputs[0])} steps"
        else:
            return self.spec.time_steps
        if not 1 <= steps <= self.limits.time_steps:
            raise InvalidInput(f"{said}, expected 1 to {self.limits.time_steps}")
        return steps

    def check_size(self, samples: int, time_steps: int, wanted: Sequence[Recorded] = ()) -> None:
        """Raise TooLarge or InvalidInput where a request is more work than the limits allow."""
        if samples > self.limits.samples:
            raise TooLarge(f"inputs has {samples} samples, expected at most {self.limits.samples} in one request")
        values = samples * time_steps * self.widest
        if values > self.limits.values:
            raise TooLarge(
                f"inputs has {samples} samples, which at {time_steps} time_steps are {values} values in this model's "
                f"widest layer, expected at most {self.limits.values}"
            )
        neuron_steps = samples * time_steps * self.neurons
        if neuron_steps > self.limits.neuron_steps:
            raise TooLarge(
                f"inputs has {samples} samples, which at {time_steps} time_steps of this model's {self.neurons} "
                f"neurons are {neuron_steps} neuron steps, expected at most {self.limits.neuron_steps}"
            )
        for each in wanted:
            if each in RECORDS and self.neurons == 0:
                raise InvalidInput(
                    f"return has '{each}', but this model is only an ONNX graph, whose neurons are not known"
                )
            if each in RECORDS and neuron_steps > self.limits.recorded_values:
                raise InvalidInput(
                    f"return has '{each}', which for {samples} samples at {time_steps} time_steps is {neuron_steps} "
                    f"values, expected at most {self.limits.recorded_values}"
                )

    def _arrays(self, samples: Sequence[Any], time_steps: int) -> FloatArray:
        if self.spec.coding is not Coding.SPIKES:
            return _stacked(samples, self.spec.input.shape)
        shape = self.spec.input.shape
        if all(isinstance(sample, list) for sample in samples):
            return _stacked(samples, shape, (time_steps,))
        events = [self._events(sample, f"inputs[{index}]") for index, sample in enumerate(samples)]
        rasters = rasterise(events, self.spec, time_steps)
        for index, sample in enumerate(samples):
            if isinstance(sample, list):
                rasters[index] = _array(sample, shape, (time_steps,), f"inputs[{index}]")
        return rasters

    def _events(self, sample: UnitEvents | PixelEvents | list[Any], where: str) -> Events:
        if isinstance(sample, list):
            return Events([], [])
        if isinstance(sample, UnitEvents):
            return Events(sample.t, sample.unit)
        channels, height, width = self.spec.input.shape
        for name, values, limit in (("x", sample.x, width), ("y", sample.y, height), ("p", sample.p, channels)):
            if len(values) != len(sample.t):
                raise InvalidInput(f"{where}: {len(sample.t)} t for {len(values)} {name}, expected as many of both")
            if values and max(values) >= limit:
                at = next(k for k, value in enumerate(values) if value >= limit)
                raise InvalidInput(f"{where}.{name}[{at}] is {values[at]}, expected 0 to {limit - 1}")
        pixels = zip(sample.p, sample.y, sample.x, strict=True)
        return Events(sample.t, [(p * height + y) * width + x for p, y, x in pixels])


def _stacked(samples: Sequence[Any], shape: Shape, time_steps: Shape = ()) -> FloatArray:
    """Return samples that are all numbers as (batch, *time_steps, *shape); naming the first that does not fit."""
    wanted = (*time_steps, *shape)
    try:
        stacked = np.array(samples, np.float32)
    except ValueError:  # they differ in length, or are nested and flat
        stacked = None
    if stacked is not None and stacked.shape[1:] in (wanted, (*time_steps, math.prod(shape))):
        return stacked.reshape(len(stacked), *wanted)
    return np.stack([_array(sample, shape, time_steps, f"inputs[{index}]") for index, sample in enumerate(samples)])


def _array(sample: Sequence[Any], shape: Shape, time_steps: Shape, where: str) -> FloatArray:
    wanted = (*time_steps, *shape)
    try:
        array = np.array(sample, np.float32)
    except ValueError as error:
        raise InvalidInput(f"{where} has rows of different lengths, expected shape {show(wanted)}") from error
    flat = (*time_steps, math.prod(shape))
    if array.shape not in (wanted, flat):
        either = f"{show(wanted)}" if wanted == flat else f"{show(wanted)}, or {show(flat)} flat"
        raise InvalidInput(f"{where} has shape {show(array.shape)}, expected {either}")
    return array.reshape(wanted)


def _names(model: type[PredictRequest[Any]]) -> str:
    return ", ".join(field.alias or name for name, field in model.model_fields.items())


def _strings(request: PredictRequest[Any]) -> int:
    """Count the strings in the JSON of a valid request: its names and what `return` lists.

    A body that holds more says some name twice, which pydantic does not report: the last one would win.
    """
    events = sum(len(sample.model_fields_set) for sample in request.inputs if not isinstance(sample, list))
    return len(request.model_fields_set) + len(request.wanted) + events
