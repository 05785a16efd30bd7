"""The messages of a stream and its client: JSON objects with a `type`, and event records or values as bytes."""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from typing import Annotated, Any, Generic, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import FailFast, Field, TypeAdapter, ValidationError

from spikeserve.models.coding import MAX_SEED
from spikeserve.models.coding.records import Records, make_records
from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec.events import MAX_STEP_US
from spikeserve.models.spec.network import FloatArray
from spikeserve.service.errors import MalformedBody
from spikeserve.service.inference.decoding.numbers import LONG_ARRAY, cut_array
from spikeserve.service.inference.decoding.validation import Sample, Strict, first_error, is_no_json, nested, parameters

_Time = Annotated[int, Field(ge=0, lt=2**61)]
_Times = Annotated[list[Annotated[int, Field(ge=0, lt=2**32)]], FailFast()]
_Columns = Annotated[list[Annotated[int, Field(ge=0, lt=2**16)]], FailFast()]
_Places = Annotated[list[Annotated[int, Field(ge=0, lt=2**15)]], FailFast()]  # what a record holds of a row


class EventsMessage(Strict):
    """Events: `t` in microseconds, modulo 2**32; and `unit`, or a camera's `x`, `y` and `p`."""

    type: Literal["events"]
    t: _Times
    unit: _Columns = Field(default=[])
    x: _Columns = Field(default=[])
    y: _Places = Field(default=[])
    p: _Places = Field(default=[])

    def array(self) -> Records:
        """Return them as records (events,).

        Raises InvalidInput for lists of different lengths, and where places are missing.
        """
        listed = {name: getattr(self, name) for name in ("unit", "x", "y", "p") if name in self.model_fields_set}
        if listed.keys() not in ({"unit"}, {"x", "y"}, {"x", "y", "p"}):
            raise InvalidInput("a message of events has other lists, expected t and unit, or t, x, y and p")
        for name, values in listed.items():
            if len(values) != len(self.t):
                raise InvalidInput(f"events: {len(self.t)} t for {len(values)} {name}, expected as many of both")
        if "unit" in listed:
            return make_records(self.t, self.unit)
        return make_records(self.t, self.x, self.y, self.p if "p" in listed else 1)


class ValuesMessage(Strict, Generic[Sample]):
    """Values for the next steps, or windows: each an array of the input's shape."""

    type: Literal["values"]
    values: Annotated[list[Sample], FailFast()]

    def array(self) -> FloatArray:
        """Return them as an array (entries, *input shape); raises InvalidInput where their shapes differ."""
        try:
            return np.asarray(self.values, np.float32)
        except ValueError:
            raise InvalidInput(
                "values: the lists have different lengths, expected those of the input's shape"
            ) from None


class TimeMessage(Strict):
    """The time, in microseconds of the stream: there are no more events before it."""

    type: Literal["time"]
    t: _Time


class StateMessage(Strict):
    """Asks for the state at the end of the last window; with a `state`, which must be the first message, goes on."""

    type: Literal["state"]
    state: Annotated[str, Field(max_length=2**26)] | None = None


class EndMessage(Strict):
    """Ends the session: an open window that holds events is closed first."""

    type: Literal["end"]


Message: TypeAlias = NDArray[Any] | TimeMessage | StateMessage | EndMessage
KINDS = frozenset({"events", "values", "time", "state", "end"})


def read_message(text: str, axes: int | None = None) -> Message:
    """Read a message of a stream of events, or of values of inputs of so many axes; both are returned as their array.

    Raises MalformedBody or InvalidInput.
    """
    long = axes is not None and len(text) >= LONG_ARRAY
    cut = cut_array(text.encode(), b"values", np.float32) if long else None
    content = text if text.isascii() else text.encode()  # as it would keep a copy in UTF-8 for as long as it lives
    known = "events, time, state or end" if axes is None else "values, state or end"
    try:
        message = _adapter(axes).validator.validate_json(content if cut is None else cut.rest)
    except ValidationError as error:
        sentence = f"message: {first_error(error, fields=known, hidden=KINDS)}"
        raise (MalformedBody if is_no_json(error) else InvalidInput)(sentence) from error
    if isinstance(message, EventsMessage | ValuesMessage):
        return message.array() if cut is None else cut.array
    return message


@cache
def _adapter(axes: int | None) -> TypeAdapter[Any]:
    input_messages: Any = EventsMessage | TimeMessage if axes is None else ValuesMessage[nested(axes)]  # type: ignore[misc]
    return TypeAdapter(Annotated[input_messages | StateMessage | EndMessage, Field(discriminator="type")])


class Reading(StrEnum):
    """What the class of a window is read from."""

    TOTAL = "total"  # all that the network has answered since the session began
    WINDOW = "window"  # the output spikes of this window alone
    DECAY = "decay"  # the output spikes of all windows, each of which counts `decay` times the one after it


class StreamOptions(Strict):
    """The options of a stream."""

    step_us: Annotated[int, Field(ge=1, le=MAX_STEP_US, strict=False)] | None = Field(
        default=None, description="Microseconds of a time step; only for a model of events whose input does not say it."
    )
    window_steps: Annotated[int, Field(ge=1, strict=False)] | None = Field(
        default=None,
        description="Time steps of a window; by default the input's or 1, for `direct` and `rate` those of training.",
    )
    lateness_us: Annotated[int, Field(ge=0, le=MAX_STEP_US, strict=False)] | None = Field(
        default=None, description="Microseconds that an event may come behind the latest one; for events, by default 0."
    )
    scores: Reading = Field(
        default=Reading.TOTAL, strict=False, description="What the class is read from: total, window (alone) or decay."
    )
    decay: Annotated[float, Field(gt=0, lt=1, strict=False)] = Field(
        default=0.9, description="For scores=decay: how much a window counts for the next."
    )
    seed: Annotated[int, Field(ge=0, le=MAX_SEED, strict=False)] = Field(
        default=0, description="The seed of `rate` coding; the same one draws the same spikes."
    )

    @classmethod
    def read(cls, query: bytes) -> Self:
        """Read a query string; raises InvalidInput."""
        try:
            return cls.model_validate(parameters(query))
        except ValidationError as error:
            raise InvalidInput(f"query: {first_error(error, fields=', '.join(cls.model_fields))}") from error
