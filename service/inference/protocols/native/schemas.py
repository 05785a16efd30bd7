"""What predict requests and their answers hold, with the descriptions that /docs shows.

Requests are validated, strictly and once; one whose body is not JSON has no fields, and says them in its query. Answers
are TypedDicts, which mypy checks and /docs describes; they are not validated when they are sent, and a field that was
not asked for is absent.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Generic, NotRequired, TypeAlias, Union, cast

from pydantic import BeforeValidator, ConfigDict, Discriminator, FailFast, Field, Tag, ValidationError
from typing_extensions import TypeAliasType, TypedDict

from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec import Coding, Spec
from spikeserve.service.inference.decoding.validation import Sample, Strict, first_error, nested, parameters
from spikeserve.service.inference.scheduling.query import AnswerField, RunFields

# Lists stop at their first error (FailFast): a body of a million strings must not become a million errors.
_Index = Annotated[int, Field(ge=0, le=2**31 - 1)]
_Indices: TypeAlias = Annotated[list[_Index], FailFast()]


class UnitEvents(Strict):
    """A sample as events: at step t[k], input unit[k] (the index into the flattened shape) spikes once."""

    t: _Indices
    unit: _Indices


class PixelEvents(Strict):
    """A sample as an event camera's events: at step t[k], the pixel x[k], y[k] of channel p[k] spikes once."""

    t: _Indices
    x: _Indices
    y: _Indices
    p: _Indices


class PredictRequest(RunFields, Generic[Sample]):
    """A predict request."""

    inputs: Annotated[list[Sample], FailFast()] = Field(
        min_length=1,
        description="The samples: numbers in the declared range, nested like the model's input shape or flat, row by "
        "row. For `spikes` coding a raster of shape (time_steps, *input shape), or events; for `current` coding "
        "values of that shape.",
    )
    returned: list[AnswerField] = Field(
        default=cast("list[AnswerField]", ()),  # no list, which pydantic would copy for each request
        alias="return",
        max_length=len(AnswerField),
        description="What each prediction also holds.",
    )


TAGS = frozenset({"nested", "flat", "unit_events", "pixel_events"})
CAMERA_AXES = 3  # channels, height, width


def request_type(task: Spec) -> type[PredictRequest[Any]]:
    """Return the type of the requests for a model of `task`.

    Samples are nested exactly as deep as the task's input, or flat (where there is a value for each step: each step is
    flat), or events.
    """
    return _request_type(len(task.input.shape), task.coding)


@cache
def _request_type(axes: int, coding: Coding) -> type[PredictRequest[Any]]:
    request: Any = PredictRequest
    spikes, time = coding is Coding.SPIKES, int(coding.per_step)
    forms = {"nested": _named("Nested", axes + time)}
    if axes > 1:
        forms["flat"] = _named("Flat", 1 + time)
    if spikes:
        forms["unit_events"] = UnitEvents
    if spikes and axes == CAMERA_AXES:
        forms["pixel_events"] = PixelEvents
    if len(forms) == 1:
        return request[_without_events(nested(axes + time), coding)]

    def form_of(sample: object) -> str:
        if isinstance(sample, dict) and spikes:
            return "pixel_events" if "x" in sample and "pixel_events" in forms else "unit_events"
        step = sample[0] if time and isinstance(sample, list) and sample else sample
        flat = isinstance(step, list) and bool(step) and not isinstance(step[0], list)
        return "flat" if flat and "flat" in forms else "nested"

    tagged = tuple(Annotated[form, Tag(tag)] for tag, form in forms.items())
    either: Any = Annotated[Union[tagged], Discriminator(form_of)]  # noqa: UP007  (made at run time)
    return request[_without_events(either, coding)]


def _without_events(sample: Any, coding: Coding) -> Any:
    return Annotated[sample, BeforeValidator(_no_events)] if coding is Coding.CURRENT else sample


def _no_events(sample: object) -> object:
    if isinstance(sample, dict):
        expected = "an array with a value for each step: only models of `spikes` coding take events"
        raise ValueError(expected)  # noqa: TRY004  (pydantic makes a validation error of a ValueError alone)
    return sample


def _named(name: str, depth: int) -> Any:
    return TypeAliasType(name, nested(depth))  # an alias, since the types in a union must be hashable


class Raster(TypedDict):
    """A layer's spikes as events, in order of t and then unit (the index into the layer's flattened shape)."""

    t: list[int]
    unit: list[int]


class RecordedFields(TypedDict):
    """What every prediction holds of its run."""

    spike_counts: Annotated[
        list[int], Field(description="The spikes of each output neuron, over all steps; 0 where none can spike.")
    ]
    synaptic_operations: Annotated[int, Field(description="The weights that non-zero inputs meet, over all steps.")]
    steps_used: NotRequired[
        Annotated[
            int,
            Field(
                description="Where the request says `stop`: the steps that the sample took. Its counts, and all else "
                "in the prediction, are those of these steps."
            ),
        ]
    ]
    raster: NotRequired[Annotated[dict[str, Raster], Field(description="The spikes of each spiking node.")]]
    membrane: NotRequired[
        Annotated[
            dict[str, list[list[float]]],
            Field(description="The membranes of each node after each step's reset, one flattened list per step."),
        ]
    ]
    spikes_per_node: NotRequired[Annotated[dict[str, int], Field(description="How often each spiking node spiked.")]]


class Prediction(RecordedFields):
    """The class of one sample."""

    class_index: Annotated[
        int, Field(description="The class that the network reads out; a tie goes to the lowest index.")
    ]
    label: str
    probabilities: Annotated[
        list[float],
        Field(
            description="The softmax of what is read out; of a model whose `scores` are `probabilities`, that itself."
        ),
    ]


class ValuesPrediction(RecordedFields):
    """The values for one sample, of a model whose `scores` are `values`: it has no classes."""

    values: Annotated[list[float], Field(description="What the network reads out, in the order of `names`.")]


class PredictResponse(TypedDict):
    """The answer: one prediction for each sample, in the order of the request."""

    model: str
    version: int
    engine: str
    time_steps: int
    predictions: list[Prediction] | list[ValuesPrediction]
    names: NotRequired[Annotated[list[str], Field(description="The names of `values`, where the model gives them.")]]
    units: NotRequired[Annotated[list[str], Field(description="Their units, where those are known.")]]


def _listed(value: object) -> object:
    return [part for part in value.split(",") if part] if isinstance(value, str) else value


class Options(RunFields):
    """The fields of a request beside its inputs, as text: `?time_steps=8&seed=1&return=raster,membrane`."""

    model_config = ConfigDict(strict=False)

    returned: Annotated[list[AnswerField], BeforeValidator(_listed)] = Field(
        default=[],
        alias="return",
        max_length=len(AnswerField),
        description="What each prediction also holds, separated by commas.",
    )


NAMES = tuple(field.alias or name for name, field in Options.model_fields.items())


def read_options(query: bytes) -> Options:
    """Return the options of a query string; raises InvalidInput."""
    if not query:
        return Options()
    try:
        return Options.model_validate(parameters(query))
    except ValidationError as error:
        raise InvalidInput(first_error(error, fields=", ".join(NAMES))) from error


def refuse_options(query: bytes) -> None:
    """Raise InvalidInput where a query string names one of the options: JSON has them as its fields."""
    by_name = parameters(query)
    for name in NAMES:
        if name in by_name:
            raise InvalidInput(f"{name} is a parameter of the query, expected a field of the JSON body")
