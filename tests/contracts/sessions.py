"""The ways of a session: each sends pieces of a recording, from a state or from rest, and tells the counts of windows.

A new way in joins `WAYS` by one function.
"""

import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from spikeserve import Client, SessionState
from spikeserve.models.coding import encode
from spikeserve.models.coding.records import Records, make_records
from spikeserve.models.engines import Record
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.plugins.local.stream import answer_stream
from spikeserve.service.catalog.loaded import LoadedModel, verify
from spikeserve.service.inference.sessions.messages import StreamOptions
from spikeserve.service.settings import Settings
from tests.networks import network_of, task
from tests.plugins.grpc.rpc import Rpc, infer_request, outputs
from tests.serving import Process

RECORDS, NDJSON = "application/vnd.spikeserve.events", "application/x-ndjson"
Line = dict[str, Any]
Counts = list[list[int]]
ids = count(1)  # of sequences


def memory(coding: str) -> Network:
    """Two inputs, three neurons that hear each other, two that leak: a lost state of any layer shows in the counts."""
    own: dict[str, Any] = {"low": 0, "high": 1 if coding == "rate" else 2}
    if coding == "spikes":
        own = {"events": {"step_us": 1000, "window_steps": 2, "sensor": [2], "polarity": "merged"}}
    return network_of(
        [
            {"type": "Linear", "name": "fc", "in_features": 2, "out_features": 3, "bias": False},
            {"type": "IF", "name": "hidden", "recurrent": {"bias": False}},
            {"type": "Linear", "name": "last", "in_features": 3, "out_features": 2, "bias": False},
            {"type": "LIF", "name": "out", "decay": 0.5},
        ],
        {
            "fc.weight": [[0.5, 0], [0, 0.5], [0.25, 0.5]],
            "hidden.recurrent.weight": [[0, 0.25, 0], [0, 0, 0.25], [-0.25, 0, 0]],
            "last.weight": [[1, 0, 0.75], [0, 1, 0.75]],
        },
        **task(2, 4, ["left", "right"], coding, **own),
    )


NETWORKS = {coding: memory(coding) for coding in ("spikes", "current", "direct", "rate")}


@dataclass(frozen=True)
class Session:
    """What one session is sent: pieces of entries, from number `first` on; `moves` asks for its state at the end.

    An entry is a step's events or values, or a window's value where the model repeats or draws it.
    """

    model: str
    window: int
    pieces: Sequence[FloatArray]
    first: int = 0
    state: Any = None
    moves: bool = False
    seed: int = 0

    @property
    def query(self) -> str:
        return f"window_steps={self.window}" + f"&seed={self.seed}" * (self.model == "rate")

    def records(self) -> list[Records]:
        """Its pieces as event records, a step each millisecond."""
        starts = self.first + np.cumsum([0, *map(len, self.pieces)])
        places = [piece.nonzero() for piece in self.pieces]
        return [make_records(1000 * (start + t), unit) for start, (t, unit) in zip(starts, places, strict=False)]

    def binary(self) -> list[bytes]:
        """Its pieces as a body or binary messages have them."""
        pieces = self.records() if self.model == "spikes" else [piece.astype("<f4") for piece in self.pieces]
        return [piece.tobytes() for piece in pieces]

    def messages(self) -> list[Line]:
        """All of it as messages."""
        said: list[Line] = [{"type": "state", "state": self.state}] if self.state else []
        if self.model == "spikes":
            events = [{"t": each["t"].tolist(), "unit": each["x"].tolist()} for each in self.records()]
            said += [{"type": "events"} | each for each in events]
        else:
            said += [{"type": "values", "values": piece.tolist()} for piece in self.pieces]
        return said + [{"type": "state"}] * self.moves


