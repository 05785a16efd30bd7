"""A session with a server that leaves at any moment: every window comes once, and as without that.

The server is in this process, so that its connections break at moments that hypothesis chooses.
tests/deploy/test_replicas.py has real ones.

Servers of one session, in this process, whose connections break at moments that a test chooses.
"""

import json
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Unpack

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from spikeserve import Client, ConnectionLost, InvalidEvents, Session, SessionError, Summary, Unavailable, Window
from spikeserve.connection import Lost
from spikeserve.messages import MESSAGE_EVENTS
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
        self.answer_all(self.windows.close)
        if message["type"] == "end":
            self.answer_all(self.windows.flush)
            self.lines.append({"type": "end", "windows": self.windows.number, **self.windows.counts})
            self.open = False

    def answer_all(self, close: Any) -> None:
        while (window := close()) is not None:
            line = {"type": "window", "window": window.number, "t": window.end, **json.loads(b"{%b}" % window.members)}
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


VALUES_CLIENT = Client("http://localhost", model="values")


def session_of_values(server: ValuesServer, state_every: int) -> Session:
    """Return a session of that server, which is sent arrays (entries, 2)."""
    card = {"coding": server.coding, "input": {"shape": [2]}}
    VALUES_CLIENT._answer = lambda _: card  # type: ignore[method-assign, assignment]
    return session_with(server, VALUES_CLIENT, state_every=state_every, retries=30)


def shown(windows: list[Window]) -> list[tuple[object, ...]]:
    return [(each.window, each.t, each.events, each.window_counts, each.spike_counts) for each in windows]


def played(script: Sequence[Any], session: Session) -> tuple[list[Window], Summary, list[int]]:
    """Play a script of events, values and times, and return the windows and the summary; and how many after each."""
    found, after = list[Window](), []
    for message in script:
        session.advance(message) if isinstance(message, int) else session.send(message)
        found += session
        after.append(len(found))
    found += session.end()
    assert session.summary is not None
    return found, session.summary, after


times = st.integers(0, 50).map(lambda half: 500 * half)  # so that many lie at the ends of windows
events = st.lists(st.tuples(times, st.integers(0, 1)), min_size=1, max_size=5)
scripts = st.lists(
    times | events.map(lambda each: dict(zip(("t", "unit"), zip(*each, strict=True), strict=True))),
    min_size=1,
    max_size=12,
)


@settings(max_examples=300)
@given(
    scripts,
    st.lists(st.integers(1, 15), max_size=12),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.integers(1, 4),
    st.sampled_from([0, 0, 700, 5000]),
)
def test_every_window_comes_once_and_as_without_any_break(
    script: list[Any], breaks: list[int], reads: bool, arrives: bool, drains: bool, state_every: int, lateness: int
) -> None:
    own: SessionOptions = {"retries": 20, "lateness_us": lateness, "state_every": state_every}
    expected, whole, when = played(script, session_with(Server(lateness=lateness), **own))
    server = Server(breaks, reads=reads, arrives=arrives, drains=drains, lateness=lateness)
    found, summary, then = played(script, session_with(server, **own))
    assert shown(found) == shown(expected)
    assert then == when  # a window is never later than without breaks
    assert summary.events == whole.events
    if drains:  # what a server that leaves had read is not known
        assert summary.late <= whole.late
    else:
        assert [each.late for each in found] == [each.late for each in expected]
        assert summary.late == whole.late


@settings(max_examples=150)
@given(
    st.sampled_from([Coding.CURRENT, Coding.DIRECT]),
    st.integers(1, 4),
    st.lists(st.integers(1, 9), min_size=1, max_size=8),
    st.lists(st.integers(1, 15), max_size=8),
    st.integers(1, 4),
)
def test_every_window_of_values_comes_once_and_as_without_any_break(
    coding: Coding, steps: int, parts: list[int], breaks: list[int], state_every: int
) -> None:
    values = np.arange(2 * sum(parts), dtype=np.float32).reshape(-1, 2) % 8
    script = np.split(values, np.cumsum(parts)[:-1])
    expected, _, when = played(script, session_of_values(ValuesServer(coding, steps), 50))
    found, _, then = played(script, session_of_values(ValuesServer(coding, steps, breaks), state_every))
    assert (shown(found), then) == (shown(expected), when)


