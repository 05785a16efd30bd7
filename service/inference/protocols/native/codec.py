"""The codec of the native API, `POST /predict` and the predict routes of each model: JSON, arrays and recordings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from pydantic import ValidationError

from spikeserve.models.coding import Events, Inputs, encode_events, indices, rasterise
from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec import Coding, Spec
from spikeserve.models.spec.network import FloatArray
from spikeserve.models.spec.parameters import Shape, show
from spikeserve.service.catalog.limits import EVENT_FIELDS
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.inference.decoding.binary import sent
from spikeserve.service.inference.decoding.media import JSON, BodyFormat, Unpack, form_of
from spikeserve.service.inference.decoding.numbers import cut_array
from spikeserve.service.inference.decoding.validation import channels_hint, first_error, read_json
from spikeserve.service.inference.protocols.native import schemas
from spikeserve.service.inference.protocols.native.render import NativeRenderer
from spikeserve.service.inference.scheduling.query import FEW_VALUES, RECORDED, Query, RunOptions

MAX_STRINGS = 10_000  # in a body, beside the keys of its events; validating many misplaced strings would take long


@dataclass(frozen=True)
class NativeCodec:
    """Decodes one request for `model`.

    `unpack` decompresses its body, where that is compressed; `kind` is its media type; `query` is the URL's query.
    """

    model: LoadedModel
    unpack: Unpack | None = None
    kind: bytes | None = JSON
    query: bytes = b""

    def decode_small(self, body: bytes) -> Query | None:
        """Decode a short body; return None where it is compressed, or its samples have many values.

        The raster of a few events may have many. Raises as `decode` does.
        """
        if self.unpack is not None:
            return None
        if self.kind != JSON and (form := self._form(body)) is not BodyFormat.JSON:
            return self._of_binary(form, body, FEW_VALUES)
        request, options, size = self.validated(body)
        steps = options.time_steps if self.model.spec.coding.per_step else 1
        if len(request.inputs) * steps * self.model.limits.sample_values > FEW_VALUES:
            return None
        return self._query(request, options, size)

    def decode(self, body: bytes) -> Query:
        """Decode a body. Raises UnsupportedMedia, MalformedBody, InvalidInput, TooLarge or Overloaded."""
        if self.unpack is not None:
            body = self.unpack(body)
        if self.kind != JSON and (form := self._form(body)) is not BodyFormat.JSON:
            return cast("Query", self._of_binary(form, body))
        self.model.limits.check_delimiters(body)
        cut = cut_array(body, b"inputs", np.float32)
        if cut is None or cut.array.ndim == 1:  # numbers in place of samples, of which the first is named
            return self._query(*self.validated(body))
        return self._query(*self.validated(cut.rest, cut.array))

    def _form(self, body: bytes) -> BodyFormat:
        """Find the form of an unpacked body. A compressed one without a media type is JSON."""
        if self.kind is None and self.unpack is not None:
            return BodyFormat.JSON
        return form_of(self.kind, body)

    def _of_binary(self, form: BodyFormat, body: bytes, most: float = math.inf) -> Query | None:
        """Return the query of a body that is not JSON; None where its samples have more than `most` values.

        The URL's query has its options. All is within the model's limits.
        """
        asked, limits = schemas.read_options(self.query), self.model.limits
        if asked.time_steps is not None:
            limits.check_steps(asked.time_steps, "time_steps")
        content = sent(form, body, self.model, asked.time_steps)
        options, size = self._options(asked, content.samples, content.time_steps)
        if content.samples * content.time_steps * limits.sample_values > most:
            return None
        return Query(content.make(), options, size, NativeRenderer(self.model, options, size))

    def _options(
        self, asked: schemas.PredictRequest[Any] | schemas.Options, samples: int, time_steps: int
    ) -> tuple[RunOptions, int]:
        """Return the options of a run and the most bytes of its answer, once all is within the model's limits."""
        if asked.stop is not None:
            self.model.check_stop(asked.stop, time_steps)
        limits, options = self.model.limits, asked.options(time_steps, asked.returned)
        limits.check_size(samples, time_steps, [each for each in RECORDED if each in options.returned])
        size = limits.answer.native(samples, time_steps, options.returned)
        limits.check_answer(samples, size)
        return options, size

    def validated(
        self, body: bytes, inputs: FloatArray | None = None
    ) -> tuple[schemas.PredictRequest[Any], RunOptions, int]:
        """Validate a body; return it with its options and the most bytes of its answer, all within the limits.

        `inputs` were cut out of the body, if given, and take the place of its own.
        """
        if self.query:
            schemas.refuse_options(self.query)
        kind = schemas.request_type(self.model.spec)
        try:
            request = read_json(body, kind, 2 * (MAX_STRINGS + EVENT_FIELDS * self.model.limits.samples))
        except ValidationError as error:
            raise InvalidInput(first_error(error, fields=_names(kind), hidden=schemas.TAGS)) from error
        if inputs is not None:
            request = request.model_copy(update={"inputs": inputs})
        return request, *self._options(request, len(request.inputs), self._time_steps(request))

    def _query(self, request: schemas.PredictRequest[Any], options: RunOptions, size: int) -> Query:
        samples = to_samples(request.inputs, self.model.spec, options.time_steps)
        return Query(samples, options, size, NativeRenderer(self.model, options, size))

    def _time_steps(self, request: schemas.PredictRequest[Any]) -> int:
        """Return the request's time steps, or else those that its first sample lists, or those of training."""
        task, limits = self.model.spec, self.model.limits
        if request.time_steps is not None:
            limits.check_steps(request.time_steps, "time_steps")
            return request.time_steps
        if task.coding.per_step and isinstance(request.inputs[0], list | np.ndarray):
            steps = len(request.inputs[0])
            if not 1 <= steps <= limits.time_steps:
                raise InvalidInput(f"inputs[0] has {steps} steps, expected 1 to {limits.time_steps}")
            return steps
        return task.time_steps


