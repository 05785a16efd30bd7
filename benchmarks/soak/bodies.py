"""The bodies soak: mutated bodies of every kind but JSON of predict, and mutated frames of WebSockets.

Event records, arrays, streams of messages and of records, states of sessions and of sequences. None
may get a 5xx that is not meant, take the server long, or change what a sound client is answered beside it.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from websockets.frames import Frame, Opcode

from benchmarks.serving.processes import Server
from benchmarks.soak.client import NoAnswer, post
from benchmarks.soak.figures import Figure
from benchmarks.soak.hostile import mutated
from benchmarks.soak.networks import SMALL
from benchmarks.soak.questions import is_exact, questions, wrong
from benchmarks.soak.scale import MEANT, Scale, Tick, connect
from spikeserve.models.spec import Coding
from tests.bundles import publish
from tests.networks import toy
from tests.service.http.recordings import camera, npy, records, structured

REFUSED = frozenset({400, 413, 415, 422})
CLIENTS = 8
FRAMES_EVERY = 4  # one request in so many is frames of a WebSocket
SECONDS = 10.0  # the most that an answer is waited for
FIRST_BYTES = 2**20  # of an answer that are looked at
NDJSON, RECORDS = "application/x-ndjson", "application/vnd.spikeserve.events"
HANDSHAKE = (
    "GET /models/camera/stream HTTP/1.1\r\nHost: soak\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
MESSAGES: tuple[object, ...] = (
    {"type": "events", "t": [1000, 1500, 12_000], "x": [3, 0, 5], "y": [2, 7, 1], "p": [1, 0, 1]},
    {"type": "time", "t": 30_000},
    {"type": "state"},
    {"type": "end"},
)


@dataclass(frozen=True)
class Sound:
    """A sound body and where it goes; a `streamed` answer ends with its connection."""

    name: str
    path: str
    body: bytes
    kind: str
    streamed: bool = False


def publish_bodies(folder: Path, _: Scale) -> None:
    """Write the small model, a camera's and one of values for each step into a repository."""
    SMALL.publish(folder)
    publish(folder, camera(), "camera")
    publish(folder, toy(Coding.CURRENT), "values")


async def bodies(server: Server, scale: Scale, tick: Tick) -> list[Figure]:
    """Send mutated bodies over several connections, with a sound request after each."""
    asked = questions(SMALL, 32)
    sounds = [*_usual(), *await _states(server)]
    statuses: Counter[int] = Counter()
    seen: Counter[str] = Counter()
    total = scale.hostile // 4
    left = iter(range(total))

    async def client(seed: int) -> None:
        rng = random.Random(seed)  # noqa: S311  (the same requests each time)
        async with connect(server) as connection:
            for number in left:
                if number % FRAMES_EVERY == 1:
                    seen["frames"] += 1
                    seen["sockets that stayed open"] += not await _frames(server, rng)
                else:
                    sound = rng.choice(sounds)
                    status = await _sent(server, sound, mutated(sound.body, rng))
                    statuses[status] += 1
                    seen["unmeant"] += status >= 500 and status not in MEANT
                    seen["not listed"] += status not in {200, *REFUSED, *MEANT}
                    if status not in {200, *REFUSED, *MEANT}:
                        seen[f"{status} for {sound.name}"] += 1
                question = rng.choice(asked)
                answer = await connection.ask(question.request)
                seen["wrong beside"] += answer.status != 200 or not is_exact(question, answer.body)
                tick((statuses.total() + seen["frames"]) / total)

    await asyncio.gather(*(client(seed) for seed in range(CLIENTS)))
    name = "bodies"
    return [
        Figure(name, "kinds of bodies", len(sounds)),
        Figure(name, "mutated bodies", statuses.total()),
        Figure(name, "mutated frames of WebSockets", seen["frames"]),
        Figure(name, "5xx but the meant 503 and 504", seen["unmeant"], at_most=0),
        Figure(name, "ended without an answer, or with another status", seen["not listed"], at_most=0),
        *(Figure(name, what, count) for what, count in sorted(seen.items()) if " for " in what),
        Figure(name, "WebSockets that stayed open", seen["sockets that stayed open"], at_most=0),
        *(Figure(name, f"answers {status}", count) for status, count in sorted(statuses.items())),
        Figure(name, "wrong answers to sound requests beside them", seen["wrong beside"], at_most=0),
        Figure(name, "wrong answers afterwards", await wrong(server, asked), at_most=0),
    ]


