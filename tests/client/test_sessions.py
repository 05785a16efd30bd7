"""Sessions of the client with real servers: windows, states, ends, and errors.

Sessions of values: each window is that of one run, whatever the parts.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection, serve

from spikeserve import (
    AsyncClient,
    Client,
    ConnectionLost,
    InvalidEvents,
    InvalidOption,
    InvalidRequest,
    ModelNotFound,
    SessionError,
    SessionState,
    Summary,
    Window,
)
from spikeserve.models.coding.records import make_records
from spikeserve.records import EventsLike
from tests.bundles import publish
from tests.service.sessions.conftest import pairs
from tests.serving import Process, running

UNITS = {"t": [0, 1000, 2000, 4000], "unit": [0, 0, 0, 1]}


def seen(windows: list[Window]) -> list[tuple[int, int, list[int]]]:
    return [(each.window, each.t, each.window_counts) for each in windows]


def test_the_windows_of_a_session(client: Client) -> None:
    # Unit 0 at 0, 1 and 2 ms, unit 1 at 4 ms: two events of unit 0 are in window 0, whose second spikes.
    with client.session() as session:
        session.send(UNITS)
        first, second = list(session)
        assert list(session) == []
        session.advance(8000)
        assert seen(list(session)) == [(2, 6000, [0, 0]), (3, 8000, [0, 0])]
        session.send({"t": [3000, 9000], "unit": [1, 1]})
        assert seen(session.end()) == [(4, 10_000, [0, 1])]
    assert (first.events, first.label, first.margin, first.synaptic_operations) == (2, "left", 1, 4)
    assert (second.late, second.spike_counts, second.scores) == (0, [1, 0], None)
    assert session.summary == Summary(windows=5, events=5, late=1)


def test_the_client_that_is_awaited_streams_chunks_and_times_and_goes_on(service: Process) -> None:
    async def source() -> AsyncIterator[EventsLike | int]:
        yield make_records([0], [0])
        yield 5000
        yield {"t": [5000, 5001], "unit": [0, 1]}

    async def run() -> tuple[list[Window], list[Window], SessionState, Summary | None]:
        async with AsyncClient(service.url, model="pairs") as client:
            # A window is there as soon as the chunk that closes it was sent.
            found = [each async for each in client.stream(source(), scores="window")]
            given = [item async for item in source()]  # which need not be awaited
            assert seen([each async for each in client.stream(given)]) == seen(found)
            async with client.session() as session:
                await session.send(UNITS)
                early = [each async for each in session]
                state = await session.state()
                await session.advance(6000)
                late = await session.end()
            async with client.resume(state) as resumed:
                await resumed.send({"t": [4000], "unit": [1]})
                await resumed.advance(6000)
                again = await resumed.end()
            assert seen(again) == seen(late) == [(2, 6000, [0, 0])]
            return found, early, state, session.summary

    found, early, state, summary = asyncio.run(run())
    assert seen(found) == [(0, 2000, [0, 0]), (1, 4000, [0, 0]), (2, 6000, [1, 0])]
    assert [each.scores for each in found] == [[0, 0], [0, 0], [1, 0]]
    assert seen(early) == [(0, 2000, [1, 0]), (1, 4000, [0, 0])]
    assert (state.window, state.t, summary) == (2, 4000, Summary(3, 4, 0))


@pytest.mark.parametrize("iterations", [1, 2, 3, 5, 8, 13])
def test_a_task_that_is_cancelled_while_it_sends_or_waits_loses_no_window(service: Process, iterations: int) -> None:
    async def cancelled(call: Coroutine[Any, Any, list[Window] | None]) -> list[Window]:
        task = asyncio.ensure_future(call)
        for _ in range(iterations):  # of the event loop: it has begun, and may have ended
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return [] if task.cancelled() else task.result() or []

    async def run() -> list[Window]:
        async with AsyncClient(service.url, model="pairs") as client, client.session(retries=0) as session:
            await cancelled(session.send(UNITS))
            found = [window async for window in session]
            found += await cancelled(session.end())
            return found + await session.end()

    assert seen(asyncio.run(run())) == [(0, 2000, [1, 0]), (1, 4000, [0, 0]), (2, 6000, [0, 0])]


def test_a_state_goes_on_with_its_model_and_its_options(client: Client) -> None:
    recording = make_records([500, 2500, 4500, 5600], [0, 0, 0, 0])
    with client.session(model="pairs", window_steps=1) as session:
        session.send(recording[:2])
        state = SessionState.from_json(session.state().to_json())
    assert (state.window, state.t, state.model, state.options) == (2, 2500, "pairs", {"window_steps": "1"})
    # A stream from a state is given the whole recording, of which it leaves out what the state has behind it.
    found = list(client.stream(recording, state=state))
    assert [each.window_counts for each in found] == [[1, 0], [0, 0], [0, 0], [1, 0]]  # at 2500, 3500, 4500 and 5500
    assert [each.late for each in found] == [0, 0, 0, 0]
    with client.resume(state, model="pairs") as session:
        session.send(recording[1:])
        assert [each.spike_counts for each in session.end()] == [[1, 0], [1, 0], [1, 0], [2, 0]]


def test_an_option_that_there_is_not_is_refused(client: Client) -> None:
    with pytest.raises(InvalidOption, match="'window_step' is not an option of a session, expected 'window_steps'"):
        client.session(window_step=3)  # type: ignore[call-arg]
    with pytest.raises(InvalidOption, match="'colour' is not an option of a session, expected one of model, version, "):
        client.resume(SessionState("", 0, None, "pairs"), colour=3)  # type: ignore[call-arg]


def test_a_session_closes_its_socket_and_a_client_its_connections(service: Process) -> None:
    with Client(service.url, model="pairs") as client:
        with client.session() as session:
            session.advance(0)
            first = session._socket.connection
            assert first is not None
            session._socket.connect("/models/pairs/stream")
            second = session._socket.connection
            assert second is not None
            assert first.socket.fileno() == -1
        assert second.socket.fileno() == -1
        assert client.default_model() == "pairs"
        connections = client._http
    assert connections.is_closed


def test_the_client_that_is_awaited_keeps_its_timeout() -> None:
    async def run() -> None:
        async with (
            asyncio.timeout(60),
            serve(silent, "127.0.0.1", 0) as server,
            AsyncClient(url_of(server.sockets[0]), model="pairs") as client,
            client.session(retries=0) as session,
        ):
            await session.send(UNITS)
            session._socket.timeout = 0.2  # from now on, since a busy machine may take longer to connect
            with pytest.raises(ConnectionLost, match="the server did not answer in time"):
                await session.end()

    asyncio.run(run())


async def silent(connection: ServerConnection) -> None:
    """Read messages, and answer none."""
    async for _ in connection:
        pass


def url_of(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_session_that_was_silent_for_too_long_goes_on(tmp_path: Path) -> None:
    publish(tmp_path, pairs(), "pairs")
    with (
        running(tmp_path, "--session-idle-seconds", "1") as service,
        Client(service.url) as client,
        client.session() as session,
    ):
        session.send({"t": [0, 2500], "unit": [0, 1]})
        assert seen(list(session)) == [(0, 2000, [0, 0])]
        connection = session._socket.connection
        assert connection is not None
        for _ in connection:  # until the server closes it, after a second
            pass
        session.send({"t": [3000, 4000], "unit": [1, 0]})
        assert seen(list(session)) == [(1, 4000, [0, 1])]
        assert seen(session.end()) == [(2, 6000, [1, 0])]


@pytest.mark.parametrize(
    ("options", "kind", "sentence"),
    [
        ({"model": "none"}, ModelNotFound, "404: "),
        ({"step_us": 5}, InvalidRequest, "422: step_us is 5, but a step of this model is 1000 microseconds"),
        ({"decay": 2}, InvalidRequest, "422: query: decay is '2'"),
    ],
)
def test_wrong_options_fail(client: Client, options: dict[str, object], kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        list(client.stream(UNITS, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("lateness", [0, 5000])  # with lateness, no window has closed yet
def test_an_error_comes_after_the_windows_before_it(client: Client, lateness: int) -> None:
    found = list[Window]()
    records = make_records([0, 1000, 2000, 4000], np.array([0, 0, 0, 7]))
    with pytest.raises(SessionError, match="event 3 is at x 7") as caught:
        found.extend(client.stream(iter([records[:3], records[3:]]), lateness_us=lateness))
    assert seen(found) == [(0, 2000, [1, 0])][: 1 if lateness == 0 else 0]
    assert caught.value.state is not None
    assert (caught.value.state.window, caught.value.state.t) == ((1, 2000) if lateness == 0 else (0, None))


def test_a_state_that_is_damaged_is_refused(client: Client) -> None:
    state = SessionState(state="AAAA", window=1, t=2000, model="pairs")
    with client.resume(state) as session:
        with pytest.raises(SessionError, match="state: is no session's state"):
            session.state()
        with pytest.raises(InvalidEvents, match="the session has ended"):
            session.advance(0)
    with pytest.raises(InvalidEvents, match=r"the state is no text of SessionState\.to_json"):
        SessionState.from_json(json.dumps({"state": "AAAA"}))


def test_a_session_is_used_in_its_block_and_before_its_end(client: Client) -> None:
    session = client.session()
    with pytest.raises(InvalidEvents, match="expected it to be used in a `with` block"):
        session.advance(0)
    with session:
        session.end()
        with pytest.raises(InvalidEvents, match="the session has ended, expected another one"):
            session.advance(0)
        assert session.summary == Summary(0, 0, 0)


VALUES = np.array([[0.75, 1.0], [0.5, 0.0], [0.25, 2.0], [1.0, 0.0], [0.0, 0.5], [0.75, 0.75]], np.float32)


@pytest.mark.parametrize(
    ("model", "given", "sentence"),
    [
        ("mine", [1.0, 2.0, 3.0], r"values have shape \(3,\), expected \(2,\) for each step, and those after another"),
        ("direct", np.zeros((4, 3)), r"values have shape \(4, 3\), expected \(2,\) for each window"),
        ("mine", ["a", "b"], "values are no array of numbers: could not convert string to float"),
        ("pairs", [0.0, 1.0], "the model has spikes coding, expected current, direct or rate for values"),
    ],
)
def test_values_that_do_not_fit_are_refused_unsent(client: Client, model: str, given: Any, sentence: str) -> None:
    with client.session(model=model) as session, pytest.raises(InvalidEvents, match=sentence):
        session.send(given)


def test_values_and_events_do_not_mix(client: Client) -> None:
    with client.session(model="mine") as session:
        session.send(VALUES[:1])
        with pytest.raises(InvalidEvents, match="the session was sent values before, expected values"):
            session.send({"t": [0], "unit": [0]})
        with pytest.raises(InvalidEvents, match="t is 5, but the session was sent values, whose number is its time"):
            session.advance(5)
