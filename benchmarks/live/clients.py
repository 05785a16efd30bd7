"""Clients of sessions: one that sends as fast as it is read from, and some that send a window every 10 ms.

They speak the service's protocol: event records as bytes, the time as a message, and a line for each window. The
servers that are compared with it answer the same.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.live.networks import WINDOW_US
from spikeserve.models.coding.records import Records

MESSAGE = 4096  # events of a message, where a client sends all that it has


@dataclass(frozen=True)
class Flood:
    """A stream that was sent as fast as it was taken: the seconds to the last line, and that line."""

    seconds: float
    windows: int
    last: dict[str, Any]


def opened(url: str, model: str) -> connect:
    """Return a client's connection to a model's stream."""
    address = f"ws{url.removeprefix('http')}/models/{model}/stream"
    return connect(address, compression=None, max_size=None, open_timeout=60, ping_interval=None)


async def flood(url: str, model: str, records: Records, windows: int) -> Flood:
    """Send a stream, and read its lines meanwhile."""
    async with opened(url, model) as connection:
        began = perf_counter()

        async def send() -> None:
            for start in range(0, len(records), MESSAGE):
                await connection.send(records[start : start + MESSAGE].tobytes())
            await connection.send(json.dumps({"type": "time", "t": windows * WINDOW_US}))

        sending = asyncio.create_task(send())
        line = b""
        for _ in range(windows):
            line = await connection.recv(decode=False)
        seconds = perf_counter() - began
        await sending
        return Flood(seconds, windows, json.loads(line))


async def paced(url: str, model: str, streams: list[Records], windows: int) -> list[float]:
    """Send a window every 10 ms in each of some sessions; return the lag of each, in seconds.

    The lag is from the message that closes a window to its line. The sessions begin at random moments of a window, as
    sensors do that know nothing of each other.
    """
    period = WINDOW_US * 1e-6
    rng = np.random.default_rng(1)
    connections = [await opened(url, model) for _ in streams]
    start = perf_counter() + 0.2

    async def one(connection: ClientConnection, records: Records) -> list[float]:
        window = records["t"] // WINDOW_US
        parts = [records[window == number].tobytes() for number in range(windows)]
        phase, lags = rng.random() * period, []
        for number, part in enumerate(parts):
            await asyncio.sleep(max(0.0, start + phase + (number + 1) * period - perf_counter()))
            await connection.send(part)
            sent = perf_counter()
            await connection.send(json.dumps({"type": "time", "t": (number + 1) * WINDOW_US}))
            await connection.recv(decode=False)
            lags.append(perf_counter() - sent)
        return lags

    try:
        found = await asyncio.gather(*(one(*each) for each in zip(connections, streams, strict=True)))
    finally:
        await asyncio.gather(*(connection.close() for connection in connections))
    return [lag for lags in found for lag in lags[1:]]
