"""What a session says of itself without asking the server; both kinds of session are made on it."""

from __future__ import annotations

from spikeserve.answers import SessionState, Summary, Window
from spikeserve.conversation import Conversation
from spikeserve.errors import InvalidEvents
from spikeserve.values import Entry


class BaseSession:
    """A session in its `with` block. It goes on by itself after a lost connection, and each window is given once.

    One thread, or one task, uses it at a time. Leaving its block without `end` abandons it.
    """

    _conversation: Conversation | None = None
    _entry: Entry | None = None  # of its values, once the model's card was asked for

    def unread(self) -> list[Window]:
        """Return the windows that have come and were not read, without waiting for more."""
        return self._open.unread()

    @property
    def now(self) -> int | None:
        """The time that was sent last, in microseconds; None before the first."""
        return self._open.clock

    @property
    def last_state(self) -> SessionState | None:
        """The last state that was heard of, which is there even where no server is."""
        return self._open.state

    @property
    def summary(self) -> Summary | None:
        """What the session was, once it has ended."""
        return self._open.summary

    @property
    def _open(self) -> Conversation:
        if self._conversation is None:
            raise InvalidEvents("the session is not open, expected it to be used in a `with` block")
        return self._conversation
