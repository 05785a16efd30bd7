"""The options of a stream, which are its query's parameters."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, ValidationError

from spikeserve.models.coding import MAX_SEED
from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec.events import MAX_STEP_US
from spikeserve.service.inference.decoding.query_string import parameters
from spikeserve.service.inference.decoding.validation import Strict, first_error


class Reading(StrEnum):
    """What the class of a window is read from."""

    TOTAL = "total"  # all that the network has answered since the session began
    WINDOW = "window"  # the output spikes of this window alone
    DECAY = "decay"  # the output spikes of all windows, each of which counts `decay` times the one after it


class StreamOptions(Strict):
    """What a client may choose for its stream."""

    step_us: Annotated[int, Field(ge=1, le=MAX_STEP_US, strict=False)] | None = Field(
        default=None, description="Microseconds of a time step; only for a model of events whose input does not say it."
    )
    window_steps: Annotated[int, Field(ge=1, strict=False)] | None = Field(
        default=None,
        description="Time steps of a window; by default as the model's input says, or 1, or for `direct` and `rate` "
        "coding as many as the model was trained with.",
    )
    lateness_us: Annotated[int, Field(ge=0, le=MAX_STEP_US, strict=False)] | None = Field(
        default=None,
        description="Microseconds that an event may come behind the latest one before its window closes; only for a "
        "model of events. By default 0: the first event at or after a window's end closes it.",
    )
    scores: Reading = Field(
        default=Reading.TOTAL,
        strict=False,
        description="What the class is read from: total, window (the spikes of each window alone) or decay.",
    )
    decay: Annotated[float, Field(gt=0, lt=1, strict=False)] = Field(
        default=0.9, description="For scores=decay: how much a window counts for the next one."
    )
    seed: Annotated[int, Field(ge=0, le=MAX_SEED, strict=False)] = Field(
        default=0, description="The seed of `rate` coding; the same seed draws the same spikes."
    )

    @classmethod
    def read(cls, query: bytes) -> Self:
        """Read a query string; raises InvalidInput."""
        try:
            return cls.model_validate(parameters(query))
        except ValidationError as error:
            raise InvalidInput(f"query: {first_error(error, fields=', '.join(cls.model_fields)).sentence}") from error