def _usual() -> Iterator[Sound]:
    """Yield bodies without a state."""
    predict, stream = "/models/camera/predict", "/models/camera/stream"
    yield Sound("records", predict, records(), RECORDS)
    yield Sound("an array of events", predict, structured(), "application/x-npy")
    raster = np.zeros((1, 3, 2, 12, 10), np.float32)
    yield Sound("an array", predict, npy(raster), "application/x-npy")
    yield Sound("a stream of records", stream, records(), RECORDS, streamed=True)
    messages = "\n".join(map(json.dumps, MESSAGES)).encode()
    yield Sound("a stream of messages", stream, messages, NDJSON, streamed=True)
    values = b'{"type": "values", "values": [[0, 1], [2.5, 3], [4, 5]]}\n{"type": "state"}'
    yield Sound("a stream of values", "/models/values/stream?window_steps=2", values, NDJSON, streamed=True)
    numbers = np.arange(6, dtype="<f4").tobytes()
    octets = "application/octet-stream"
    yield Sound("a stream of float32", "/models/values/stream", numbers, octets, streamed=True)


async def _states(server: Server) -> list[Sound]:
    """Return bodies with the state of a session, as a stream and as a sequence take it."""
    path, kind = "/models/camera/stream", NDJSON
    answer = await _to_the_end(server, post(path, json.dumps({"type": "state"}).encode(), {"Content-Type": kind}))
    line = next(line for line in answer.splitlines() if b'"state"' in line)
    state = json.loads(line)["state"]
    tensor = {"name": "inputs", "shape": [1, 1, 2, 12, 10], "datatype": "FP32", "data": [0] * 240}
    sequence = {"sequence_id": 1, "sequence_start": True, "sequence_end": True, "sequence_state": state}
    infer = {"inputs": [tensor], "parameters": sequence}
    message = json.dumps({"type": "state", "state": state}).encode()
    return [
        Sound("a state", path, message, kind, streamed=True),
        Sound("a state of v2", "/v2/models/camera/infer", json.dumps(infer).encode(), "application/json"),
    ]


async def _sent(server: Server, sound: Sound, body: bytes) -> int:
    """Send a body over a connection of its own, and return the status; 0 where there is none."""
    request = post(sound.path, body, {"Content-Type": sound.kind})
    try:
        if sound.streamed:
            return int((await _to_the_end(server, request))[9:12] or b"0")
        async with connect(server) as connection:
            return (await connection.ask(request)).status
    except (NoAnswer, OSError, TimeoutError):
        return 0


async def _to_the_end(server: Server, request: bytes, *, leaves: bool = False) -> bytes:
    """Send a request, end the connection on this side if it `leaves`, and return the first of all that comes."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    content = b""
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        async with asyncio.timeout(SECONDS):
            writer.write(request)
            if leaves:
                writer.write_eof()
            while part := await reader.read(2**16):
                content = (content + part)[:FIRST_BYTES]
    except TimeoutError:
        if leaves or not content:  # else it is a stream with a late event, which closes up to 100,000 windows
            raise
    finally:
        writer.transport.abort()
    return content


async def _frames(server: Server, rng: random.Random) -> bool:
    """Send mutated frames, and return whether the server ends the connection, once this side has ended."""
    frames = [Frame(Opcode.BINARY, records())] + [
        Frame(Opcode.TEXT, json.dumps(each).encode()) for each in MESSAGES[1:]
    ]
    content = b"".join(frame.serialize(mask=True) for frame in frames)
    try:
        answer = await _to_the_end(server, HANDSHAKE.encode() + mutated(content, rng), leaves=True)
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return answer.startswith(b"HTTP/1.1 101")
