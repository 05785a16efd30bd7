"""The live soak: sessions of clients that connect, stall, flood, send nonsense, vanish and resume, side by side.

Every stream is known beforehand, and so is the answer to each of its windows: those of one run of the reference engine.
At the end the server drains, and hands every state back.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import WebSocketException

from benchmarks.live.clients import opened
from benchmarks.live.networks import NETWORKS, WINDOW_US
from benchmarks.serving.processes import Server
from benchmarks.soak.figures import Figure, percentile
from benchmarks.soak.networks import SMALL
from benchmarks.soak.scale import Scale, Tick
from benchmarks.soak.watch import LIVE_MILLISECONDS, watching
from spikeserve.models.coding.records import Records, binner
from spikeserve.models.engines.reference import ReferenceEngine

SERVED = NETWORKS[0]
CLIENTS, STREAMS, WINDOWS, EVENTS = 64, 8, 40, 60
GROWTH_PERCENT = 20.0  # target: the memory after the soak, beside that after its first tenth
LIVE_FLAGS = ("--session-idle-seconds", "3")
NONSENSE: Sequence[str | bytes] = (
    "{",
    '{"type": "sing"}',
    b"1234567",
    "[]",
    '{"type": "time", "t": 99999999999999}',
    "\0",
)


@dataclass(frozen=True)
class Stream:
    """A stream, and the output spikes since its begin at the end of each window (windows, classes)."""

    records: Records
    counts: NDArray[np.int64]


def publish_streamed(folder: Path, _: Scale) -> None:
    """Write the models into a repository."""
    SMALL.publish(folder)
    SERVED.publish(folder)


def streams() -> list[Stream]:
    """Return the streams with their answers."""
    network, found = SERVED.network, []
    events = network.spec.input.events
    if events is None:
        raise AssertionError
    engine = ReferenceEngine(network)
    for seed in range(STREAMS):
        records, state, counts = SERVED.events(WINDOWS, EVENTS, seed), None, []
        for number in range(WINDOWS):
            of_window = binner(events).between(records, records["t"].astype(np.int64), number * WINDOW_US, 1)
            result, state = engine.run(of_window.inputs(network.spec, 1), state)
            counts.append(result.spike_counts[0])
        found.append(Stream(records, np.array(counts)))
    return found


class Client:
    """A client that does one thing after another, and compares every line with what it knows."""

    def __init__(self, server: Server, known: Sequence[Stream], seed: int, seen: Counter[str]) -> None:
        self.server = server
        self.known = known
        self.rng = np.random.default_rng(seed)
        self.seen = seen

    async def live(self, until: float) -> None:
        """Do one thing after another."""
        while perf_counter() < until:
            act = self.rng.choice(
                ["steady", "flood", "resume", "nonsense", "vanish", "stall"], p=[0.3, 0.2, 0.2, 0.15, 0.1, 0.05]
            )
            try:
                async with asyncio.timeout(60):
                    await getattr(self, f"_{act}")()
                self.seen[act] += 1
            except (OSError, WebSocketException, TimeoutError) as error:
                self.seen[f"unanswered, {act}: {type(error).__name__}"] += 1

    def _check(self, stream: Stream, text: str | bytes) -> dict[str, Any]:
        line: dict[str, Any] = json.loads(text)
        if line["type"] == "window":
            self.seen["windows"] += 1
            self.seen["wrong windows"] += line["spike_counts"] != stream.counts[line["window"]].tolist()
        return line

    async def _send(self, connection: ClientConnection, records: Records, windows: range) -> None:
        """Send the events of some windows."""
        window = records["t"] // WINDOW_US
        await connection.send(records[(window >= windows.start) & (window < windows.stop)].tobytes())
        await connection.send(json.dumps({"type": "time", "t": windows.stop * WINDOW_US}))

    def _stream(self) -> Stream:
        return self.known[int(self.rng.integers(len(self.known)))]

    async def _steady(self) -> None:
        stream = self._stream()
        async with opened(self.server.url, SERVED.name) as connection:
            for number in range(WINDOWS):
                await self._send(connection, stream.records, range(number, number + 1))
                self._check(stream, await connection.recv())
            await connection.send(json.dumps({"type": "end"}))
            self.seen["wrong ends"] += json.loads(await connection.recv())["windows"] != WINDOWS

    async def _flood(self) -> None:
        stream = self._stream()
        async with opened(self.server.url, SERVED.name) as connection:
            await self._send(connection, stream.records, range(WINDOWS))
            for _ in range(WINDOWS):
                self._check(stream, await connection.recv())

    async def _resume(self) -> None:
        """Go on in another session after each few windows, from the state."""
        stream, state, done = self._stream(), None, 0
        while done < WINDOWS:
            more = min(WINDOWS - done, int(self.rng.integers(1, 12)))
            async with opened(self.server.url, SERVED.name) as connection:
                if state is not None:
                    await connection.send(json.dumps({"type": "state", "state": state}))
                await self._send(connection, stream.records, range(done, done + more))
                for _ in range(more):
                    self._check(stream, await connection.recv())
                await connection.send(json.dumps({"type": "state"}))
                state = json.loads(await connection.recv())["state"]
            done += more

    async def _nonsense(self) -> None:
        stream = self._stream()
        async with opened(self.server.url, SERVED.name) as connection:
            await self._send(connection, stream.records, range(3))
            await connection.send(NONSENSE[int(self.rng.integers(len(NONSENSE)))])
            kinds = []
            with suppress(WebSocketException):  # which the end is, after an error
                async for text in connection:
                    kinds.append(self._check(stream, text)["type"])  # noqa: PERF401  (what came before it counts)
            self.seen["nonsense without a sentence"] += kinds[3:] != ["state", "error"]

    async def _vanish(self) -> None:
        stream = self._stream()
        async with opened(self.server.url, SERVED.name) as connection:
            await self._send(connection, stream.records, range(WINDOWS))
            self._check(stream, await connection.recv())
            connection.transport.abort()

    async def _stall(self) -> None:
        """Send something and then nothing, until the server ends the session and hands its state back."""
        stream = self._stream()
        async with opened(self.server.url, SERVED.name) as connection:
            await self._send(connection, stream.records, range(2))
            kinds = [self._check(stream, text)["type"] async for text in connection]
            self.seen["stalled without a state"] += kinds[-1:] != ["state"]


async def drained(server: Server, known: Sequence[Stream]) -> int:
    """Let the server drain under open sessions; return how many of them were not handed their state."""
    connections = [await opened(server.url, SERVED.name) for _ in range(CLIENTS)]
    for number, connection in enumerate(connections):
        stream = known[number % len(known)]
        await connection.send(stream.records[stream.records["t"] < WINDOW_US].tobytes())
        await connection.send(json.dumps({"type": "time", "t": WINDOW_US}))
        await connection.recv()
    os.kill(server.process.pid, signal.SIGTERM)
    missing = 0
    for connection in connections:
        kinds = []
        with suppress(WebSocketException):
            kinds.extend([json.loads(text)["type"] async for text in connection])
        missing += kinds != ["state"]
    return missing


async def live(server: Server, scale: Scale, tick: Tick) -> list[Figure]:
    """Let 64 clients loose, and drain at the end."""
    known, seen = streams(), Counter[str]()
    began = perf_counter()
    until = began + scale.live_seconds
    first = 0.0

    def weigh() -> None:
        nonlocal first
        tick(min(1.0, (perf_counter() - began) / scale.live_seconds))
        if not first and perf_counter() - began > scale.live_seconds / 10:
            first = server.resident_megabytes

    async with watching(server, weigh) as watched:
        await asyncio.gather(*(Client(server, known, seed, seen).live(until) for seed in range(CLIENTS)))
    after = server.resident_megabytes
    unanswered = sum(count for what, count in seen.items() if what.startswith("unanswered"))
    missing = await drained(server, known)
    counts = [Figure("live", what, seen[what]) for what in ("steady", "flood", "resume", "nonsense", "vanish", "stall")]
    wrong = ("wrong windows", "wrong ends", "nonsense without a sentence", "stalled without a state")
    return [
        *counts,
        Figure("live", "windows", seen["windows"]),
        *(Figure("live", what, seen[what], at_most=0) for what in wrong),
        Figure("live", "sessions that were cut off", unanswered, at_most=0),
        Figure("live", "live p99", percentile(watched.milliseconds, 99), "ms", at_most=LIVE_MILLISECONDS),
        Figure("live", "memory after the first tenth", first, "MB"),
        Figure("live", "memory at the end, over it", 100 * (after / first - 1), "%", at_most=GROWTH_PERCENT),
        Figure("live", "sessions that a drain gave no state", missing, at_most=0),
    ]
