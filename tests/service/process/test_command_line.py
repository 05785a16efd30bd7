"""`python -m spikeserve.service` as a process of its own, over a real socket.

`spikeserve check`: what it says of a repository, a model or a bundle is what a server would say of it.
"""

import asyncio
import json
import os
import re
import resource
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.service.catalog.threads import Threads
from spikeserve.service.process import check
from spikeserve.service.process.command_line import OTHER_THREADS
from spikeserve.service.process.listener import Listener, listen
from spikeserve.service.process.server import FILE_THREADS, Loop
from spikeserve.service.process.turns import TimedSelector
from tests.bundles import publish
from tests.forks import SERVICE, Fork
from tests.networks import toy
from tests.serving import ROOT, running, serving

of_any_engine = pytest.mark.usefixtures("reference_engine")


def test_it_starts_answers_many_at_once_as_each_alone_and_ends_with_status_0(digits_repository: Path) -> None:
    samples = np.random.default_rng(17).random((64, 64))

    async def ask(client: httpx.AsyncClient, index: int) -> Any:
        body = {"inputs": [samples[index].tolist()], "return": ["raster", "membrane"]}
        answer = await client.post("/predict", json=body, headers={"X-Request-ID": f"sample-{index}"})
        assert answer.headers["X-Request-ID"] == f"sample-{index}"
        return answer.json()["predictions"]

    async def ask_all(url: str) -> tuple[list[Any], list[Any]]:
        limits = httpx.Limits(max_connections=64)
        async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as client:
            assert (await client.get("/health/ready")).json() == {"status": "ready"}
            alone = [await ask(client, index) for index in range(64)]
            together = await asyncio.gather(*(ask(client, index) for index in range(64)))
        return alone, together

    with running(digits_repository) as service:
        alone, together = asyncio.run(ask_all(service.url))
        assert service.stop() == 0
    assert together == alone
    assert len({str(answer) for answer in alone}) == 64
    requests = [entry for entry in service.entries if entry["event"] == "request"]
    assert [entry["status"] for entry in requests] == [200] * 129
    assert {entry.get("samples") for entry in requests} == {None, 1}


def test_it_sends_answers_at_once() -> None:
    # asyncio sets TCP_NODELAY on the connections of a listener that says it is TCP, and on no other.
    with listen("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP


@of_any_engine
def test_it_serves_on_where_nobody_reads_its_log_any_more(repository: Path) -> None:
    with Fork(SERVICE, ("--port", "0", "--repository", str(repository), "--workers", "2")) as process:
        try:
            url = f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}"
            process.stdout.close()  # as `| head -1` does
            asked = {"inputs": [[0, 1]]}
            while (status := httpx.post(f"{url}/predict", json=asked, timeout=60).status_code) != 200:
                assert (status, process.poll()) == (503, None)  # it is still loading
            process.terminate()
            assert process.stderr.read() == ""
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()


@of_any_engine
def test_a_free_port_and_a_misspelt_variable_are_always_said_and_requests_are_not(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPIKESERVE_MAX_BACTH", "3")
    monkeypatch.setenv("SPIKESERVE_MAX_BATCH", "3")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard - 1, hard))
    try:
        with running(repository, "--log-level", "warning", ready=0, is_new=True) as service:
            service.wait_for("unknown_variables")
            assert service.url.rpartition(":")[2] != "0"
            assert resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
            while httpx.post(f"{service.url}/predict", json={"inputs": [[1]]}).status_code == 503:  # it loads
                pass
            assert service.stop() == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    listening, warning = service.entries
    assert listening.keys() >= {"event", "level", "timestamp"}
    assert (warning["event"], warning["names"]) == ("unknown_variables", ["SPIKESERVE_MAX_BACTH"])