def in_one_go(session: Session) -> Counts:
    """Return the counts at the end of each window, as the reference engine has them in one run of all pieces."""
    entries, window = np.concatenate(session.pieces), session.window
    network = NETWORKS[session.model]
    if session.model == "spikes":  # its last window is whole, silent at the end
        entries = np.concatenate([entries, np.zeros((-len(entries) % window, 2), np.float32)])
    if session.model == "rate":
        inputs = encode(entries[:1], network.spec, window * len(entries), session.seed)
    elif session.model == "direct":
        inputs = encode(np.repeat(entries, window, axis=0)[np.newaxis], NETWORKS["current"].spec)
    else:
        inputs = encode(entries[np.newaxis], network.spec)
    (raster,) = ReferenceEngine(network).run(inputs, record=Record.RASTER)[0].rasters["out"].swapaxes(0, 1)
    ends = [*range(window, len(raster), window), len(raster)]
    return [raster[:end].sum(axis=0).tolist() for end in ends]


Way = Callable[[Process, Session], tuple[Counts, Any]]


def told(lines: Sequence[Line], session: Session) -> tuple[Counts, Any]:
    """Return the counts that lines tell, up to the state where that was asked for, and the state."""
    kinds = [line["type"] for line in lines]
    end = kinds.index("state") if session.moves else len(lines) - 1
    assert set(kinds[:end]) <= {"window"}, lines
    assert kinds[end] == ("state" if session.moves else "end"), lines
    return [line["spike_counts"] for line in lines[:end]], lines[end].get("state")


def post(server: Process, model: str, query: str, content: Any, kind: str = NDJSON) -> list[Line]:
    """Return the lines that a body is answered with."""
    url = f"{server.url}/models/{model}/stream?{query}"
    answer = httpx.post(url, content=content, headers={"content-type": kind}, timeout=60)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def converse(server: Process, model: str, query: str, messages: Sequence[str | bytes]) -> list[Line]:
    """Return the lines that messages of a WebSocket are answered with, up to its end, which may be an error."""
    lines: list[Line] = []
    url = f"ws{server.url.removeprefix('http')}/models/{model}/stream?{query}"
    with suppress(ConnectionClosedError), connect(url) as connection:
        with suppress(ConnectionClosedError):  # an error may end it before the last message is sent
            for message in (*messages, '{"type": "end"}'):
                connection.send(message)
        lines.extend(json.loads(line) for line in connection)
    return lines


def a_body_of_bytes(server: Process, session: Session) -> tuple[Counts, Any]:
    whole = b"".join(session.binary())
    pieces = iter([whole[:5], whole[5:21], b"", whole[21:]])  # cut within an event too
    kind = RECORDS if session.model == "spikes" else "application/octet-stream"
    return told(post(server, session.model, session.query, pieces, kind), session)


def a_body_of_messages(server: Process, session: Session) -> tuple[Counts, Any]:
    body = "\n".join(map(json.dumps, session.messages()))
    return told(post(server, session.model, session.query, body), session)


def a_websocket_of_bytes(server: Process, session: Session) -> tuple[Counts, Any]:
    first, last = replace(session, pieces=(), moves=False), replace(session, pieces=(), state=None)
    said: list[str | bytes] = [*map(json.dumps, first.messages()), *session.binary(), *map(json.dumps, last.messages())]
    return told(converse(server, session.model, session.query, said), session)


def a_websocket_of_messages(server: Process, session: Session) -> tuple[Counts, Any]:
    return told(converse(server, session.model, session.query, list(map(json.dumps, session.messages()))), session)


def the_client(server: Process, session: Session) -> tuple[Counts, Any]:
    own: dict[str, Any] = {"seed": session.seed} if session.model == "rate" else {}
    with (
        Client(server.url) as client,
        client.resume(session.state)
        if session.state
        else client.session(model=session.model, window_steps=session.window, **own) as opened,
    ):
        for piece in session.records() if session.model == "spikes" else session.pieces:
            opened.send(piece)
        windows = list(opened) if session.moves else opened.end()
        state = SessionState.from_json(opened.state().to_json()) if session.moves else None
        return [window.spike_counts for window in windows], state