def _names(model: type[schemas.PredictRequest[Any]]) -> str:
    names = [field.alias or name for name, field in model.model_fields.items()]
    return ", ".join(sorted(names, key=lambda name: name != "inputs"))


def to_samples(samples: Sequence[Any], task: Spec, time_steps: int) -> FloatArray | Inputs:
    """Return samples of numbers as raw values, and samples of events as inputs, which need no encoding.

    Values are (batch, *shape), or (batch, time_steps, *shape) for `spikes` and `current` coding. Each sample is nested
    like the task's input, flat, or a list of events; or all are one array. Where rasters are among the events, all
    become rasters. Raises InvalidInput, which names the sample.
    """
    shape = task.input.shape
    if task.coding is not Coding.SPIKES:
        return _stacked(samples, shape, (time_steps,) if task.coding.per_step else ())
    if all(isinstance(sample, list | np.ndarray) for sample in samples):
        return _stacked(samples, shape, (time_steps,))
    events = [_events(sample, task, f"inputs[{index}]") for index, sample in enumerate(samples)]
    if not any(isinstance(sample, list) for sample in samples):
        return encode_events(events, task, time_steps)
    rasters = rasterise(events, task, time_steps)
    for index, sample in enumerate(samples):
        if isinstance(sample, list):
            rasters[index] = _array(sample, shape, (time_steps,), f"inputs[{index}]")
    return rasters


def _events(sample: schemas.UnitEvents | schemas.PixelEvents | list[Any], task: Spec, where: str) -> Events:
    if isinstance(sample, list):
        return Events([], [])
    if isinstance(sample, schemas.UnitEvents):
        return Events(sample.t, sample.unit)
    channels, height, width = task.input.shape
    places = []
    for name, values, limit in (("x", sample.x, width), ("y", sample.y, height), ("p", sample.p, channels)):
        if len(values) != len(sample.t):
            raise InvalidInput(f"{where}: {len(sample.t)} t for {len(values)} {name}, expected as many of both")
        places.append(indices(values, limit, f"{where}.{name}"))
    x, y, p = places
    return Events(sample.t, (p * height + y) * width + x)


def _stacked(samples: Sequence[Any], shape: Shape, time_steps: Shape = ()) -> FloatArray:
    """Return samples of numbers as (batch, *time_steps, *shape); raises InvalidInput for the first that is wrong."""
    nested = (*time_steps, *shape)
    try:
        stacked = np.array(samples, np.float32)
    except ValueError:  # they differ in length, or are nested and flat
        stacked = None
    if stacked is not None and stacked.shape[1:] in (nested, (*time_steps, math.prod(shape))):
        return stacked.reshape(len(stacked), *nested)
    return np.stack([_array(sample, shape, time_steps, f"inputs[{index}]") for index, sample in enumerate(samples)])


def _array(sample: Sequence[Any], shape: Shape, time_steps: Shape, where: str) -> FloatArray:
    nested = (*time_steps, *shape)
    try:
        array = np.array(sample, np.float32)
    except ValueError as error:
        raise InvalidInput(f"{where} has rows of different lengths, expected shape {show(nested)}") from error
    flat = (*time_steps, math.prod(shape))
    if array.shape not in (nested, flat):
        either = f"{show(nested)}" if nested == flat else f"{show(nested)}, or {show(flat)} flat"
        raise InvalidInput(
            f"{where} has shape {show(array.shape)}, expected {either}{channels_hint(array.shape, shape)}"
        )
    return array.reshape(nested)
