"""What a stream's client says, and what it hears: JSON objects with a `type`, and event records as bytes."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, TypeAlias

from pydantic import FailFast, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from models.errors import InvalidInput
from service.errors import MalformedBody, shown
from service.inference.native.schemas import Strict

_Time = Annotated[int, Field(ge=0, lt=2**63)]
_Times = Annotated[list[Annotated[int, Field(ge=0, lt=2**32)]], FailFast()]
_Places = Annotated[list[Annotated[int, Field(ge=0, lt=2**16)]], FailFast()]


class EventsMessage(Strict):
    """Events: `t` in microseconds, modulo 2**32; and `unit`, or a camera's `x`, `y` and `p`."""

    type: Literal["events"]
    t: _Times
    unit: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], FailFast()] | None = None
    x: _Places | None = None
    y: _Places | None = None
    p: _Places | None = None


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
_READ: TypeAdapter[EventsMessage | TimeMessage | StateMessage | EndMessage] = TypeAdapter(Message)


def read_message(text: str | bytes) -> EventsMessage | TimeMessage | StateMessage | EndMessage:
    """Read a message; raises MalformedBody or InvalidInput."""
    try:
        return _READ.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
    if first["type"] == "json_invalid":
        raise MalformedBody("a message is not JSON, expected an object with a type, or event records as bytes")
    if first["type"].startswith("union_tag"):
        raise InvalidInput("type of a message is missing or unknown, expected events, time, state or end")
    where = ".".join(str(part) for part in first["loc"][1:] if part not in ("list[int]",))
    raise InvalidInput(f"{where or 'a message'} is {shown(first['input'])}: {first['msg']}")


class WindowLine(TypedDict):
    """The answer to one window."""

    type: Literal["window"]
    window: Annotated[int, Field(description="The number of the window, from 0.")]
    t: Annotated[int, Field(description="Its end, in microseconds of the stream.")]
    events: Annotated[int, Field(description="The events that it held.")]
    late: Annotated[int, Field(description="The events that came too late, since the line before, and were dropped.")]
    window_counts: Annotated[list[int], Field(description="The output spikes in this window, by class.")]
    spike_counts: Annotated[list[int], Field(description="The output spikes since the session began, by class.")]
    scores: Annotated[
        NotRequired[list[float]],
        Field(description="What the class is read from, where that is not `spike_counts`."),
    ]
    class_index: NotRequired[int]
    label: NotRequired[str]
    margin: Annotated[
        NotRequired[float], Field(description="By how much the greatest score exceeds the second greatest.")
    ]
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
    reason: Annotated[NotRequired[str], Field(description="Why it is sent, where nobody asked.")]


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
