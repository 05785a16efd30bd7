"""Ways to put several processes behind one address, each run until its `with` block ends."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO

from benchmarks.processor import Processes, below, called, command_line, of_group
from benchmarks.serving.processes import free_port, running
from spikeserve.models.bundle.repository import PRETRAINED

READY = "/health/ready"
RAYS_HAPROXY = "haproxy-serve"  # the folder of its configuration
RAY_WITH_HAPROXY = {"Ray with HAProxy": {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}}


@dataclass(frozen=True)
class Layout:
    """A number of serving processes, reached at `url`; `servers` and `between` are the processes whose time counts.

    `between` are those of a proxy, none where clients ask the server itself.
    """

    url: str
    servers: Processes
    between: Processes


Run = Callable[[], AbstractContextManager[Layout]]


def layouts(replicas: tuple[int, ...], *, all_addresses: bool) -> dict[str, Run]:
    """Return every layout by its name; the first is one process that clients ask themselves.

    Those that listen on addresses other than the loopback, since Ray's HAProxy does with its statistics, are there with
    `all_addresses` only.
    """
    found: dict[str, Run] = {"one process": partial(workers, 1)}
    found |= {f"--workers {count}": partial(workers, count) for count in replicas if count > 1}
    found |= {f"HAProxy, {count} replica{'s' * (count > 1)}": partial(behind_haproxy, count) for count in replicas}
    if find_spec("ray"):
        for proxy, environment in {"Ray's proxy": {}, **(RAY_WITH_HAPROXY if all_addresses else {})}.items():
            found |= {
                f"{proxy}, {count} replica{'s' * (count > 1)}": partial(on_ray, count, environment)
                for count in replicas
            }
    return found


@contextmanager
def workers(count: int) -> Iterator[Layout]:
    """Run one server, of so many workers that share its port."""
    with TemporaryFile("w+") as log, _server(log, "--workers", str(count)) as (url, group):
        yield Layout(url, group, ())


@contextmanager
def behind_haproxy(count: int) -> Iterator[Layout]:
    """Run so many servers behind HAProxy, which gives each request to the one with the fewest."""
    with ExitStack() as stack:
        log = stack.enter_context(TemporaryFile("w+"))
        servers = [stack.enter_context(_server(log)) for _ in range(count)]
        port, folder = free_port(), Path(stack.enter_context(TemporaryDirectory()))
        (folder / "haproxy.cfg").write_text(_configuration(port, [url for url, _ in servers]))
        command = ["haproxy", "-db", "-f", str(folder / "haproxy.cfg")]
        proxy = stack.enter_context(running(command, port, log, READY))
        stack.enter_context(proxy.awake())
        yield Layout(proxy.url, tuple(each for _, group in servers for each in group), of_group(proxy.process.pid))


@contextmanager
def on_ray(count: int, environment: dict[str, str]) -> Iterator[Layout]:
    """Run so many replicas on Ray Serve; `between` are its proxy and all else that Ray runs."""
    port = free_port()
    command = ["env", *(f"{name}={value}" for name, value in environment.items())]
    command += [sys.executable, "-m", "benchmarks.scale.ray_replicas", str(count), str(port)]
    before = called(RAYS_HAPROXY)
    try:
        with TemporaryFile("w+") as log, running(command, port, log, READY) as ray, ray.awake():
            processes = {*below(ray.process.pid), *called(RAYS_HAPROXY)} - set(before)  # HAProxy is nobody's child
            replicas = tuple(each for each in processes if "ServeReplica" in command_line(each))
            if len(replicas) != count:
                raise RuntimeError(f"Ray runs {len(replicas)} replicas, expected {count}")
            yield Layout(ray.url, replicas, tuple(processes - set(replicas)))
    finally:
        for each in set(called(RAYS_HAPROXY)) - set(before):  # Ray leaves it behind
            os.kill(each, signal.SIGTERM)


def _configuration(port: int, urls: list[str]) -> str:
    lines = [
        "global",
        "  nbthread 1",
        "defaults",
        "  mode http",
        "  timeout connect 1s",
        "  timeout client 1m",
        "  timeout server 1m",
        "frontend clients",
        f"  bind 127.0.0.1:{port}",
        "  default_backend replicas",
        "backend replicas",
        "  balance leastconn",
        *(f"  server replica{index} {url.removeprefix('http://')}" for index, url in enumerate(urls)),
    ]
    return "\n".join([*lines, ""])


@contextmanager
def _server(log: IO[str], *flags: str) -> Iterator[tuple[str, Processes]]:
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "spikeserve.service",
        "--port",
        str(port),
        "--threads",
        "1",
        "--log-level",
        "error",
    ]
    with running([*command, "--repository", str(PRETRAINED), *flags], port, log, READY) as server, server.awake():
        yield server.url, of_group(server.process.pid)
