"""A session is one run: cut anywhere, and moved to another server by its state, it has the reference engine's counts.

Each kind of message has one answer at each place, whatever carries it.
"""

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeserve.models.spec.network import FloatArray
from tests.bundles import published
from tests.contracts.sessions import NETWORKS, WAYS, Line, Session, converse, in_one_go, post
from tests.plugins.grpc.rpc import serving_grpc
from tests.serving import Process

Servers = tuple[Process, Process]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Two servers of the same models, by different engines."""
    root = published(tmp_path_factory, **NETWORKS)
    one, other = ("--default-model", "spikes"), ("--default-model", "spikes", "--engine", "reference")
    with serving_grpc(root, *one, ready=4) as first, serving_grpc(root, *other, ready=4) as second:
        yield first, second


@st.composite
def recordings(draw: st.DrawFn, model: str) -> FloatArray:
    """Return entries (entries, inputs) that are exact in float32; of spikes the first and the last have an event."""
    length, rng = draw(st.integers(1, 12)), np.random.default_rng(draw(st.integers(0, 99)))
    if model == "rate":
        return np.repeat(rng.random((1, 2)), length, axis=0).astype(np.float32)
    entries = rng.integers(0, 2, (length, 2)) if model == "spikes" else rng.integers(0, 9, (length, 2)) / 4
    if model == "spikes":
        entries[0, 0] = entries[-1, 1] = 1
    return entries.astype(np.float32)


def cut(entries: FloatArray, cuts: list[int]) -> list[FloatArray]:
    edges = [0, *sorted({each % (len(entries) + 1) for each in cuts}), len(entries)]
    return [entries[start:stop] for start, stop in pairwise(edges)]


@pytest.mark.parametrize(("name", "model"), [(name, model) for name, (_, models) in WAYS.items() for model in models])
@settings(max_examples=10)
@given(data=st.data(), window=st.integers(1, 4), cuts=st.lists(st.integers(0, 12), max_size=4), move=st.integers(1, 12))
def test_a_session_is_one_run_wherever_it_is_cut_and_moved(
    servers: Servers, name: str, model: str, data: Any, window: int, cuts: list[int], move: int
) -> None:
    way, entries = WAYS[name][0], data.draw(recordings(model))
    own: dict[str, Any] = {"seed": 2**63 - 1} if model == "rate" else {}
    whole = in_one_go(Session(model, window, [entries], **own))
    assert way(servers[0], Session(model, window, cut(entries, cuts), **own))[0] == whole
    if name != "a body of bytes":
        move = min(move, len(entries))
        before, state = way(servers[0], Session(model, window, cut(entries[:move], cuts), moves=True, **own))
        behind = len(before) * (1 if model in ("direct", "rate") else window)
        if rest := cut(entries[behind:], cuts) if behind < len(entries) else []:
            after, _ = way(servers[1], Session(model, window, rest, behind, state, **own))
            assert before + after == whole


Lines = Callable[[Process, str, list[str], str], list[Line]]
CARRIERS: dict[str, Lines] = {  # of messages; each returns the lines that answer them
    "a body": lambda server, model, messages, query: post(server, model, query, "\n".join(messages)),
    "a WebSocket": lambda server, model, messages, query: converse(server, model, query, messages),
}
EVENTS = '{"type": "events", "t": [0, 2000], "unit": [0, 0]}'  # closes window 0, of two steps
VALUES = '{"type": "values", "values": [[1, 1]]}'  # closes window 0, of one step
FIRST, LATER, ANY = (0,), (1,), (0, 1)  # places: as the first message, or after one that closed a window
TYPES = {"spikes": "events, time, state or end", "current": "values, state or end"}
NO_STATE = "state: is no session's state"


def state(text: str) -> str:
    return json.dumps({"type": "state", "state": text})


# By model, places and message: the sentence that ends the session, or the types of the lines that it is answered by.
ROWS: list[tuple[str, tuple[int, ...], str, str | list[str]]] = [
    ("spikes", ANY, '{"type": "events", "t": [], "unit": []}', []),
    ("spikes", FIRST, EVENTS, ["window"]),
    ("spikes", LATER, '{"type": "events", "t": [0], "unit": [1]}', []),  # late
    ("spikes", ANY, '{"type": "events", "t": [4000], "x": [1], "y": [0], "p": [0]}', []),
    ("spikes", FIRST, '{"type": "time", "t": 1000}', []),
    ("spikes", LATER, '{"type": "time", "t": 6000}', ["window", "window"]),
    ("current", ANY, VALUES, ["window"]),
    *((model, ANY, '{"type": "state"}', ["state"]) for model in TYPES),
    *((model, LATER, state("AAAA"), "state: only the first message may bring one") for model in TYPES),
    *((model, FIRST, state("AAAA"), NO_STATE) for model in TYPES),
    *((model, ANY, '{"type": "sing"}', f"message: type is 'sing', expected {types}") for model, types in TYPES.items()),
    *((model, ANY, '{"t": 1}', f"message: type is missing, expected {types}") for model, types in TYPES.items()),
    *((model, ANY, "{", "message: the body is not JSON") for model in TYPES),
    ("spikes", ANY, VALUES, "message: type is 'values', expected events,"),
    ("current", ANY, EVENTS, "message: type is 'events', expected values,"),
    ("current", ANY, '{"type": "time", "t": 0}', "message: type is 'time', expected values,"),
    ("spikes", ANY, '{"type": "events", "t": [0]}', "a message of events has other lists"),
    ("spikes", ANY, '{"type": "events", "t": [0], "unit": [0, 1]}', "events: 1 t for 2 unit, expected as many of both"),
    ("spikes", ANY, '{"type": "events", "t": [-1], "unit": [0]}', "message: t[0] is -1, expected at least 0"),
    ("spikes", FIRST, '{"type": "events", "t": [0, 9], "unit": [0, 2]}', "events: event 1 is at x 2, y 0, expected x"),
    ("spikes", LATER, '{"type": "events", "t": [0], "unit": [2]}', "events: event 2 is at x 2, y 0"),  # and late
    ("spikes", LATER, '{"type": "events", "t": [9000], "x": [1], "y": [1]}', "events: event 2 is at x 1, y 1"),
    ("spikes", ANY, '{"type": "time", "t": 1, "now": 2}', "message: now is not a field here"),
    ("spikes", FIRST, state("?"), "state: is not base64"),
    ("spikes", FIRST, state("AAA\u00e9"), "state: is not base64"),
    ("spikes", FIRST, state("AAA\ud800"), "message: "),
    ("spikes", FIRST, state("U1BLUwMA" + "A" * 40), "state: has format 3, expected 1 or 2"),
    ("spikes", FIRST, state("U1BLUwIA" + "A" * 40), "state: is damaged"),
    ("spikes", FIRST, state("A" * 200_000), "state: has 200000 characters, expected at most "),
    *(
        ("current", ANY, json.dumps({"type": "values", "values": values}), sentence)
        for values, sentence in (
            ([[0, 0], [3, 0]], "values[1][0] is 3, expected 0 to 2"),
            ([[0, 0, 0]], "each step of values has shape 3, expected 2"),
            ([[0, 0], [0]], "values: the lists have different lengths"),
            ([0], "message: values[0] is 0, expected an array"),
            ([[True, 0]], "message: values[0][0] is true, expected a number"),
            ([[]], "each step of values has shape 0, expected 2"),
            ([[0, 0]] * 600_000, "a message has 1200000 commas, expected at most 1048576, as it may have as many num"),
        )
    ),
]


@pytest.mark.parametrize("carrier", CARRIERS)
def test_each_kind_of_message_has_one_answer_at_each_place(servers: Servers, carrier: str) -> None:
    for model, places, message, answer in ROWS:
        for place in places:
            before = [EVENTS if model == "spikes" else VALUES] * place
            lines = CARRIERS[carrier](servers[0], model, [*before, message], "")
            kinds = [line["type"] for line in lines[place:]]
            row = (model, place, message[:80], lines)
            assert [line["type"] for line in lines[:place]] == ["window"] * place, row
            if isinstance(answer, str):
                assert kinds == ["state", "error"], row
                assert lines[place]["window"] == place, row
                assert lines[-1]["error"].startswith(answer), row
            else:
                rest = len(kinds) - 1 - len(answer)  # windows that the end closes
                assert kinds == [*answer, *["window"] * rest, "end"], row
                assert lines[-1]["windows"] == place + answer.count("window") + rest, row


times = st.integers(0, 40).map(lambda half: 500 * half)  # so that many lie at the ends of windows
events = st.lists(st.tuples(times, st.integers(0, 1)), min_size=1, max_size=6)
scripts = st.lists(st.one_of(times, events, events, st.none()), min_size=1, max_size=9)


def said(part: Any) -> str:
    """Return events (t, unit), a time, or a question for the state as a message."""
    if not isinstance(part, list):
        return json.dumps({"type": "state"} if part is None else {"type": "time", "t": part})
    return json.dumps({"type": "events", "t": [t % 2**32 for t, _ in part], "unit": [unit for _, unit in part]})


def not_behind(part: Any, t: int) -> Any:
    """Return the rest of a part to send again after a state at time `t`; None for nothing."""
    if isinstance(part, list):
        return [each for each in part if each[0] >= t] or None
    return part if part is not None and part > t else None


@pytest.mark.parametrize("carrier", CARRIERS)
@given(
    scripts,
    st.lists(st.integers(0, 9), min_size=1, max_size=3),
    st.sampled_from(["scores=decay", "scores=decay&lateness_us=1500", "scores=decay&decay=0.5&window_steps=1"]),
    st.sampled_from([None, 2**32 - 9000, 2**40 + 700]),
)
def test_late_events_times_and_moves_between_servers_give_the_lines_of_one_session_and_its_end(
    servers: Servers, carrier: str, script: list[Any], cuts: list[int], query: str, start: int | None
) -> None:
    def lines_of(server: Process, parts: list[Any], *first: str) -> list[Line]:
        lines = CARRIERS[carrier](server, "spikes", [*first, *map(said, parts)], query)
        return [{name: value for name, value in line.items() if name != "lag_ms"} for line in lines]

    if start is not None:  # a jump of time, and the clock of 32 bits of the events begins again
        later = [[(start + t, unit) for t, unit in part] if isinstance(part, list) else part for part in script]
        script = [start, *[start + part if isinstance(part, int) else part for part in later]]
    *whole, whole_end = [line for line in lines_of(servers[0], script) if line["type"] != "state"]
    left, first, windows = script, list[str](), list[Line]()
    for place, cut in enumerate(cuts):
        here = lines_of(servers[place % 2], [*left[:cut], None], *first)
        at = max(place for place, line in enumerate(here) if line["type"] == "state")  # behind it, the body's end
        windows += [line for line in here[:at] if line["type"] == "window"]
        first, t = [state(here[at]["state"])], here[at]["t"]
        left = [part if t is None else not_behind(part, t) for part in left[:cut]] + left[cut:]
    before = {name: sum(line[name] for line in windows) for name in ("events", "late")}
    *last, end = [line for line in lines_of(servers[len(cuts) % 2], left, *first) if line["type"] != "state"]
    assert windows + last == whole
    assert {**end, **{name: end[name] + told for name, told in before.items()}} == whole_end
