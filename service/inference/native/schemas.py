"""The JSON of a prediction, in and out, and what /docs says about it.

A request is validated, strictly and once. An answer is made here and so only described: a TypedDict is checked by mypy
and rendered by FastAPI, but never validated again, and a field that was not asked for is absent.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Generic, NotRequired, TypeAlias, TypeVar, Union

import numpy as np
from pydantic import BaseModel, ConfigDict, Discriminator, FailFast, Field, Tag
from typing_extensions import TypeAliasType, TypedDict

from models.coding import MAX_SEED
from models.spec import Coding, Task
from service.inference.query import Returned

# A list stops at its first error: a body of a million strings must not become a million errors.
_MAX = float(np.finfo(np.float32).max)
_Number = Annotated[float, Field(ge=-_MAX, le=_MAX)]
_Index = Annotated[int, Field(ge=0, le=2**31 - 1)]
_Indices: TypeAlias = Annotated[list[_Index], FailFast()]


class Strict(BaseModel):
    """JSON as it is meant: no text or boolean for a number, no NaN, no field that is not known."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class UnitEvents(Strict):
    """A sample as its spikes: at step t[k], input unit[k] (the index into the flattened shape) spikes once."""

    t: _Indices
    unit: _Indices


class PixelEvents(Strict):
    """A sample as an event camera gives it: at step t[k], the pixel x[k], y[k] of channel p[k] spikes once."""

    t: _Indices
    x: _Indices
    y: _Indices
    p: _Indices


Sample = TypeVar("Sample")


class PredictRequest(Strict, Generic[Sample]):
    """What a model is asked."""

    inputs: Annotated[list[Sample], FailFast()] = Field(
        min_length=1,
        description="The samples: numbers in the declared range, nested like the model's input shape or flat, row by "
        "row. For `spikes` coding a raster of shape (time_steps, *input shape), or events.",
    )
    time_steps: int | None = Field(
        default=None, ge=1, description="How many steps to run; by default as many as the model was trained with."
    )
    seed: int = Field(
        default=0, ge=0, le=MAX_SEED, description="What `rate` coding draws from: the same seed, the same spikes."
    )
    returned: list[Returned] = Field(
        default=[], alias="return", max_length=len(Returned), description="What each prediction shall also hold."
    )


TAGS = frozenset({"nested", "flat", "unit_events", "pixel_events"})
CAMERA = 3  # the axes of what an event camera sees: channels, height, width


def request_type(task: Task) -> type[PredictRequest[Any]]:
    """Return the request that a model of `task` takes.

    Its samples are nested exactly as deep as its input, or flat (for a raster, each step is), or events.
    """
    return _request_type(len(task.input.shape), task.coding is Coding.SPIKES)


@cache
def _request_type(axes: int, spikes: bool) -> type[PredictRequest[Any]]:
    request: Any = PredictRequest
    forms = {"nested": _named("Nested", axes + spikes)}
    if axes > 1:
        forms["flat"] = _named("Flat", 1 + spikes)
    if spikes:
        forms["unit_events"] = UnitEvents
    if spikes and axes == CAMERA:
        forms["pixel_events"] = PixelEvents
    if len(forms) == 1:
        return request[_nested(axes)]

    def form_of(sample: object) -> str:
        if isinstance(sample, dict) and spikes:
            return "pixel_events" if "x" in sample and "pixel_events" in forms else "unit_events"
        step = sample[0] if spikes and isinstance(sample, list) and sample else sample
        flat = isinstance(step, list) and bool(step) and not isinstance(step[0], list)
        return "flat" if flat and "flat" in forms else "nested"

    tagged = tuple(Annotated[form, Tag(tag)] for tag, form in forms.items())
    return request[Annotated[Union[tagged], Discriminator(form_of)]]  # noqa: UP007  (made at run time)


def _nested(depth: int) -> Any:
    sample: Any = _Number
    for _ in range(depth):
        sample = Annotated[list[sample], FailFast()]
    return sample


def _named(name: str, depth: int) -> Any:
    return TypeAliasType(name, _nested(depth))  # a name, since a union needs what can be hashed


class Raster(TypedDict):
    """A layer's spikes as events, in order of t and then unit (the index into the layer's flattened shape)."""

    t: list[int]
    unit: list[int]


class Prediction(TypedDict):
    """What a model says of one sample."""

    class_index: Annotated[
        int, Field(description="The class that the network reads out; a tie goes to the lowest index.")
    ]
    label: str
    spike_counts: Annotated[list[int], Field(description="The spikes of each output neuron, over all steps.")]
    probabilities: Annotated[list[float], Field(description="The softmax that the training loss used.")]
    synaptic_operations: NotRequired[
        Annotated[
            int,
            Field(
                description="Weights met by non-zero inputs, over all steps. Absent where they are unknown, as "
                "they are for a model that is only an ONNX graph."
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


class PredictResponse(TypedDict):
    """The answer: one prediction for each sample, in the order of the request."""

    model: str
    version: int
    engine: str
    time_steps: int
    predictions: list[Prediction]