def test_a_time_that_a_state_does_not_have_behind_it_is_said_again() -> None:
    elsewhere, server = Server(), Server()
    session_with(elsewhere).advance(0)
    elsewhere.read(json.dumps({"type": "time", "t": 2000}))
    session = session_with(server)
    session.advance(0)
    session.advance(8000)  # which closes four windows
    # The server leaves after the first of them: its state is that of a session whose time is 2000.
    server.lines = deque([server.lines[0], {**elsewhere.state(), "reason": "the server is shutting down"}])
    server.open = False
    assert [each.t for each in session] == [2000, 4000, 6000, 8000]
    assert server.connections == 2


def test_late_events_that_are_sent_before_the_state_is_told_are_counted_once() -> None:
    server = Server()
    session = session_with(server, state_every=1)
    session.send({"t": [0, 2000], "unit": [0, 0]})
    assert next(iter(session)).window == 0
    state = server.lines.pop()  # which was asked for, and is on its way
    session.send({"t": [2500, 500], "unit": [0, 0]})
    server.lines, server.open = deque([state]), False  # it arrives, and nothing after it
    assert [(each.window, each.late) for each in session.end()] == [(1, 1)]
    assert session.summary == Summary(windows=2, events=3, late=1)


def test_what_a_state_has_behind_it_is_not_kept() -> None:
    session, values = session_with(Server(), state_every=1), session_of_values(ValuesServer(Coding.CURRENT, 2), 1)
    for t in range(0, 100_000, 2000):
        session.send({"t": [t, t + 1], "unit": [0, 1]})
        values.send(np.zeros((2, 2), np.float32))
        assert len([*session, *values]) <= 2
    assert session._outbox.size <= 6
    assert values._outbox.size <= 6
    assert len(session._outbox.messages) <= 3


def test_a_state_is_asked_for_once_in_so_many_windows() -> None:
    server = Server()
    session = session_with(server, state_every=3)
    for t in range(0, 40_000, 2000):
        session.advance(t)
        assert len([*session]) == (t > 0)
    # Twice before the length of a window is known, then after each third of 18 windows.
    assert server.asked == 2 + 6


def test_events_of_more_than_half_a_clock_ago_are_refused() -> None:
    session = session_with(Server())
    session.advance(2**31)
    with pytest.raises(InvalidEvents, match="t is 0, which is 2147 seconds before the time before it"):
        session.send({"t": [0], "unit": [0]})


def test_many_events_are_sent_in_messages_of_64_kib() -> None:
    session = session_with(Server())
    session.send({"t": np.zeros(20_000, np.int64), "unit": np.zeros(20_000, np.int64)})
    sizes = [len(each.content) for each in session._outbox.messages]
    assert sizes == [8 * MESSAGE_EVENTS, 8 * MESSAGE_EVENTS, 8 * 3616]


def test_tries_are_bounded_and_wait_longer_each_time() -> None:
    server = Server()
    session = session_with(server, retries=4)
    server.refused = [Unavailable(503, "the server is shutting down")] * 9
    with pytest.raises(ConnectionLost, match="could not go on after 4 tries: 503: the server is shutting down"):
        session.advance(0)
    # The second try comes at once; later ones wait for half to all of 0.1, 0.2 and 0.4 seconds.
    assert [0.5 <= pause / most <= 1 for pause, most in zip(server.pauses, [0.1, 0.2, 0.4], strict=True)] == [True] * 3
    assert session.last_state is None
    server.refused = []
    session.advance(6000)  # nothing that was to be sent is lost
    assert [each.t for each in session] == [2000, 4000, 6000]
    state = session.state()
    server.open, server.refused = False, [Unavailable(503, "gone for good")] * 9
    with pytest.raises(ConnectionLost, match="after 4 tries"):
        session.advance(8000)
    assert session.last_state == state  # to go on from elsewhere


@pytest.mark.parametrize("lost", [(0, 1), (2, 2), (3, 5)])
def test_windows_that_are_lost_on_their_way_are_an_error_at_the_next_line(lost: tuple[int, int]) -> None:
    first, last = lost

    class Losing(Server):
        def receive(self, *, wait: bool) -> str | None:
            kept = (each for each in self.lines if each["type"] != "window" or not first <= each["window"] <= last)
            self.lines = deque(kept)
            return super().receive(wait=wait)

    session = session_with(Losing(), state_every=9)
    session.send({"t": [0, 10_000], "unit": [0, 0]})
    with pytest.raises(SessionError, match=f"windows {first} to {last} were lost between the server and this client"):
        session.end()
    assert [each.window for each in session.unread()] == list(range(first))
