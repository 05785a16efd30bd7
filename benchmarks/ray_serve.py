"""Measure replicas of Ray Serve beside one plain server: requests a second, and what Ray's proxy adds to each.

    .venv/bin/python -m benchmarks.ray_serve --seconds 4 --rounds 2 --json ray.json

needs `wrk` (Debian's package) on PATH and the extra ray. The digits model, one sample a request, on the loopback. The
plain server and the replicas are measured in turns, and of several rounds the median counts; the load comes from the
same machine and shares its cores, as do Ray's proxy and controller. The plain server is held still while the replicas
are measured. Ray cannot be held still: what its processes take while nobody asks is in the plain server's figures too.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.serving.load import Load, load
from benchmarks.serving.processes import ask, free_port, running
from models.bundle.repository import PRETRAINED
from service.batch.cluster import connected

REPLICAS = (1, 2, 4)
CONNECTIONS = (1, 16)
SERVE_SECONDS = 120  # that a deployment may take until it answers
BODY = json.dumps({"inputs": [[float(value % 17) for value in range(64)]]}).encode()
PATH = "/predict"
PLAIN = "spikeserve serve"


@dataclass(frozen=True)
class Row:
    """One line of the table: a server at a number of connections."""

    server: str
    replicas: int
    connections: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    errors: int


def measure(
    seconds: int = 4, rounds: int = 2, replicas: Sequence[int] = REPLICAS, connections: Sequence[int] = CONNECTIONS
) -> list[Row]:
    """Return a row for the plain server and for each number of replicas, at each number of connections.

    Raises RuntimeError where a server does not start, or another answer comes by way of Ray than without it.
    """
    found: dict[tuple[str, int, int], list[Load]] = {}
    flags = ["--threads", "1", "--repository", str(PRETRAINED)]
    with tempfile.TemporaryFile("w+") as log, connected(max(replicas) + 2):
        from ray import serve  # after `connected`, which sets what it reads at import

        from deploy.ray.serving import deployment
        from service.process.flags import read_settings

        port, proxy = free_port(), free_port()
        command = [sys.executable, "-m", "spikeserve", "serve", "--port", str(port), *flags]
        with running(command, port, log, PATH, BODY) as plain:
            with plain.awake():
                expected = ask(plain.url + PATH, BODY)
            serve.start(http_options={"host": "127.0.0.1", "port": proxy})
            url = f"http://127.0.0.1:{proxy}{PATH}"
            try:
                for count in replicas:
                    app = deployment(read_settings(flags)).options(num_replicas=count, max_ongoing_requests=64)
                    quiet = {"enable_access_log": False, "log_level": "ERROR"}
                    serve.run(app.bind(), route_prefix="/", logging_config=quiet)
                    _wait_for(url, expected)
                    for _ in range(rounds):
                        for clients in connections:
                            with plain.awake():
                                one = load(plain.url + PATH, BODY, clients, seconds)
                            found.setdefault((PLAIN, 1, clients), []).append(one)
                            other = load(url, BODY, clients, seconds)
                            found.setdefault(("Ray Serve", count, clients), []).append(other)
            finally:
                serve.shutdown()
    return [_row(*key, loads) for key, loads in found.items()]


def _wait_for(url: str, expected: bytes) -> None:
    end = time.monotonic() + SERVE_SECONDS
    while True:
        try:
            answer = ask(url, BODY)
            break
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
    if answer != expected:
        raise RuntimeError(f"Ray Serve answers {answer[:200]!r}, expected {expected[:200]!r}")


def _row(server: str, replicas: int, connections: int, loads: Sequence[Load]) -> Row:
    return Row(
        server,
        replicas,
        connections,
        median(each.requests_per_second for each in loads),
        median(each.p50_ms for each in loads),
        median(each.p99_ms for each in loads),
        sum(each.errors for each in loads),
    )


def table(rows: Sequence[Row]) -> Table:
    """Return the rows as a table, each beside the plain server at as many connections."""
    plain = {row.connections: row for row in rows if row.server == PLAIN}
    titles = (
        "server",
        "processes",
        "connections",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "of plain",
        "p50 more, ms",
        "errors",
    )
    shown = Table(*titles)
    for row in sorted(rows, key=lambda row: (row.connections, row.server == PLAIN and -1, row.replicas)):
        beside = plain[row.connections]
        shown.add_row(
            row.server,
            str(row.replicas),
            str(row.connections),
            f"{row.requests_per_second:.0f}",
            f"{row.p50_ms:.2f}",
            f"{row.p99_ms:.2f}",
            f"{row.requests_per_second / beside.requests_per_second:.0%}",
            f"{row.p50_ms - beside.p50_ms:.2f}",
            str(row.errors),
        )
    return shown


def main(
    seconds: Annotated[int, typer.Option(min=1, help="How long each load takes.")] = 4,
    rounds: Annotated[int, typer.Option(min=1, help="How many times all are measured.")] = 2,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the rows to this file.")] = None,
) -> None:
    """Print the table."""
    rows = measure(seconds, rounds)
    Console(width=120).print(table(rows))
    if json_file:
        json_file.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
