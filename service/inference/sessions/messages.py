"""What a stream's client says, and what it hears: JSON objects with a `type`, and event records as bytes."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, TypeAlias

from pydantic import FailFast, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from models.coding.records import Records, make_records
from models.errors import InvalidInput
from service.errors import MalformedBody
from service.inference.native.schemas import Strict
from service.inference.validation import first_error

_Time = Annotated[int, Field(ge=0, lt=2**63)]
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

    def records(self) -> Records:
        """Return them as records; raises InvalidInput for lists of different lengths, and where places are missing."""
        listed = {name: getattr(self, name) for name in ("unit", "x", "y", "p") if name in self.model_fields_set}
        if listed.keys() not in ({"unit"}, {"x", "y"}, {"x", "y", "p"}):
            raise InvalidInput("a message of events has other lists, expected t and unit, or t, x, y and p")
        for name, values in listed.items():
            if len(values) != len(self.t):
                raise InvalidInput(f"events: {len(self.t)} t for {len(values)} {name}, expected as many of both")
        if "unit" in listed:
            return make_records(self.t, self.unit)
        return make_records(self.t, self.x, self.y, self.p if "p" in listed else 1)


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


Message: TypeAlias = Annotated[EventsMessage | TimeMessage | StateMessage | EndMessage, Field(discriminator="type")]
KINDS = frozenset({"events", "time", "state", "end"})
_READ: TypeAdapter[EventsMessage | TimeMessage | StateMessage | EndMessage] = TypeAdapter(Message)


def read_message(text: str | bytes) -> EventsMessage | TimeMessage | StateMessage | EndMessage:
    """Read a message; raises MalformedBody or InvalidInput."""
    try:
        return _READ.validate_json(text)
    except ValidationError as error:
        first = first_error(error, fields="events, time, state or end", hidden=KINDS)
        raise (MalformedBody if first.kind == "json_invalid" else InvalidInput)(f"message: {first.sentence}") from error


class Scores(TypedDict):
    """The class of a window, and what it is read from."""

    scores: NotRequired[
        Annotated[list[float], Field(description="What the class is read from, where that is not `spike_counts`.")]
    ]
    class_index: NotRequired[int]
    label: NotRequired[str]
    margin: NotRequired[
        Annotated[float, Field(description="By how much the greatest score exceeds the second greatest.")]
    ]


class WindowLine(Scores):
    """The answer to one window."""

    type: Literal["window"]
    window: Annotated[int, Field(description="The number of the window, from 0.")]
    t: Annotated[int, Field(description="Its end, in microseconds of the stream.")]
    events: Annotated[int, Field(description="The events that it held.")]
    late: Annotated[int, Field(description="The events that came too late, since the line before, and were dropped.")]
    window_counts: Annotated[list[int], Field(description="The output spikes in this window, by class.")]
    spike_counts: Annotated[list[int], Field(description="The output spikes since the session began, by class.")]
    synaptic_operations: Annotated[int, Field(description="The weights that spikes met in this window.")]
    lag_ms: Annotated[
        float, Field(description="From the message that closed the window to this line, in milliseconds.")
    ]


class StateLine(TypedDict):
    """A state, to go on from. Events from `t` on are to be sent again."""

    type: Literal["state"]
    window: Annotated[int, Field(description="How many windows it has behind it.")]
    t: Annotated[int | None, Field(description="The end of the last of them, in microseconds of the stream.")]
    state: Annotated[str, Field(description="The state, base64.")]
    reason: NotRequired[Annotated[str, Field(description="Why it is sent, where nobody asked.")]]


class EndLine(TypedDict):
    """The end of a session that its client ended."""

    type: Literal["end"]
    windows: int
    events: int
    late: int


class ErrorLine(TypedDict):
    """The end of a session by an error."""

    type: Literal["error"]
    error: Annotated[str, Field(description="One sentence.")]


Line: TypeAlias = WindowLine | StateLine | EndLine | ErrorLine
