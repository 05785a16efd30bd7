"""Sessions of values: each window is that of one run, whatever the parts, and whenever a connection breaks."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeserve import AsyncClient, Client, InvalidEvents, SessionState, Summary, Window
from spikeserve.conversation import Conversation
from spikeserve.flow import Connect, Lost, Receive, Send, Step
from spikeserve.models.coding import encode
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec import Coding
from spikeserve.service.inference.sessions.values import ValueWindows
from spikeserve.values import Entry
from tests.bundles import publish
from tests.client.test_conversation import run
from tests.networks import toy
from tests.serving import Process, running

VALUES = np.array([[0.75, 1.0], [0.5, 0.0], [0.25, 2.0], [1.0, 0.0], [0.0, 0.5], [0.75, 0.75]], np.float32)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    root = tmp_path_factory.mktemp("repository")
    for coding in (Coding.CURRENT, Coding.DIRECT, Coding.SPIKES):
        publish(root, toy(coding), coding.value)
    with running(root) as process:
        for _ in range(2):
            process.wait_for("model_ready")
        yield process


@pytest.fixture
def client(service: Process) -> Iterator[Client]:
    with Client(service.url) as client:
        yield client


def counted(values: np.ndarray[Any, Any]) -> list[int]:
    """Return the spikes of one run over a value for each step."""
    result, _ = ReferenceEngine(toy(Coding.CURRENT, len(values))).run(
        encode(values[None], toy(Coding.CURRENT, len(values)).spec)
    )
    return [int(each) for each in result.spike_counts[0]]


def test_a_value_for_each_step_gives_the_windows_of_one_run(client: Client) -> None:
    with client.session(model="current", window_steps=2) as session:
        session.send(VALUES[:3])
        first = list(session)
        session.send(VALUES[3])  # one entry
        session.send(VALUES[4:].tolist())
        rest = session.end()
    windows = [*first, *rest]
    assert [(each.window, each.t, each.steps, each.events) for each in windows] == [
        (0, 2, 2, 0),
        (1, 4, 2, 0),
        (2, 6, 2, 0),
    ]
    assert [each.spike_counts for each in windows] == [counted(VALUES[:end]) for end in (2, 4, 6)]
    assert (len(first), session.summary) == (1, Summary(windows=3, events=0, late=0))


def test_a_value_for_each_window_is_held_for_its_steps(client: Client) -> None:
    windows = list(client.stream([VALUES[0], VALUES[1:3]], model="direct", window_steps=2))
    assert [each.t for each in windows] == [2, 4, 6]
    assert windows[-1].spike_counts == counted(np.repeat(VALUES[:3], 2, axis=0))


@pytest.mark.parametrize(("model", "steps"), [("current", 2), ("direct", 3)])
def test_a_state_goes_on_from_the_next_value(client: Client, model: str, steps: int) -> None:
    whole = [each.spike_counts for each in client.stream(VALUES, model=model, window_steps=steps)]
    with client.session(model=model, window_steps=steps) as session:
        session.send(VALUES[:2])
        state = SessionState.from_json(session.state().to_json())
    behind = state.t if model == "current" else state.window
    assert behind == 2
    found = [each.spike_counts for each in client.stream(VALUES[2:], state=state)]
    assert found == whole[state.window :]


def test_the_client_that_is_awaited_sends_values_alike(service: Process, client: Client) -> None:
    async def run_() -> list[Window]:
        async with AsyncClient(service.url, model="current") as awaited:
            return [each async for each in awaited.stream([VALUES[:1], VALUES[1:]], window_steps=3)]

    expected = list(client.stream(VALUES, model="current", window_steps=3))
    assert [each.spike_counts for each in asyncio.run(run_())] == [each.spike_counts for each in expected]


@pytest.mark.parametrize(
    ("model", "given", "sentence"),
    [
        (
            "current",
            [1.0, 2.0, 3.0],
            r"values have shape \(3,\), expected \(2,\) for each step, and those after another",
        ),
        ("direct", np.zeros((4, 3)), r"values have shape \(4, 3\), expected \(2,\) for each window"),
        ("current", ["a", "b"], "values are no array of numbers: could not convert string to float"),
        ("spikes", [0.0, 1.0], "the model has spikes coding, expected current, direct or rate for values"),
    ],
)
def test_values_that_do_not_fit_are_refused_before_they_are_sent(
    client: Client, model: str, given: Any, sentence: str
) -> None:
    with client.session(model=model) as session, pytest.raises(InvalidEvents, match=sentence):
        session.send(given)


def test_values_and_events_do_not_mix(client: Client) -> None:
    with client.session(model="current") as session:
        session.send(VALUES[:1])
        with pytest.raises(InvalidEvents, match="the session was sent values before, expected values"):
            session.send({"t": [0], "unit": [0]})
        with pytest.raises(InvalidEvents, match="t is 5, but the session was sent values, whose number is its time"):
            session.advance(5)


class Server:
    """A server of one session that sums what it is sent; connections break after so many messages."""

    def __init__(self, model: Coding, steps: int, breaks: list[int]) -> None:
        self.model, self.steps, self.breaks = model, steps, breaks
        self.lines: deque[dict[str, Any]] = deque()
        self.left: int | None = 0
        self.open = False

    def perform(self, step: Step) -> str | None:
        match step:
            case Connect():
                self.open, self.left, self.lines = True, self.breaks.pop() if self.breaks else None, deque()
                self.windows, self.sum = ValueWindows(toy(self.model).spec, self.steps), 0.0
            case Send(content=content) if self.open:
                self._read(content)
                if self.left is not None:
                    self.left -= 1
                    if self.left <= 0:
                        self.open = False
                        self.lines.clear()
                        raise Lost("broken")
            case Receive(wait=wait) if self.lines or self.open:
                assert self.lines or not wait, "the client waits for a line that nothing has asked for"
                return json.dumps(self.lines.popleft()) if self.lines else None
            case Send() | Receive():
                raise Lost("not connected")
        return None

    def _read(self, content: bytes | str) -> None:
        message = {"type": "values"} if isinstance(content, bytes) else json.loads(content)
        match message["type"]:
            case "values":
                self.windows.add(self.windows.read(content))  # type: ignore[arg-type]
            case "state" if "state" in message:
                number, start, self.sum = json.loads(message["state"])
                self.windows.go_on(number, start)
            case "state":
                state = json.dumps([self.windows.number, self.windows.start, self.sum])
                line = {"type": "state", "window": self.windows.number, "t": self.windows.start, "state": state}
                self.lines.append(line)
        while (window := self.windows.close()) is not None:
            self._answer(window)
        if message["type"] == "end":
            if (window := self.windows.flush()) is not None:
                self._answer(window)
            self.lines.append({"type": "end", "windows": self.windows.number, **self.windows.held})
            self.open = False

    def _answer(self, window: Any) -> None:
        self.sum += float(window.values.sum())
        line = {"type": "window", "window": window.number, "t": window.end, **window.held, "synaptic_operations": 0}
        self.lines.append({**line, "lag_ms": 0.0, "window_counts": [], "spike_counts": [int(self.sum)]})


def told(parts: list[int], server: Server, state_every: int) -> tuple[list[tuple[int, int, list[int]]], list[int]]:
    """Send so many values in each part, and return the windows; and how many had come after each part."""
    session, found, after, first = Conversation("m", None, {}, None, state_every, 30), list[Window](), [], 0
    entry = Entry((2,), server.model is Coding.CURRENT)
    for size in parts:
        array = np.arange(2 * first, 2 * (first + size), dtype=np.float32).reshape(-1, 2) % 8
        run(session.send_values(array, entry), server)  # type: ignore[arg-type]
        first += size
        while (window := run(session.next_window(), server)) is not None:  # type: ignore[arg-type]
            found.append(window)
        after.append(len(found))
    run(session.end(), server)  # type: ignore[arg-type]
    while (window := run(session.next_window(), server)) is not None:  # type: ignore[arg-type]
        found.append(window)
    assert session.summary is not None
    return [(each.window, each.t, each.spike_counts) for each in found], after


@settings(max_examples=200)
@given(
    st.sampled_from([Coding.CURRENT, Coding.DIRECT]),
    st.integers(1, 4),
    st.lists(st.integers(1, 9), min_size=1, max_size=8),
    st.lists(st.integers(1, 8), max_size=8),
    st.integers(1, 4),
)
def test_every_window_comes_once_and_as_without_any_break(
    model: Coding, steps: int, parts: list[int], breaks: list[int], state_every: int
) -> None:
    assert told(parts, Server(model, steps, breaks), state_every) == told(parts, Server(model, steps, []), 50)


def test_values_that_a_state_has_behind_it_are_not_kept() -> None:
    server, session = Server(Coding.CURRENT, 2, []), Conversation("m", None, {}, None, 1, 5)
    for _ in range(50):
        run(session.send_values(np.zeros((2, 2), np.float32), Entry((2,), True)), server)  # type: ignore[arg-type]
        while run(session.next_window(), server) is not None:  # type: ignore[arg-type]
            pass
    assert sum(len(each.values or ()) for each in session.kept) <= 6
