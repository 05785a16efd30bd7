"""It ends on a signal: what it accepted is answered, what comes later is refused, and no process stays."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from spikeserve.service.process.server import UNFINISHED
from tests.bundles import publish
from tests.networks import toy
from tests.service.asgi import LEFT, busy, slow, started
from tests.service.processes import gone
from tests.serving import ROOT, Process, running

pytestmark = pytest.mark.usefixtures("reference_engine")

ONE = {"inputs": [[1, 0]]}
BODY = json.dumps(LEFT).encode()


class Half:
    """A request whose headers and first byte were sent, and so is accepted, and whose rest was not."""

    def __init__(self, connection: socket.socket, path: str, body: bytes) -> None:
        self.connection, self.body = connection, body
        head = f"POST {path} HTTP/1.1\r\nHost: here\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 100")  # so that it waits for the body now
        connection.sendall(body[:1])

    def finish(self) -> bytes:
        """Send the rest and return the answer."""
        self.connection.sendall(self.body[1:])
        return b"".join(iter(lambda: self.connection.recv(2**16), b""))


@contextmanager
def half_asked(service: Process, path: str = "/predict", body: bytes = BODY) -> Iterator[Half]:
    address = urlsplit(service.url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        yield Half(connection, path, body)


def wait_until_draining(service: Process) -> httpx.Response:
    while (answer := httpx.get(f"{service.url}/health/ready")).status_code == 200:
        pass
    return answer


def test_what_was_accepted_is_answered_and_what_comes_later_is_503(repository: Path) -> None:
    with running(repository) as service, half_asked(service) as half:
        service.process.terminate()
        refused = [
            wait_until_draining(service),
            httpx.post(f"{service.url}/predict", json=LEFT),
            httpx.post(f"{service.url}/v2/repository/models/toy/load"),
        ]
        assert httpx.get(f"{service.url}/health/live").status_code == 200
        answer = half.finish()
        assert service.ended() == 0
    assert answer.startswith(b"HTTP/1.1 200")
    assert b'"spike_counts":[3,0]' in answer
    for each in refused:
        assert (each.status_code, each.json()) == (503, {"error": "the server is shutting down"})
        assert int(each.headers["Retry-After"]) > 0
    assert sum(entry["event"] == "model_ready" for entry in service.entries) == 1


def test_a_request_that_comes_while_it_drains_keeps_no_port_open_and_is_answered(repository: Path) -> None:
    with running(repository) as service, half_asked(service) as accepted:
        service.process.terminate()
        wait_until_draining(service)
        with half_asked(service, "/v2/repository/index", b"{}") as later:
            assert accepted.finish().startswith(b"HTTP/1.1 200")
            with suppress(httpx.TransportError):
                while httpx.get(f"{service.url}/health/live"):
                    pass
            assert later.finish().startswith(b"HTTP/1.1 200")
        assert service.ended() == 0


async def test_clients_that_go_on_asking_have_a_last_answer_that_closes(repository: Path) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    requests = head % len(BODY) + BODY, b"GET /health/live HTTP/1.1\r\nHost: here\r\n\r\n"
    all_asked = asyncio.Barrier(33)  # a connection that was not accepted yet would be reset

    async def ask(request: bytes) -> None:
        reader, writer = await asyncio.open_connection(*urlsplit(service.url).netloc.split(":"))
        answer = b""
        while b"connection: close" not in answer:
            writer.write(request)
            if not answer:
                await reader.readuntil(b"200 OK")
                await all_asked.wait()
            answer = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(re.findall(rb"content-length: (\d+)", answer)[0]))
        writer.close()

    with running(repository, "--drain-seconds", "1") as service:  # in which they ask, on a busy machine as well
        async with asyncio.timeout(60), asyncio.TaskGroup() as clients:
            for request in requests * 16:
                clients.create_task(ask(request))
            await all_asked.wait()
            service.process.terminate()
        assert service.ended() == 0


@contextmanager
def hangups(what: signal.Handlers) -> Iterator[None]:
    """Have what is started in the block begin with SIGHUP as it is said here, and not as these tests were started."""
    before = signal.signal(signal.SIGHUP, what)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.fixture(autouse=True)
def _hangups_count() -> Iterator[None]:
    with hangups(signal.SIG_DFL):
        yield


def test_one_that_was_told_to_outlives_its_terminal_and_an_idle_connection_is_no_error(repository: Path) -> None:
    with (
        hangups(signal.SIG_IGN),  # as nohup has it
        running(repository, "--shutdown-seconds", "5") as service,
        httpx.Client(base_url=service.url) as client,
    ):
        service.process.send_signal(signal.SIGHUP)
        assert client.post("/predict", json=LEFT).status_code == 200
        assert service.stop() == 0
    assert errors(service) == []


def test_a_terminal_that_closes_ends_it_once_load_balancers_had_their_time(repository: Path) -> None:
    with running(repository, "--drain-seconds", "3") as service:
        service.process.send_signal(signal.SIGHUP)
        assert wait_until_draining(service).status_code == 503
        assert service.ended() == 0


def signals(process: int, mask: str) -> set[signal.Signals]:
    """Return which signals one of a process's masks has; each is a bit of a number in hexadecimal digits."""
    (bits,) = re.findall(rf"{mask}:\s*(\w+)", Path(f"/proc/{process}/status").read_text())
    return {number for number in signal.Signals if int(bits, 16) >> (number - 1) & 1}