@of_any_engine
def test_more_connections_than_it_may_have_wait_and_do_not_fill_its_log(repository: Path) -> None:
    with running(repository) as service, ExitStack() as stack:
        address = urlsplit(service.url)
        resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE, (48, 48))
        for _ in range(90):
            stack.enter_context(socket.create_connection((address.hostname, address.port), timeout=60))
        service.wait_for("socket.accept() out of system resource")
        stack.close()
        # It tries again a second after it failed.
        assert httpx.get(f"{service.url}/health/live", timeout=60).status_code == 200
        assert service.stop() == 0
    # There was one at each attempt for every connection that may wait, and their attempts multiplied.
    complaints = [entry for entry in service.entries if entry["level"] == "error"]
    assert len(complaints) < Listener.BACKLOG


@pytest.mark.parametrize(
    ("limits", "flags", "sentence"),
    [
        # A thread's stack takes as many addresses as the limit of stacks says: 1 GB each, of 5 GB in all. There are 8
        # threads that run, 8 that load, 9 others, and three processes that count as threads do.
        (
            "ulimit -s 1000000; ulimit -v 5000000",
            ("--threads", "8"),
            r"spikeserve: threads: the system lets [234] of 28 threads start, expected all: set fewer --threads, or "
            r"raise the limit of processes \(ulimit -u, a container's pids\) or of memory \(ulimit -v\)\n",
        ),
        (
            "ulimit -v 300000",
            ("--engine", "event"),
            r"spikeserve: engine: numba cannot be loaded \(.*\), expected enough memory for it; see ulimit -v\n",
        ),
        # Each thread may reserve a heap of its own, of 64 MB and as it happens, and leave no room for the last stack.
        (
            "export MALLOC_ARENA_MAX=1; ulimit -v 468000",
            ("--engine", "event", "--threads", "1"),
            r"spikeserve: memory: the system lets this process have less than 128 MiB more, expected as much for "
            r"kernels, models and requests; raise its limit \(ulimit -v\)\n",
        ),
    ],
    ids=["threads", "library", "memory"],
)
def test_it_does_not_start_under_limits_that_it_cannot_serve_under(
    repository: Path, limits: str, flags: tuple[str, ...], sentence: str
) -> None:
    service = [sys.executable, "-m", "spikeserve.service", "--port", "0", "--repository", str(repository), *flags]
    command = ["/bin/bash", "-c", f'{limits}; exec "$@"', "bash", *service]
    one = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=one, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr  # it listened nowhere
    assert re.fullmatch(sentence, done.stderr)


def test_an_event_loop_ends_where_no_thread_may_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def serve() -> int:
        with Threads(1, "files") as files:
            asyncio.get_running_loop().set_default_executor(files.pool)
            monkeypatch.setattr(Thread, "start", refuse)
            return await asyncio.to_thread(int, "7")

    with asyncio.Runner(loop_factory=lambda: Loop(TimedSelector())) as runner:
        assert runner.run(serve()) == 7


def test_a_shutdown_needs_no_thread_that_was_not_there(repository: Path) -> None:
    def threads() -> set[Path]:
        return set(Path(f"/proc/{service.process.pid}/task").iterdir())

    with running(repository, "--drain-seconds", "0.5") as service:
        before = threads()
        service.process.terminate()
        seen = set[Path]()
        while service.process.poll() is None:
            with suppress(OSError):  # it has ended just now
                seen |= threads()
            with suppress(subprocess.TimeoutExpired):
                service.process.wait(timeout=0.02)
        assert seen <= before
        assert service.ended() == 0


