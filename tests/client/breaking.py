"""Servers of one session, in this process, whose connections break at moments that a test chooses."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Unpack

import numpy as np
from typing_extensions import override

from spikeserve import Client, Session
from spikeserve.connection import Lost
from spikeserve.models.spec import Coding, EventBinning
from spikeserve.options import SessionOptions
from spikeserve.service.inference.sessions.values import ValueWindows
from spikeserve.service.inference.sessions.windows import Windows
from tests.networks import toy

BINNING = EventBinning(step_us=1000, sensor=(2,), window_steps=2)
CLIENT = Client("http://localhost", model="pairs")  # which makes no connection of its own


class Server:
    """Stands where a session has its WebSocket. `breaks` are the numbers of steps after which each connection breaks.

    Where it breaks in the middle of a message, the server has read it if `reads`, and the answers that are on their way
    arrive if `arrives`; a server that `drains` gives its state before it leaves. Its windows are the service's own, and
    its network is two neurons that spike at every second event.
    """

    def __init__(
        self,
        breaks: Sequence[int] = (),
        *,
        reads: bool = False,
        arrives: bool = False,
        drains: bool = False,
        lateness: int = 0,
    ) -> None:
        self.breaks: Iterator[int] = iter(breaks)
        self.reads, self.arrives, self.drains, self.lateness = reads, arrives, drains, lateness
        self.connections = self.asked = 0
        self.pauses: list[float] = []
        self.refused: list[Exception] = []
        self.open = False
        self.left: int | None = None
        self.lines: deque[dict[str, Any]] = deque()

    def connect(self, _path: str) -> None:
        if self.refused:
            raise self.refused.pop()
        self.connections += 1
        self.open, self.left, self.lines = True, next(self.breaks, None), deque()
        self.begin()

    def send(self, content: bytes | str) -> None:
        if not self.open:
            raise Lost("not connected")
        breaks = self._count()
        if not breaks or self.reads:
            self.read(content)
        if breaks:
            raise Lost("broken")

    def receive(self, *, wait: bool) -> str | None:
        if not self.lines and not self.open:
            raise Lost("not connected")
        self._count()
        if not self.lines:
            assert not wait, "the client waits for a line that nothing has asked for"
            return None
        return json.dumps(self.lines.popleft())

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def close(self) -> None:
        self.open = False

    def _count(self) -> bool:
        """Count a step, and return whether the connection breaks at it."""
        if self.left is None or not self.open:
            return False
        self.left -= 1
        if self.left > 0:
            return False
        self.open = False
        if not self.arrives:
            self.lines.clear()
        if self.drains:
            self.lines.append({**self.state(), "reason": "the server is shutting down"})
        if not self.lines:
            raise Lost("broken")
        return True

    def read(self, content: bytes | str) -> None:
        message = {"type": "binary"} if isinstance(content, bytes) else json.loads(content)
        match message["type"]:
            case "binary":
                self.windows.add(self.windows.read(content))
            case "time":
                self.windows.advance(message["t"])
            case "state" if "state" in message:
                self.go_on(*json.loads(message["state"]))
            case "state":
                self.asked += 1
                self.lines.append(self.state())
            case "bad":
                self.lines.append({**self.state(), "reason": "an error ended the session"})
                self.lines.append({"type": "error", "error": "it is bad"})
                self.open = False
        self.answer_all(self.windows.close)
        if message["type"] == "end":
            self.answer_all(self.windows.flush)
            self.lines.append({"type": "end", "windows": self.windows.number, **self.windows.counts})
            self.open = False

    def answer_all(self, close: Any) -> None:
        while (window := close()) is not None:
            line = {"type": "window", "window": window.number, "t": window.end, **window.counts}
            self.lines.append({**line, "synaptic_operations": 0, "lag_ms": 0.0, **self.run(window)})

    # What the session is of: events here.

    windows: Any

    def begin(self) -> None:
        self.windows = Windows(BINNING, 2, self.lateness)
        self.potential, self.counts = np.zeros(2, np.int64), np.zeros(2, np.int64)
        self.number, self.until = 0, None

    def run(self, window: Any) -> dict[str, Any]:
        self.potential += np.bincount(window.in_order()[0]["x"], minlength=2)
        spikes, self.potential = self.potential // 2, self.potential % 2
        self.counts = self.counts + spikes
        self.number, self.until = window.number + 1, window.end
        return {"window_counts": spikes.tolist(), "spike_counts": self.counts.tolist()}

    def state(self) -> dict[str, Any]:
        until, late = self.windows.origin if self.until is None else self.until, self.windows.late_of(self.number)
        state = json.dumps([self.number, until, self.potential.tolist(), self.counts.tolist(), late])
        return {"type": "state", "window": self.number, "t": until, "state": state}

    def go_on(self, number: int, until: Any, potential: list[int], counts: list[int], late: int) -> None:
        self.number, self.until = number, until
        self.potential, self.counts = np.array(potential), np.array(counts)
        self.windows.go_on(number, until, late)


class ValuesServer(Server):
    """A server of a session of values, which it sums."""

    def __init__(self, coding: Coding, steps: int, breaks: Sequence[int] = ()) -> None:
        super().__init__(breaks)
        self.coding, self.steps = coding, steps

    @override
    def begin(self) -> None:
        self.windows, self.sum = ValueWindows(toy(self.coding).spec, self.steps), 0.0

    @override
    def run(self, window: Any) -> dict[str, Any]:
        self.sum += float(window.values.sum())
        return {"window_counts": [], "spike_counts": [int(self.sum)]}

    @override
    def state(self) -> dict[str, Any]:
        state = json.dumps([self.windows.number, self.windows.start, self.sum])
        return {"type": "state", "window": self.windows.number, "t": self.windows.start, "state": state}

    @override
    def go_on(self, number: int, start: int, total: float) -> None:  # type: ignore[override]
        self.sum = total
        self.windows.go_on(number, start)


def session_with(server: Server, client: Client = CLIENT, **options: Unpack[SessionOptions]) -> Session:
    """Return a session of that server, in its block."""
    session = Session(client, options)
    session._socket = server  # type: ignore[assignment]
    return session.__enter__()


class ValuesClient(Client):
    """A client that knows the card of a model of two values."""

    card: dict[str, Any]

    @override
    def _answer(self, _call: Any) -> Any:
        return self.card


VALUES_CLIENT = ValuesClient("http://localhost", model="values")


def session_of_values(server: ValuesServer, state_every: int) -> Session:
    """Return a session of that server, which is sent arrays (entries, 2)."""
    VALUES_CLIENT.card = {"coding": server.coding, "input": {"shape": [2]}}
    return session_with(server, VALUES_CLIENT, state_every=state_every, retries=30)