def test_a_signal_before_it_has_imported_anything_ends_it_well(repository: Path) -> None:
    command = [sys.executable, "-m", "spikeserve.service", "--port", "0", "--repository", str(repository)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while signal.SIGTERM not in signals(process.pid, "SigCgt"):
            assert process.poll() is None
        process.send_signal(signal.SIGSTOP)  # so that it gets no further while it is looked at
        assert "numpy" not in Path(f"/proc/{process.pid}/maps").read_text()
        process.terminate()
        process.send_signal(signal.SIGCONT)
        assert process.communicate(timeout=60) == (b"", b"")
    assert process.returncode == 0


# The service, to which a signal comes when it forks, in a callback whose exceptions Python drops.
SIGNALLED = """
import os, signal, sys
from spikeserve.service.__main__ import main

os.register_at_fork(before=lambda: signal.raise_signal(signal.SIGTERM))
sys.exit(main(sys.argv[1:]))
"""


def test_a_signal_while_it_forks_ends_it_well(repository: Path) -> None:
    command = [sys.executable, "-c", SIGNALLED, "--port", "0", "--repository", str(repository)]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60).returncode == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_signal_ends_it_at_once(repository: Path, workers: int) -> None:
    with running(repository, "--workers", str(workers), ready=workers) as service, half_asked(service):
        service.process.terminate()
        while True:  # the worker that is left is the one that was asked: it alone still accepts
            try:
                if httpx.get(f"{service.url}/health/ready").status_code == 503:
                    break
            except httpx.TransportError:
                continue
        service.process.send_signal(signal.SIGINT)
        assert service.ended() == 128 + signal.SIGINT


def errors(service: Process) -> list[dict[str, Any]]:
    return [entry for entry in service.entries if entry["level"] == "error"]


# The service, but that a run says that it has begun and never ends.
ENDLESS = """
import sys, threading
import structlog
from spikeserve.service.process import server
server.LAST_ANSWER_SECONDS = 1  # since a busy machine may take longer to write them
from spikeserve.service.catalog.cost import Cost
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.process.command_line import main

class Endless:
    def __init__(self, engine):
        self.engine, self.name, self.batches, self.is_bounded = engine, engine.name, engine.batches, engine.is_bounded

    def answer(self, *_, **__):
        structlog.get_logger().info("run_begun")
        threading.Event().wait()

def load(*arguments, load=LoadedModel.load):
    model = load(*arguments)
    model.engine, model.cost = Endless(model.engine), Cost(1e-3)  # so that no run is taken for a quick one
    return model

LoadedModel.load = load
sys.exit(main(sys.argv[1:]))
"""


