"""The load: `wrk` on the same machine, one thread, a number of connections that each wait for their answer."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Load:
    """What one load came to: requests per second, milliseconds at two percentiles, and errors.

    An error is an answer of another status than 2xx, and a connection that failed or had no answer in time.
    """

    requests_per_second: float
    p50_ms: float
    p99_ms: float
    errors: int


def load(url: str, body: bytes, connections: int, seconds: int) -> Load:
    """Post `body` over and over on each connection for some seconds."""
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
    return read(report)


def read(report: str) -> Load:
    """Read a report of wrk. Raises RuntimeError where it has no rate or no percentiles."""
    sockets = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", report)
    statuses = re.search(r"Non-2xx or 3xx responses: (\d+)", report)
    return Load(
        requests_per_second=float(_found(r"Requests/sec:\s+([\d.]+)", report)),
        p50_ms=_milliseconds(_found(r"\n\s+50%\s+(\S+)", report)),
        p99_ms=_milliseconds(_found(r"\n\s+99%\s+(\S+)", report)),
        errors=sum(int(number) for match in (sockets, statuses) if match for number in match.groups()),
    )


def _found(pattern: str, report: str) -> str:
    match = re.search(pattern, report)
    if match is None:
        raise RuntimeError(f"wrk said nothing that matches {pattern}:\n{report}")
    return match[1]


def _milliseconds(text: str) -> float:
    match = re.fullmatch(r"([\d.]+)(us|ms|s|m|h)", text)
    if match is None:
        raise RuntimeError(f"wrk said '{text}', expected a time")
    return float(match[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 60e3, "h": 3600e3}[match[2]]
