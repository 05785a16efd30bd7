"""It ends when it is told to: what it accepted is answered, what comes later is refused, and no process stays."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.service.asgi import slow, started
from tests.service.conftest import ROOT, Process, running
from tests.service.test_scheduler import LEFT, runs

BODY = json.dumps(LEFT).encode()


class Half:
    """A request whose headers and first byte were sent, and so is accepted, and whose rest was not."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        head = f"POST /predict HTTP/1.1\r\nHost: here\r\nContent-Length: {len(BODY)}\r\nExpect: 100-continue\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 100")  # so that it waits for the body now
        connection.sendall(BODY[:1])

    def finish(self) -> bytes:
        """Send the rest and return the answer."""
        self.connection.sendall(BODY[1:])
        return b"".join(iter(lambda: self.connection.recv(2**16), b""))


@contextmanager
def half_asked(service: Process) -> Iterator[Half]:
    address = urlsplit(service.url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        yield Half(connection)


def wait_until_draining(service: Process) -> httpx.Response:
    while (answer := httpx.get(f"{service.url}/health/ready")).status_code == 200:
        pass
    return answer


def test_what_was_accepted_is_answered_and_what_comes_later_is_503(repository: Path) -> None:
    with running(repository) as service, half_asked(service) as half:
        service.process.terminate()
        refused = [wait_until_draining(service), httpx.post(f"{service.url}/predict", json=LEFT)]
        assert httpx.get(f"{service.url}/health/live").status_code == 200
        answer = half.finish()
        assert service.ended() == 0
    assert answer.startswith(b"HTTP/1.1 200")
    assert b'"spike_counts":[3,0]' in answer
    for each in refused:
        assert (each.status_code, each.json()) == (503, {"error": "the server is shutting down"})
        assert int(each.headers["Retry-After"]) > 0


def test_a_terminal_that_closes_ends_it_as_well(repository: Path) -> None:
    with running(repository) as service, half_asked(service) as half:
        service.process.send_signal(signal.SIGHUP)
        wait_until_draining(service)
        assert half.finish().startswith(b"HTTP/1.1 200")
        assert service.ended() == 0


def catches(process: int, number: signal.Signals) -> bool:
    """Return whether a process has a handler for a signal; it is a bit of a mask in hexadecimal digits."""
    (caught,) = re.findall(r"SigCgt:\s*(\w+)", Path(f"/proc/{process}/status").read_text())
    return bool(int(caught, 16) >> (number - 1) & 1)


def test_a_signal_before_it_has_imported_anything_ends_it_well(repository: Path) -> None:
    command = [sys.executable, "-m", "service", "--port", "0", "--repository", str(repository)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while not catches(process.pid, signal.SIGTERM):
            assert process.poll() is None
        process.send_signal(signal.SIGSTOP)  # so that it gets no further while it is looked at
        assert "numpy" not in Path(f"/proc/{process.pid}/maps").read_text()
        process.terminate()
        process.send_signal(signal.SIGCONT)
        assert process.communicate(timeout=60) == (b"", b"")
    assert process.returncode == 0


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(repository: Path, second: signal.Signals) -> None:
    with running(repository) as service, half_asked(service):
        service.process.terminate()
        wait_until_draining(service)
        service.process.send_signal(second)
        assert service.ended() == 128 + second


def test_it_waits_no_longer_than_it_may(repository: Path) -> None:
    with running(repository, "--shutdown-seconds", "1") as service, half_asked(service):
        assert service.stop() == 0


def test_its_port_stays_open_for_as_long_as_load_balancers_need(repository: Path) -> None:
    with running(repository, "--drain-seconds", "1") as service:
        service.process.terminate()
        assert wait_until_draining(service).status_code == 503
        assert service.ended() == 0


@runs
async def test_it_is_not_ready_while_its_threads_are_stuck(repository: Path) -> None:
    async with started(repository, threads=1, stuck_seconds=0.01) as client:
        held = slow(client.model())
        asked = asyncio.create_task(client.post(LEFT))
        await held.begun()
        async with asyncio.timeout(60):
            while (ready := await client.get("/health/ready")).status == 200:
                await asyncio.sleep(0)
            assert ready.json == {"error": "the worker threads have given no sign of life for more than 0.01 s"}
            held.go_on.release()
            assert (await asked).status == 200
            while (await client.get("/health/ready")).status == 503:
                await asyncio.sleep(0)


@contextmanager
def two_workers(repository: Path, *flags: str) -> Iterator[tuple[Process, list[int]]]:
    with running(repository, "--workers", "2", *flags, until="listening") as service:
        for _ in range(2):
            service.wait_for("model_ready")
        yield service, [entry["worker"] for entry in service.entries if entry["event"] == "worker_started"]


def ask(service: Process) -> None:
    assert httpx.post(f"{service.url}/predict", json=LEFT).json()["predictions"][0]["spike_counts"] == [3, 0]


def test_a_killed_worker_is_replaced_and_no_other_request_fails(repository: Path) -> None:
    with two_workers(repository) as (service, workers):
        assert len(workers) == 2
        for worker in workers:  # both of the first ones, so that those in their place must answer
            os.kill(worker, signal.SIGKILL)
            ask(service)
            assert service.wait_for("worker_died")["worker"] == worker
            ask(service)
            assert service.wait_for("worker_started")["worker"] not in workers
            ask(service)
            service.wait_for("model_ready")
            for _ in range(10):
                ask(service)
        assert service.stop() == 0


def test_workers_finish_what_they_accepted_and_end_with_status_0(repository: Path) -> None:
    with two_workers(repository) as (service, _), half_asked(service) as half:
        service.process.terminate()
        answer = half.finish()
        assert service.ended() == 0
    assert answer.startswith(b"HTTP/1.1 200")


def test_a_second_signal_ends_all_workers_at_once(repository: Path) -> None:
    with two_workers(repository) as (service, _), half_asked(service):
        service.process.terminate()
        while True:  # the worker that is left is the one that was asked: it alone still accepts
            try:
                if httpx.get(f"{service.url}/health/ready").status_code == 503:
                    break
            except httpx.TransportError:
                continue
        service.process.terminate()
        assert service.ended() == 128 + signal.SIGTERM


def test_workers_do_not_outlive_the_process_that_started_them(repository: Path) -> None:
    with two_workers(repository) as (service, _):
        service.process.kill()
        assert service.ended() == -signal.SIGKILL  # the log ends when the last of them has
