"""How fast one server answers: `python -m benchmarks.serving`, which needs `wrk` (Debian's package) on PATH.

Starts the service on the bundles that ship, posts one real sample over 1, 16 and 64 connections for some seconds each,
and prints requests per second, latencies, the time from start to ready and the resident memory. The load comes from the
same machine, so that it and the server share the cores.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Annotated

import typer
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
CONNECTIONS = (1, 16, 64)


@dataclass(frozen=True)
class Load:
    """What one load came to: requests per second, milliseconds at two percentiles, and answers that were errors."""

    connections: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    errors: int


@contextmanager
def server(*arguments: str) -> Iterator[tuple[str, float, int]]:
    """Run `python -m service` on a free port; yield its URL, the seconds from start to ready, and its process id."""
    command = [sys.executable, "-m", "service", "--port", "0", *arguments]
    with tempfile.TemporaryFile("w+") as log:
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, stdout=log)
        try:
            port = _port(process, log)
            url = f"http://127.0.0.1:{port}"
            while not _is_ready(url):
                time.sleep(0.01)
            yield url, time.perf_counter() - began, process.pid
        finally:
            process.terminate()
            process.wait()


def _port(process: subprocess.Popen[bytes], log: IO[str]) -> int:
    """Return the port that the server's log says it listens on."""
    while process.poll() is None:
        log.seek(0)
        for line in log:
            if '"listening"' in line and line.endswith("\n"):
                return int(json.loads(line)["port"])
        time.sleep(0.01)
    raise RuntimeError("the server ended before it listened")


def _is_ready(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}/health/ready", timeout=10).close()  # noqa: S310
    except OSError:
        return False
    return True


def load(url: str, body: bytes, connections: int, seconds: int) -> Load:
    """Post `body` over and over on each connection for some seconds, by wrk."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "body.json").write_bytes(body)
        script = Path(folder) / "post.lua"
        script.write_text(
            f'wrk.method = "POST"\nwrk.body = io.open("{folder}/body.json"):read("*a")\n'
            'wrk.headers["Content-Type"] = "application/json"\n'
        )
        report = subprocess.run(
            ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", script, url],  # noqa: S607
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    errors = re.search(r"Non-2xx or 3xx responses: (\d+)", report)
    return Load(
        connections=connections,
        requests_per_second=float(_found(r"Requests/sec:\s+([\d.]+)", report)),
        p50_ms=_milliseconds(_found(r"\n\s+50%\s+(\S+)", report)),
        p99_ms=_milliseconds(_found(r"\n\s+99%\s+(\S+)", report)),
        errors=int(errors[1]) if errors else 0,
    )


def _found(pattern: str, report: str) -> str:
    match = re.search(pattern, report)
    if match is None:
        raise RuntimeError(f"wrk said nothing that matches {pattern}:\n{report}")
    return match[1]


def _milliseconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]


def resident_megabytes(process_id: int) -> float:
    """Return the memory that a process holds, in MB, from /proc."""
    status = Path(f"/proc/{process_id}/status").read_text()
    return int(_found(r"VmRSS:\s+(\d+)", status)) / 1024


def main(
    seconds: Annotated[int, typer.Option(help="Seconds of load at each number of connections.")] = 8,
    engine: Annotated[str, typer.Option(help="The service's engine.")] = "auto",
    output: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file as well.")] = None,
) -> None:
    """Measure one server of the shipped digits, one sample a request."""
    if shutil.which("wrk") is None:
        sys.exit("error: wrk is not installed; on Debian: apt-get install wrk")
    with server("--engine", engine) as (url, ready, process_id):
        document = json.load(urllib.request.urlopen(f"{url}/openapi.json", timeout=10))  # noqa: S310
        body = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["example"]
        content = json.dumps(body).encode()
        load(f"{url}/predict", content, 1, 1)  # let the processor find its pace
        loads = [load(f"{url}/predict", content, connections, seconds) for connections in CONNECTIONS]
        memory = resident_megabytes(process_id)
    table = Table(
        "connections", "requests/s", "p50 ms", "p99 ms", "errors", title=f"digits, {os.cpu_count()} cores, wrk"
    )
    for row in loads:
        table.add_row(*(f"{value:g}" for value in asdict(row).values()))
    console = Console()
    console.print(table)
    console.print(f"start to ready {ready:.2f} s, resident memory {memory:.0f} MB", highlight=False)
    if output:
        figures = {"ready_seconds": ready, "resident_megabytes": memory, "loads": [asdict(row) for row in loads]}
        output.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