def test_no_more_threads_start_than_were_counted_first(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    for index in range(19):  # each is looked at on a thread, all at the same time
        publish(repository, toy(), f"other{index}")

    def threads() -> int:
        return len(list(Path(f"/proc/{service.process.pid}/task").iterdir()))

    async def ask_all() -> None:
        async with httpx.AsyncClient(base_url=service.url, timeout=60) as client:
            paths = ("/docs/files/swagger-ui-bundle.js", "/docs/files/swagger-ui.css") * 20
            assert {answer.status_code for answer in await asyncio.gather(*map(client.get, paths))} == {200}

    with running(repository, "--threads", "2", ready=0, is_new=True) as service:
        httpx.get(f"{service.url}/health/live", timeout=60)
        assert threads() >= 1 + 2 * 2 + 2 + 1 + FILE_THREADS  # the first, those that run and load, codecs, the end
        for _ in range(20):
            service.wait_for("model_ready")
        asyncio.run(ask_all())
        assert threads() <= 1 + 2 * 2 + OTHER_THREADS
        assert service.stop() == 0


REFERENCE = ("--engine", "reference")  # whose kernels need not be compiled


@pytest.fixture
def two_models(tmp_path: Path) -> Path:
    """Two models; of the second, version 1 is damaged."""
    for name in ("good", "other", "other"):
        publish(tmp_path, toy(), name)
    weights = tmp_path / "other/1/weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, list[str], str]:
    status = check.main([*map(str, arguments), *REFERENCE])
    output = capsys.readouterr()
    return status, output.out.splitlines(), output.err


def test_every_version_is_checked_with_the_servers_words(two_models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, (good, damaged, other, total), _ = run(capsys, two_models)
    assert (status, total) == (1, "2 of 3 can be served")
    assert (good, other) == ("good 1: ok, on the engine reference", "other 2: ok, on the engine reference")
    with serving(two_models, versions="all", engine="reference") as client:
        (version, _) = client.get("/models").json()["models"][1]["versions"]
    assert damaged == f"other 1: {version['error']}"
    assert "weights.safetensors" in damaged


def test_only_the_versions_that_are_chosen_are_checked(two_models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, two_models, "--versions", "latest") == (
        0,
        ["good 1: ok, on the engine reference", "other 2: ok, on the engine reference", "2 of 2 can be served"],
        "",
    )
    status, lines, error = run(capsys, two_models, "--versions", "9")
    assert (status, lines, error) == (2, [], "spikeserve: versions: no model there has one of 9\n")


@pytest.mark.parametrize(("path", "listed"), [("other", [1, 2]), ("other/2", [2])])
def test_a_model_or_a_bundle_is_checked_alone(
    two_models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, path: str, listed: list[int]
) -> None:
    found = run(capsys, two_models / path)
    assert [line.partition(":")[0] for line in found[1][:-1]] == [f"other {version}" for version in listed]
    monkeypatch.chdir(two_models / path)
    assert run(capsys, ".") == found


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("nothing", r"bundle: '.*/nothing' is no bundle's folder and no model of ./repository, or of these: .*"),
        ("empty", r"path: '.*/empty' holds no model, expected <name>/<version>/ with a bundle.json"),
        ("loose", r"path: '.*/loose' holds a bundle, expected it in <repository>/<name>/<version>/"),
    ],
)
def test_nothing_to_serve_is_told(
    two_models: Path, capsys: pytest.CaptureFixture[str], path: str, sentence: str
) -> None:
    (two_models / "empty").mkdir()
    (two_models / "good/1").rename(two_models / "loose")
    status, lines, error = run(capsys, two_models / path)
    assert (status, lines) == (2, [])
    assert re.fullmatch(f"spikeserve: {sentence}\n", error)


def test_a_limit_that_a_model_is_over_refuses_it_and_a_flag_that_there_is_not_is_a_sentence(
    two_models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, (refused, _), _ = run(capsys, two_models / "good", "--max-model-bytes", "1")
    assert status == 1
    assert refused.endswith("expected at most 1 in all (max_model_bytes)")
    status, _, error = run(capsys, two_models, "--max-model-byte", "1")
    assert status == 2
    assert error.startswith("spikeserve: ")
    assert error.count("\n") == 1


def test_what_a_bundle_says_cannot_control_the_terminal(two_models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = ModelRepository(two_models).root / "good/1/bundle.json"
    manifest.write_text(manifest.read_text().replace('"spec"', '"\\u001b[2J": 1, "spec"', 1))
    _, (line, _), _ = run(capsys, two_models / "good")
    assert line.isprintable()
    assert "[2J" in line
