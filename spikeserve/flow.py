"""What a session asks of its connection: steps that both clients perform, one by blocking and one by awaiting.

A flow is a generator. It yields a step, and is sent what the step gave, or is thrown `Lost` or AnswerError. So the
conversation with a server, all that is resent and retried included, is written once and does no input or output.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar


class Lost(Exception):
    """The connection is over, or could not be made; the message says why."""


@dataclass(frozen=True)
class Connect:
    """Open a WebSocket, in place of any that is open. Raises Lost, or AnswerError where the server refuses."""

    path: str  # with its query


@dataclass(frozen=True)
class Send:
    """Send event records as bytes, or a message as text. Raises Lost."""

    content: bytes | str


@dataclass(frozen=True)
class Receive:
    """Return the next line, or None where none is there and `wait` is off. Raises Lost."""

    wait: bool


@dataclass(frozen=True)
class Pause:
    """Wait before another try."""

    seconds: float


Step: TypeAlias = Connect | Send | Receive | Pause
Value = TypeVar("Value")
Flow: TypeAlias = Generator[Step, "str | None", Value]