def sequence_parts(session: Session) -> Iterator[tuple[FloatArray, dict[str, Any]]]:
    """Yield a slice for each window, a partial one at the end alone, and the parameters that it has."""
    entries, window, number = np.concatenate(session.pieces), session.window, next(ids)
    if session.model == "spikes" and not session.moves:  # its last window is whole, silent at the end
        entries = np.concatenate([entries, np.zeros((-len(entries) % window, 2), np.float32)])
    per_step = session.model in ("spikes", "current")
    size = window if per_step else 1
    whole = len(entries) // size * size if session.moves else len(entries)
    for start in range(0, whole, size):
        ends = start + size >= whole
        own: dict[str, Any] = {"sequence_start": True} if start == 0 else {}
        own |= {"sequence_state": session.state} if start == 0 and session.state else {}
        own |= {"sequence_end": True} if ends else {}
        own |= {"sequence_state": True} if ends and session.moves and "sequence_state" not in own else {}
        own |= {} if per_step else {"time_steps": window, "seed": session.seed}
        yield (
            entries[np.newaxis, start : start + window] if per_step else entries[[start]],
            {"sequence_id": number, **own},
        )


def sequences(server: Process, session: Session) -> tuple[Counts, Any]:
    counts, state = [], session.state
    for values, own in sequence_parts(session):
        tensor = {"name": "inputs", "shape": values.shape, "datatype": "FP32", "data": values.ravel().tolist()}
        answer = httpx.post(
            f"{server.url}/v2/models/{session.model}/infer", json={"inputs": [tensor], "parameters": own}, timeout=60
        ).json()
        (found,) = [each["data"] for each in answer["outputs"] if each["name"] == "spike_counts"]
        counts.append(found)
        state = answer.get("parameters", {}).get("sequence_state")
    return counts, state


def grpc_sequences(server: Process, session: Session) -> tuple[Counts, Any]:
    state = session.state
    with Rpc(server) as rpc:
        asked = [infer_request(values, session.model, parameters=own) for values, own in sequence_parts(session)]
        answers = [each.infer_response for each in rpc.stream(asked)]
    if answers and session.moves:
        state = answers[-1].parameters["sequence_state"].string_param
    return [outputs(answer)["spike_counts"][0] for answer in answers], state


@cache
def model_of(server: Process, name: str) -> LoadedModel:
    root = next(entry["repository"] for entry in server.entries if entry["event"] == "listening")
    settings = Settings(repository=Path(root), threads=1)
    return LoadedModel.load(name, 1, settings, verify(name, 1, settings))


def run_lines(server: Process, model: str, query: str, source: Any) -> list[Line]:
    """Return the lines that `spikeserve run --window` writes."""
    lines: list[bytes] = []
    settings = Settings(threads=1)
    answer_stream(model_of(server, model), StreamOptions.read(query.encode()), source, lines.extend, settings)
    return list(map(json.loads, lines))


def the_command_run(server: Process, session: Session) -> tuple[Counts, Any]:
    if session.moves or session.state:
        return told(run_lines(server, session.model, session.query, map(json.dumps, session.messages())), session)
    content = io.BufferedReader(io.BytesIO(b"".join(session.binary())))
    return told(run_lines(server, session.model, session.query, content), session)


WAYS: dict[str, tuple[Way, Sequence[str]]] = {  # and the models that it takes
    "a body of bytes": (a_body_of_bytes, list(NETWORKS)),
    "a body of messages": (a_body_of_messages, list(NETWORKS)),
    "a WebSocket of bytes": (a_websocket_of_bytes, list(NETWORKS)),
    "a WebSocket of messages": (a_websocket_of_messages, list(NETWORKS)),
    "the client": (the_client, list(NETWORKS)),
    "sequences": (sequences, list(NETWORKS)),
    "sequences of gRPC": (grpc_sequences, list(NETWORKS)),
    "spikeserve run --window": (the_command_run, list(NETWORKS)),
}
