"""A session's conversation with a server that leaves at any moment: every window comes once, and as without that.

The server here is in this process, so that its connections break at moments that hypothesis chooses: its windows are
the service's own, and its network is two neurons that spike at every second event. test_moved has real servers.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeserve.answers import Summary, Window
from spikeserve.conversation import MESSAGE_EVENTS, Conversation
from spikeserve.errors import ConnectionLost, InvalidEvents, SessionError, Unavailable
from spikeserve.flow import Connect, Flow, Lost, Pause, Receive, Send, Step, Value
from spikeserve.models.coding.records import records_of
from spikeserve.models.spec import EventBinning
from spikeserve.records import events
from spikeserve.service.inference.sessions.windows import Window as ClosedWindow
from spikeserve.service.inference.sessions.windows import Windows

BINNING = EventBinning(step_us=1000, sensor=(2,), window_steps=2)


class Server:
    """A server of one session. `breaks` are the numbers of steps after which each connection breaks.

    Where it breaks in the middle of a message, the server has read it if `reads`, and the answers that are on their way
    arrive if `arrives`; a server that `drains` gives its state before it leaves.
    """

    def __init__(
        self,
        breaks: Iterator[int] = iter(()),  # noqa: B008  (an empty one)
        *,
        reads: bool = False,
        arrives: bool = False,
        drains: bool = False,
        lateness: int = 0,
    ) -> None:
        self.lateness = lateness
        self.breaks, self.reads, self.arrives, self.drains = breaks, reads, arrives, drains
        self.connections = 0
        self.pauses: list[float] = []
        self.refused: list[Exception] = []
        self.open = False
        self.left: int | None = None
        self.lines: deque[dict[str, Any]] = deque()

    def perform(self, step: Step) -> str | None:
        match step:
            case Pause(seconds=seconds):
                self.pauses.append(seconds)
            case Connect():
                self._connect()
            case Receive(wait=wait) if self.lines or self.open:
                self._count()
                if not self.lines:
                    assert not wait, "the client waits for a line that nothing has asked for"
                    return None
                return json.dumps(self.lines.popleft())
            case Send(content=content) if self.open:
                breaks = self._count()
                if not breaks or self.reads:
                    self._read(content)
                if breaks:
                    raise Lost("broken")
            case _:
                raise Lost("not connected")
        return None

    def _connect(self) -> None:
        if self.refused:
            raise self.refused.pop()
        self.connections += 1
        self.open, self.left, self.lines = True, next(self.breaks, None), deque()
        self.windows = Windows(BINNING, 2, self.lateness)
        self.potential, self.counts = np.zeros(2, np.int64), np.zeros(2, np.int64)
        self.number = 0
        self.until: int | None = None

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
            self.lines.append({**self._state(), "reason": "the server is shutting down"})
        if not self.lines:
            raise Lost("broken")
        return True

    def _read(self, content: bytes | str) -> None:
        message: dict[str, Any] = {"type": "records"} if isinstance(content, bytes) else json.loads(content)
        match message["type"]:
            case "records":
                self.windows.add(records_of(content))  # type: ignore[arg-type]
            case "time":
                self.windows.advance(message["t"])
            case "state" if "state" in message:
                number, until, potential, counts, late = json.loads(message["state"])
                self.number, self.until = number, until
                self.potential, self.counts = np.array(potential), np.array(counts)
                self.windows.go_on(number, until, late)
            case "state":
                self.lines.append(self._state())
            case "bad":
                self.lines.append({**self._state(), "reason": "an error ended the session"})
                self.lines.append({"type": "error", "error": "it is bad"})
                self.open = False
        while (window := self.windows.close()) is not None:
            self._answer(window)
        if message["type"] == "end":
            while (window := self.windows.flush()) is not None:
                self._answer(window)
            windows = self.windows
            end = {"type": "end", "windows": windows.number, "events": windows.received, "late": windows.late}
            self.lines.append(end)
            self.open = False

    def _answer(self, window: ClosedWindow) -> None:
        self.potential += np.bincount(window.in_order()[0]["x"], minlength=2)
        spikes, self.potential = self.potential // 2, self.potential % 2
        self.counts = self.counts + spikes
        self.number, self.until = window.number + 1, window.end
        self.lines.append(
            {
                **{"type": "window", "window": window.number, "t": window.end, "events": len(window.events)},
                **{"late": window.late, "window_counts": spikes.tolist(), "spike_counts": self.counts.tolist()},
                **{"synaptic_operations": 0, "lag_ms": 0.0},
            }
        )

    def _state(self) -> dict[str, Any]:
        until, late = self.windows.origin if self.until is None else self.until, self.windows.late_of(self.number)
        state = json.dumps([self.number, until, self.potential.tolist(), self.counts.tolist(), late])
        return {"type": "state", "window": self.number, "t": until, "state": state}


def run(flow: Flow[Value], server: Server) -> Value:
    try:
        step = next(flow)
        while True:
            try:
                gave = server.perform(step)
            except (Lost, Unavailable) as error:
                step = flow.throw(error)
            else:
                step = flow.send(gave)
    except StopIteration as done:
        value: Value = done.value
        return value


def conversation(state_every: int = 3, retries: int = 5, lateness: int = 0) -> Conversation:
    return Conversation("pairs", None, {"lateness_us": str(lateness)}, None, state_every, retries)


def windows(session: Conversation, server: Server) -> Iterator[Window]:
    while (window := run(session.next_window(), server)) is not None:
        yield window


Script = list[list[tuple[int, int]] | int]


def played(script: Script, server: Server, state_every: int = 3) -> tuple[list[Window], Summary | None, list[int]]:
    """Play a script of messages, events as (t, unit) or a time, and return the windows; and after how many of each."""
    session, after = conversation(state_every, 20, server.lateness), []
    found: list[Window] = []
    for message in script:
        if isinstance(message, int):
            run(session.advance(message), server)
        else:
            t, unit = [t for t, _ in message], [unit for _, unit in message]
            run(session.send(events({"t": t, "unit": unit})), server)
        found += windows(session, server)
        after.append(len(found))
    run(session.end(), server)
    found += windows(session, server)
    return found, session.summary, after


times = st.integers(0, 50).map(lambda half: 500 * half)  # so that many lie at the ends of windows
scripts: st.SearchStrategy[Script] = st.lists(
    st.one_of(times, st.lists(st.tuples(times, st.integers(0, 1)), min_size=1, max_size=5)), min_size=1, max_size=12
)


@settings(max_examples=400)
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
    script: Script, breaks: list[int], reads: bool, arrives: bool, drains: bool, state_every: int, lateness: int
) -> None:
    expected, whole, when = played(script, Server(lateness=lateness))
    server = Server(iter(breaks), reads=reads, arrives=arrives, drains=drains, lateness=lateness)
    found, summary, then = played(script, server, state_every)
    counts = [(each.window, each.t, each.events, each.window_counts, each.spike_counts) for each in found]
    assert counts == [(each.window, each.t, each.events, each.window_counts, each.spike_counts) for each in expected]
    assert then == when  # a window is never later than without breaks
    assert summary is not None
    assert whole is not None
    assert summary.events == whole.events
    if drains:  # what a server that leaves had read is not known
        assert summary.late <= whole.late
    else:
        assert [each.late for each in found] == [each.late for each in expected]
        assert summary.late == whole.late


def test_the_iteration_ends_where_nothing_more_is_closed() -> None:
    server, session = Server(), conversation()
    run(session.send(events({"t": [0, 500], "unit": [0, 0]})), server)
    assert list(windows(session, server)) == []
    run(session.send(events({"t": [9000], "unit": [0]})), server)
    assert [each.window for each in windows(session, server)] == [0, 1, 2, 3]


def test_a_time_that_a_state_does_not_have_behind_it_is_said_again() -> None:
    elsewhere, server, session = Server(), Server(), conversation()
    run(conversation().advance(0), elsewhere)
    elsewhere._read(json.dumps({"type": "time", "t": 2000}))
    run(session.advance(0), server)
    run(session.advance(8000), server)  # which closes four windows
    # The server leaves after the first of them: its state is that of a session whose time is 2000.
    server.lines = deque([server.lines[0], {**elsewhere._state(), "reason": "the server is shutting down"}])
    server.open = False
    assert [each.t for each in windows(session, server)] == [2000, 4000, 6000, 8000]
    assert server.connections == 2


def test_late_events_that_are_sent_before_the_state_is_told_are_counted_once() -> None:
    server, session = Server(), conversation(state_every=1)
    run(session.send(events({"t": [0, 2000], "unit": [0, 0]})), server)
    assert run(session.next_window(), server) is not None
    state = server.lines.pop()  # which was asked for, and is on its way
    run(session.send(events({"t": [2500, 500], "unit": [0, 0]})), server)
    server.lines, server.open = deque([state]), False  # it arrives, and nothing after it
    run(session.end(), server)
    assert [(each.window, each.late) for each in windows(session, server)] == [(1, 1)]
    assert session.summary == Summary(windows=2, events=3, late=1)


def test_what_a_state_has_behind_it_is_not_kept() -> None:
    server, session = Server(), conversation(state_every=1)
    for t in range(0, 100_000, 2000):
        run(session.send(events({"t": [t, t + 1], "unit": [0, 1]})), server)
        list(windows(session, server))
    assert session.kept_events <= 6
    assert len(session.kept) <= 3


def test_times_beyond_32_bits_are_the_windows_own() -> None:
    # Microseconds since 1970, a silence of two hours, and events that the clock of a record could not tell from others.
    start = 1_700_000_000_000_000
    server, session = Server(), conversation()
    run(session.send(events({"t": [start, start + 2500], "unit": [0, 0]})), server)
    assert [each.t for each in windows(session, server)] == [start + 2000]
    server.windows.watermark = server.windows.start = start + 7_200_000_000  # as if those windows had been closed
    session.length = session.until = None
    run(session.send(events({"t": [start + 7_200_000_000, start + 7_200_002_000], "unit": [0, 0]})), server)
    assert [each.t for each in windows(session, server)] == [start + 7_200_002_000]


def test_events_of_more_than_half_a_clock_ago_are_refused() -> None:
    server, session = Server(), conversation()
    run(session.advance(2**31), server)
    with pytest.raises(InvalidEvents, match="t is 0, which is 2147 seconds before the time before it"):
        run(session.send(events({"t": [0], "unit": [0]})), server)


def test_many_events_are_sent_in_messages_of_64_kib() -> None:
    server, session = Server(), conversation()
    run(session.send(events({"t": np.zeros(20_000, np.int64), "unit": np.zeros(20_000, np.int64)})), server)
    assert [len(each.content) for each in session.kept] == [8 * MESSAGE_EVENTS, 8 * MESSAGE_EVENTS, 8 * 3616]


def test_tries_are_bounded_and_wait_longer_each_time() -> None:
    server, session = Server(), conversation(retries=4)
    server.refused = [Unavailable(503, "the server is shutting down")] * 9
    with pytest.raises(ConnectionLost, match="could not go on after 4 tries: 503: the server is shutting down"):
        run(session.advance(0), server)
    # The second try comes at once; later ones wait for half to all of 0.1, 0.2 and 0.4 seconds.
    assert [0.5 <= pause / most <= 1 for pause, most in zip(server.pauses, [0.1, 0.2, 0.4], strict=True)] == [True] * 3
    server.refused = []
    run(session.advance(6000), server)  # nothing that was to be sent is lost
    assert [each.t for each in windows(session, server)] == [2000, 4000, 6000]


def test_an_error_of_the_server_ends_the_session_after_its_windows() -> None:
    server, session = Server(), conversation()
    run(session.send(events({"t": [0, 2000], "unit": [0, 0]})), server)
    server._read(json.dumps({"type": "bad"}))
    with pytest.raises(SessionError, match="it is bad") as caught:
        run(session.advance(4000), server)
    assert caught.value.state is not None
    assert caught.value.state.t == 2000
    assert [each.window for each in session.unread()] == [0]
    with pytest.raises(InvalidEvents, match="the session has ended"):
        run(session.advance(6000), server)