def test_it_waits_no_longer_than_it_may_and_says_so(repository: Path) -> None:
    with (
        running(repository, "--shutdown-seconds", "1", program=("-c", ENDLESS)) as service,
        half_asked(service) as half,
        ThreadPoolExecutor(1) as threads,
    ):
        asked = threads.submit(httpx.post, f"{service.url}/predict", json=LEFT, timeout=60)
        service.wait_for("run_begun")
        service.process.terminate()
        head, _, content = b"".join(iter(lambda: half.connection.recv(2**16), b"")).decode().partition("\r\n\r\n")
        assert service.ended() == UNFINISHED  # it ends, though the thread of that run never does
        answer = asked.result()
    assert head.startswith("HTTP/1.1 503")
    sentence = {"error": "the server is shutting down and could not wait for this request to end"}
    assert (json.loads(content), answer.status_code, answer.json()) == (sentence, 503, sentence)
    logged = {entry["request_id"]: entry["status"] for entry in service.entries if entry["event"] == "request"}
    assert logged.pop(answer.headers["x-request-id"]) == 503
    ((other, status),) = logged.items()
    assert (status, f"x-request-id: {other}\r\n" in f"{head}\r\n") == (503, True)
    assert errors(service) == []


def test_a_client_that_does_not_take_its_answer_keeps_it_no_longer_and_is_no_error(repository: Path) -> None:
    with running(repository, "--engine", "event", "--shutdown-seconds", "1") as service:
        address = urlsplit(service.url)
        body = json.dumps({"inputs": [[0.3, 0.1]] * 150, "time_steps": 1000, "return": ["membrane"]}).encode()
        # for an answer that no socket's buffers hold
        head = f"POST /predict HTTP/1.1\r\nHost: here\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        with socket.create_connection((address.hostname, address.port), timeout=240) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(head + body)
            assert connection.recv(12) == b"HTTP/1.1 200"
            assert service.stop() == UNFINISHED
    assert errors(service) == []


async def test_a_request_that_is_cancelled_at_any_other_time_is_not_answered(repository: Path) -> None:
    async with busy(repository) as (_, held, asked):
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        held.go_on.release()


async def test_it_is_not_ready_while_its_threads_are_held_and_not_live_after_as_long_again(repository: Path) -> None:
    async with started(repository, threads=1, request_timeout_ms=200) as client:
        held = slow(client.model())
        while not held.runs:  # else its time was over before its turn came
            assert (await client.post(LEFT)).status == 504
        silent = "the worker threads have given no sign of life for more than"
        for paths, sentence in (
            (["/health/ready"], f"{silent} 0.2 s"),
            (
                ["/health/live", "/v2/health/live"],
                f"{silent} 0.4 s, although no request may take so long: restart the server",
            ),
        ):
            async with asyncio.timeout(60):
                for path in paths:
                    while (answer := await client.get(path)).status == 200:
                        await asyncio.sleep(0)
                    assert (answer.status, answer.json) == (503, {"error": sentence})
        held.go_on.release()
        async with asyncio.timeout(60):
            for path in ("/health/ready", "/health/live", "/v2/health/live"):
                while (await client.get(path)).status == 503:
                    await asyncio.sleep(0)


def test_a_worker_whose_threads_are_held_for_good_is_replaced(repository: Path) -> None:
    flags = ("--threads", "1", "--request-timeout-ms", "300", "--shutdown-seconds", "0")
    with running(repository, "--workers", "2", *flags, ready=2, program=("-c", ENDLESS)) as service:
        begun = False
        while not begun:  # as above
            assert httpx.post(f"{service.url}/predict", json=LEFT).status_code == 504
            begun = service.wait_for("run_begun", "request")["event"] == "run_begun"
        stuck = service.wait_for("worker_stuck")
        assert stuck["error"].startswith("the worker threads have given no sign of life for more than 0.6 s")
        service.wait_for("worker_died")
        assert service.wait_for_each("worker_started", "model_ready")["worker_started"]["number"] == stuck["number"]
        while httpx.get(f"{service.url}/health/ready").status_code == 503:
            pass


