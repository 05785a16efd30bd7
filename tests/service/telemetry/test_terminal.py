"""The log at a terminal: lines in colour for people, in which nothing that was sent is obeyed; elsewhere JSON."""

import io
import json
import logging
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import structlog

from spikeserve.service.catalog.engine_choice import compiles_first
from spikeserve.service.telemetry import logs
from tests.serving import ROOT, Process

HOSTILE = "\x1b[2J\x1b]0;owned\x07 first\r\n12:00:00 [info] forged\x9b31m \u202egnp.exe \udc80"
CODES = re.compile(r"\x1b\[[0-9;]*m")  # of colours


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch, restored_logging: None) -> Terminal:  # noqa: ARG001
    """Log to a terminal without colours."""
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    logs.configure("info", stream)
    return stream


@pytest.mark.parametrize(("stream", "is_json"), [(Terminal, False), (io.StringIO, True)])
@pytest.mark.usefixtures("restored_logging")
def test_it_is_text_at_a_terminal_and_json_elsewhere(stream: type[io.StringIO], is_json: bool) -> None:
    written = stream()
    logs.configure("info", written)
    structlog.get_logger().info("model_ready", model="toy")
    line = written.getvalue()
    assert line.startswith("{") == is_json
    if is_json:
        assert json.loads(line).keys() == {"event", "level", "timestamp", "model"}
    else:
        assert re.fullmatch(r"\d\d:\d\d:\d\d \[info +\] model_ready +model=toy\n", CODES.sub("", line))


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({"TERM": "xterm"}, True), ({"TERM": "dumb"}, False), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True)],
)
def test_colours_are_for_terminals_that_have_and_want_them(environment: dict[str, str], coloured: bool) -> None:
    assert logs.wants_colour(Terminal(), environment) == coloured
    assert not logs.wants_colour(io.StringIO(), environment)


@pytest.mark.parametrize(
    ("host", "address"),
    [("127.0.0.1", "http://127.0.0.1:80"), ("0.0.0.0", "http://localhost:80"), ("::1", "http://[::1]:80")],  # noqa: S104
)
def test_the_address_can_be_clicked(host: str, address: str, plain: Terminal) -> None:
    structlog.get_logger().info("listening", host=host, port=80, repository="models")
    assert f" listening at {address} repository=models\n" in plain.getvalue()


def test_a_request_is_told_as_people_say_it(plain: Terminal) -> None:
    labels = {"request_id": "one", "method": "POST", "route": "/predict", "status": 200, "ms": 3.1, "model": "toy"}
    structlog.get_logger().info("request", **labels)
    assert re.search(r"\] POST /predict 200 +ms=3.1 model=toy request_id=one\n$", plain.getvalue())


def test_nothing_that_was_sent_is_obeyed_by_a_terminal_or_makes_a_line(plain: Terminal) -> None:
    log = structlog.get_logger()
    log.warning("bundle_refused", error=HOSTILE, names=[HOSTILE], meaning=HOSTILE)
    log.info(HOSTILE)
    # pytest keeps what the standard library logs, and can tell no other process of a lone surrogate.
    logging.getLogger("uvicorn.error").warning("%s", HOSTILE.removesuffix("\udc80"))
    lines = plain.getvalue().removesuffix("\n").split("\n")
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)
    assert all(r"\x1b[2J\x1b]0;owned\x07" in line for line in lines[1:])


def test_a_traceback_stands_apart_from_the_lines_of_the_log(plain: Terminal) -> None:
    try:
        int(HOSTILE)
    except ValueError as error:
        error.add_note(HOSTILE)  # what int says is escaped already
        structlog.get_logger().exception("request_failed", request_id="one")
    first, *rest = plain.getvalue().removesuffix("\n").split("\n")
    assert first.endswith("request_failed           request_id=one")
    assert rest[0] == "    | Traceback (most recent call last):"
    assert all(line.startswith("    | ") and line.isprintable() for line in rest)


@pytest.mark.usefixtures("restored_logging")
def test_a_letter_that_the_terminal_has_not_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding="ascii")
    stream.isatty = lambda: True  # type: ignore[method-assign]
    logs.configure("info", stream)
    structlog.get_logger().info("model_ready", model="größe")
    stream.flush()
    assert rb"model=gr\xf6\xdfe" in written.getvalue()


@pytest.mark.usefixtures("reference_engine")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_in_a_terminal_says_where_it_is_in_colour(repository: Path, workers: str) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "spikeserve.service", "--port", "0", "--repository", str(repository)]
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm"}
    process = subprocess.Popen([*command, "--workers", workers], cwd=ROOT, stdout=theirs, env=environment)
    os.close(theirs)
    too_late = threading.Timer(60, process.kill)  # else a line that never comes would be waited for for ever
    too_late.start()
    with os.fdopen(ours) as screen, process:
        try:
            url = re.search(r"listening at (http://127\.0\.0\.1:\d+)", CODES.sub("", first := next(screen)))
            assert url is not None
            assert CODES.search(first)
            for _ in range(int(workers)):
                next(line for line in screen if "model_ready" in line)
            httpx.get(f"{url[1]}/none", headers={"X-Request-ID": "from-a-test"})
            assert "GET unmatched 404" in next(line for line in screen if "from-a-test" in line)
        finally:
            too_late.cancel()
            process.terminate()


def test_a_first_start_says_that_it_compiles_kernels(tmp_path: Path) -> None:
    # A copy of the program without its cache, as a new machine has it. It is not waited for: compiling takes long.
    for folder in ("models", "plugins", "service", "spikeserve"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"), symlinks=True)
    command = [sys.executable, "-m", "spikeserve.service", "--port", "0", "--workers", "2"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        service = Process(process)
        try:
            assert service.wait_for("compiling_kernels")["meaning"] == "answers come by onnx until then"
        finally:
            process.terminate()
            service.read_out()
    for compiler in Path("/proc").glob("[1-9]*"):  # which goes on, so that the next start is quick
        with suppress(OSError):
            if f"PYTHONPATH={tmp_path}" in (compiler / "environ").read_text():
                os.kill(int(compiler.name), signal.SIGKILL)


def test_kernels_that_are_compiled_are_not_spoken_of(monkeypatch: pytest.MonkeyPatch) -> None:
    from spikeserve.models.engines.event.compiled import CompiledFunction, engine_kernels

    monkeypatch.setattr(CompiledFunction, "is_cached", property(lambda _: True))
    assert not compiles_first("event")
    monkeypatch.setattr(CompiledFunction, "is_cached", property(lambda kernel: kernel is not engine_kernels[-1]))
    assert compiles_first("event")
    assert not compiles_first("reference")
