"""Measure live sessions on the loopback: events a second on one core, lags, idle sessions; beside plain servers.

    ./scripts/bench-live --seconds 5 --json live.json

The server has one core and the client another, where the machine lets a process be bound to one. The servers that are
compared are up at once, all but the one that is measured held still. `spikingjelly` and `norse` are FastAPI with a
WebSocket around the same network, see `benchmarks.live.peers.server`; they are left out where they are not installed.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.live.clients import flood, opened, paced
from benchmarks.live.networks import NETWORKS, Streamed
from benchmarks.machine import machine
from benchmarks.serving.processes import Server, free_port, running
from benchmarks.soak.figures import Figure, percentile

PER_WINDOW = {"nmnist-shape": 500, "gesture-shape": 10_000}  # events; 10,000 in 10 ms are a million a second
SESSIONS = {
    1: 2.0,
    8: 5.0,
    64: 20.0,
}  # how many at once, and the most that the 99th percentile of the lag may be, in ms
IDLE = 1000
RATE = 1e6  # events a second, at least
FLOOD_WINDOWS = 300


@dataclass(frozen=True)
class Row:
    """A figure of one server."""

    server: str
    figure: Figure


@contextmanager
def servers(folder: Path, served: Streamed) -> Iterator[dict[str, Server]]:
    """Run ours and the others, each on the first core."""
    served.publish(folder)
    bound = ["taskset", "-c", "0"] if (os.cpu_count() or 1) > 1 else []
    with ExitStack() as stack:

        def start(*program: str) -> Server:
            log = stack.enter_context(tempfile.TemporaryFile("w+"))
            port = int(program[-1])
            command = [*bound, sys.executable, *program]
            return stack.enter_context(running(command, port, log, "/health/ready"))

        flags = [
            "--repository",
            str(folder),
            "--threads",
            "1",
            "--max-sessions",
            "2000",
            "--max-client-share",
            "1",
            "--session-idle-seconds",
            "600",
        ]
        # What is measured is how many events it can take, and not how many it lets a session send.
        flags += ["--max-values", "16000000000"]
        found = {"spikeserve": start("-m", "spikeserve.service", *flags, "--port", str(free_port()))}
        for framework in ("spikingjelly", "norse"):
            if find_spec(framework):
                peer = ("-m", "benchmarks.live.peers.server", framework, served.name, str(free_port()))
                found[framework] = start(*peer)
        yield found


async def measure(name: str, server: Server, served: Streamed, seconds: float, *, idle: bool) -> list[Figure]:
    """Measure one server."""
    figures: list[Figure] = []
    count, ours = PER_WINDOW[served.name], name == "spikeserve"
    records = served.events(FLOOD_WINDOWS, count)
    with server.awake():
        await flood(server.url, served.name, records[: 20 * count], 20)
        before = server.cpu_seconds
        floods = [await flood(server.url, served.name, records, FLOOD_WINDOWS) for _ in range(3)]
        used = server.cpu_seconds - before
        best = min(floods, key=lambda each: each.seconds)
        rate = len(records) / best.seconds
        target = RATE if ours and served.side > 100 else None
        figures += [
            Figure(served.name, "events/s, best of 3", rate, at_least=target),
            Figure(served.name, "processor time per event", used / (3 * len(records)) * 1e9, "ns"),
            Figure(served.name, "class of the stream", float(best.last["class_index"])),
        ]
        windows = int(seconds * 100)
        for sessions, most in SESSIONS.items():
            few = max(1, count // 10) if sessions > 1 and served.side > 100 else count
            streams = [served.events(windows, few, seed) for seed in range(sessions)]
            lags = [1000 * each for each in await paced(server.url, served.name, streams, windows)]
            what = f"{sessions} session{'s' if sessions > 1 else ''}, {few} events a window: lag"
            figures += [
                Figure(served.name, f"{what} p50", percentile(lags, 50), "ms"),
                Figure(served.name, f"{what} p99", percentile(lags, 99), "ms", at_most=most if ours else None),
            ]
        if idle and ours:
            figures += await idle_sessions(server, served, windows)
    return figures


async def idle_sessions(server: Server, served: Streamed, windows: int) -> list[Figure]:
    """Open a thousand sessions that say nothing after their first window, and measure one beside them."""
    before = server.resident_megabytes
    stream = served.events(windows, PER_WINDOW[served.name])
    alone = await paced(server.url, served.name, [stream], windows)
    connections = []
    for number in range(IDLE):
        connection = await opened(server.url, served.name)
        connections.append(connection)
        await connection.send(served.events(1, 10, number).tobytes())
        await connection.send(json.dumps({"type": "time", "t": 10_000}))
        await connection.recv()
    held = server.resident_megabytes - before
    beside = await paced(server.url, served.name, [stream], windows)
    await asyncio.gather(*(connection.close() for connection in connections))
    return [
        Figure(served.name, f"memory of each of {IDLE} idle sessions", held * 1024 / IDLE, "KiB"),
        Figure(served.name, "lag p99 without them", 1000 * percentile(alone, 99), "ms"),
        Figure(served.name, "lag p99 beside them", 1000 * percentile(beside, 99), "ms"),
    ]


def table(rows: list[Row]) -> Table:
    """Return the figures as a person reads them, a column for each server."""
    names = list(dict.fromkeys(row.server for row in rows))
    shown = Table("network", "figure", "target", *names)
    for key in dict.fromkeys((row.figure.phase, row.figure.name) for row in rows):
        found = {row.server: row.figure for row in rows if (row.figure.phase, row.figure.name) == key}
        ours = found.get("spikeserve")
        missed = "" if ours is None or ours.met is not False else "  missed"
        shown.add_row(
            *key,
            "" if ours is None else ours.target + missed,
            *(found[name].shown if name in found else "" for name in names),
        )
    return shown


def main(
    seconds: Annotated[float, typer.Option(help="How long the sessions of each lag are paced.")] = 5.0,
    network: Annotated[list[str] | None, typer.Option(help="Only this network; may be repeated.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    idle: Annotated[bool, typer.Option(help="Whether to measure idle sessions.")] = True,
) -> None:
    """Measure live sessions."""
    console = Console(width=150)
    rows: list[Row] = []
    if (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {1})  # the client's core
    for served in NETWORKS:
        if network and served.name not in network:
            continue
        with tempfile.TemporaryDirectory() as folder, servers(Path(folder), served) as up:
            for name, server in up.items():
                rows += [Row(name, figure) for figure in asyncio.run(measure(name, server, served, seconds, idle=idle))]
    console.print(machine(("websockets", "torch", "spikingjelly", "norse")))
    console.print(table(rows))
    if json_file is not None:
        json_file.write_text(json.dumps([{"server": row.server, **asdict(row.figure)} for row in rows], indent=1))


if __name__ == "__main__":
    typer.run(main)