@contextmanager
def two_workers(repository: Path, *flags: str) -> Iterator[tuple[Process, list[int]]]:
    with running(repository, "--workers", "2", *flags, ready=2) as service:
        while len(workers := [each["worker"] for each in service.entries if each["event"] == "worker_started"]) < 2:
            service.wait_for("worker_started")
        yield service, workers


def ask(service: Process) -> None:
    assert httpx.post(f"{service.url}/predict", json=LEFT).json()["predictions"][0]["spike_counts"] == [3, 0]


def test_workers_drain_once_where_their_whole_group_is_told_twice_that_the_terminal_closes(repository: Path) -> None:
    with two_workers(repository) as (service, workers), half_asked(service) as half:
        service.process.send_signal(signal.SIGSTOP)  # so that workers heed the group's signal before this one's own
        for process in (service.process.pid, *workers):
            os.kill(process, signal.SIGHUP)
        while not any(gone(worker) for worker in workers):
            pass
        wait_until_draining(service)  # the worker that is left is the one that was asked
        service.process.send_signal(signal.SIGCONT)
        while signal.SIGHUP not in signals(service.process.pid, "SigIgn"):
            assert service.process.poll() is None
        service.process.send_signal(signal.SIGHUP)  # which it does not heed twice
        answer = half.finish()
        assert service.ended() == 0
    assert answer.startswith(b"HTTP/1.1 200")


def test_a_worker_that_hangs_is_ended_with_the_others(repository: Path) -> None:
    with two_workers(repository, "--shutdown-seconds", "0") as (service, workers):
        os.kill(workers[1], signal.SIGSTOP)
        try:
            assert service.stop() == UNFINISHED
        finally:
            with suppress(ProcessLookupError):  # it has ended, as it should
                os.kill(workers[1], signal.SIGCONT)
    killed = [entry["worker"] for entry in service.entries if entry["event"] == "worker_killed"]
    assert workers[1] in killed  # and whichever else a busy machine holds up for so long


def test_a_child_that_is_no_worker_may_end(repository: Path) -> None:
    # As in a container, whose first process becomes the parent of what was run there by others and outlives them.
    service_command = [sys.executable, "-m", "spikeserve.service", "--port", "0", "--repository", str(repository)]
    command = ["sh", "-c", 'sleep 60 >/dev/null 2>&1 & echo $!; exec "$@"', "sh", *service_command, "--workers", "2"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        other = int(process.stdout.readline())
        service = Process(process)
        try:
            listening = service.wait_for("listening")
            service.url = f"http://{listening['host']}:{listening['port']}"
            for _ in range(2):
                service.wait_for("model_ready")
            os.kill(other, signal.SIGTERM)
            while Path(f"/proc/{other}").exists():  # until its parent has noticed
                assert process.poll() is None
            ask(service)
            assert service.stop() == 0
        finally:
            process.kill()
            service.read_out()
    assert errors(service) == []


def test_workers_do_not_outlive_the_process_that_started_them_though_one_is_stuck(repository: Path) -> None:
    with two_workers(repository) as (service, (first, second)):
        os.kill(second, signal.SIGSTOP)
        try:
            service.process.kill()
            deadline = time.monotonic() + 60
            while not gone(first):
                assert time.monotonic() < deadline
        finally:
            os.kill(second, signal.SIGCONT)
        assert service.ended() == -signal.SIGKILL  # the log ends when the last of them has


def test_a_server_whose_log_is_on_a_full_disk_goes_on(tmp_path: Path) -> None:
    publish(tmp_path, toy())
    code = """
import os, signal, sys
from spikeserve.service.__main__ import main

def fill(*_):
    print('{"event": "full"}', flush=True)
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)

signal.signal(signal.SIGUSR2, fill)
main(sys.argv[1:])
"""
    with running(tmp_path, program=("-c", code)) as service:
        os.kill(service.process.pid, signal.SIGUSR2)
        service.wait_for("full")
        with httpx.Client(base_url=service.url) as client:
            first = client.post("/models/toy/predict", json=ONE)
            again = [client.post(f"/v2/repository/models/toy/{verb}") for verb in ("unload", "load")]
            said = [first, *again, client.post("/models/toy/predict", json=ONE)]
        assert [each.status_code for each in said] == [200] * 4
