"""The first answers on a machine: another engine gives them, to the same bits, until kernels are compiled."""

import fcntl
import gc
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import structlog

from spikeserve.models.bundle import Bundle
from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.coding import encode
from spikeserve.models.coding.records import make_records
from spikeserve.models.engines import compiling
from spikeserve.models.engines.base import RunResult
from spikeserve.models.engines.event.engine import compile_kernels
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec.network import Network
from spikeserve.plugins.local.__main__ import main
from spikeserve.plugins.local.model import loaded, read_bundle
from spikeserve.service.catalog.engine_choice import meanwhile
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.inference.decoding.readers import prepare, readers_of
from spikeserve.service.settings import Settings
from spikeserve.service.telemetry import logs
from tests.bundles import contents, publish
from tests.inside import Inside
from tests.networks import network_of, task
from tests.service.sessions.conftest import INFER, ONE, pairs
from tests.serving import ROOT, Process, serving

EVENTS = {"inputs": [{"t": [0, 1, 2], "unit": [0, 0, 1]}, {"t": [0, 1], "unit": [1, 1]}]}
COUNTS = [[1, 0], [0, 1]]  # a unit spikes at every second event


class FirstStart:
    """A folder in place of that of the kernels: none is there, and another process compiles them until it is over."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = os.open(folder, os.O_RDONLY)
        fcntl.flock(self.lock, fcntl.LOCK_EX)

    def over(self) -> None:
        """Have the kernels: those of this checkout are used as soon as there is one here."""
        (self.folder / "__pycache__").mkdir()
        (self.folder / "__pycache__" / "a.nbi").touch()
        os.close(self.lock)


@pytest.fixture
def first_start(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> FirstStart:
    """A first start on a machine."""
    compile_kernels()
    monkeypatch.setattr(compiling, "FOLDER", folder := tmp_path_factory.mktemp("kernels"))
    return FirstStart(folder)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository of the model 'pairs'."""
    publish(tmp_path, pairs(), "pairs")
    return tmp_path


def predicted(client: Any) -> str:
    """Ask for a prediction, which must be right; return the engine that gave it."""
    answer = client.post("/models/pairs/predict", json=EVENTS).json()
    assert [each["spike_counts"] for each in answer["predictions"]] == COUNTS
    return str(answer["engine"])


def asked(url: str) -> str:
    """Ask on a new connection, which any worker may take; return the engine that answered."""
    with httpx.Client(base_url=url) as client:
        return predicted(client)


def runs_of(client: Any, engine: str) -> float:
    """Return how many runs of an engine the metrics count."""
    counted = re.findall(
        rf'inference_seconds_count{{[^}}]*engine="{engine}"[^}}]*}} (\S+)', client.get("/metrics").text
    )
    return sum(map(float, counted))


def test_answers_sessions_and_sequences_are_the_same_before_during_and_after_the_event_engine_takes_over(
    first_start: FirstStart, root: Path
) -> None:
    engines, over = list[str](), threading.Event()
    with serving(root) as client, ThreadPoolExecutor(2) as pool:
        assert client.get("/health/ready").json() == {"status": "ready"}
        (status,) = client.get("/models/pairs").json()["versions"]
        assert status == {"version": 1, "state": "ready", "engine": "onnx", "compiling": True}

        def ask() -> None:
            while not over.is_set():
                predicted(client)

        asking = [pool.submit(ask) for _ in range(2)]
        with client.websocket_connect("/models/pairs/stream") as stream:
            for window in range(10_000):
                engines.append(predicted(client))
                # One event in each window of 2 ms, and one in each request of the sequence: every second one spikes.
                stream.send_bytes(make_records([2000 * window], [0]).tobytes())
                stream.send_text(json.dumps({"type": "time", "t": 2000 * (window + 1)}))
                assert json.loads(stream.receive_text())["spike_counts"] == [(window + 1) // 2, 0]
                named = {"sequence_id": 1, "sequence_start": window == 0}
                answer = client.post(INFER, json={"inputs": [ONE], "parameters": named}).json()
                (sequence,) = (each["data"] for each in answer["outputs"] if each["name"] == "spike_counts")
                assert sequence == [(window + 1) // 2, 0]
                if window == 5:
                    first_start.over()
                if engines.count("event") == 5:
                    break
            over.set()
            for each in asking:
                each.result()
            before = {engine: runs_of(client, engine) for engine in ("event", "onnx")}
            stream.send_text(json.dumps({"type": "time", "t": 2000 * (window + 2)}))
            stream.receive_text()
            client.post(INFER, json={"inputs": [ONE], "parameters": {"sequence_id": 1, "sequence_end": True}})
            assert runs_of(client, "event") == before["event"] + 2
            assert runs_of(client, "onnx") == before["onnx"]
        assert engines == sorted(engines, reverse=True)  # onnx, and from some request on event
        assert set(engines) == {"onnx", "event"}
        (status,) = client.get("/models/pairs").json()["versions"]
        assert status == {"version": 1, "state": "ready", "engine": "event"}


def test_once_the_event_engine_has_taken_over_the_other_is_gone_and_requests_are_read_by_kernels(
    first_start: FirstStart, root: Path
) -> None:
    with serving(root) as client:
        inside = Inside(client.app)
        engine = weakref.ref(inside.model().engine)
        first_start.over()
        while predicted(client) != "event":
            pass
        assert readers_of(inside.model()).events  # of small requests, which onnx has none for
        while engine() is not None:  # a thread that has just ended its work may refer to it still
            gc.collect()


def test_a_version_that_cannot_be_loaded_again_goes_on_by_the_other_engine_and_waits_for_nothing(
    first_start: FirstStart, root: Path
) -> None:
    with serving(root) as client:
        shutil.move(root / "pairs" / "1" / "bundle.json", root)
        first_start.over()
        while "error" not in client.get("/models/pairs").json()["versions"][0]:
            assert predicted(client) == "onnx"
        (status,) = client.get("/models/pairs").json()["versions"]
        assert predicted(client) == "onnx"
    assert (status["state"], status["engine"]) == ("ready", "onnx")
    assert "compiling" not in status


@pytest.mark.parametrize(("absent", "engines"), [([], ("onnx", "reference")), (["onnxruntime"], ("reference",))])
def test_the_other_engines_that_are_installed_answer_meanwhile(
    first_start: FirstStart, root: Path, monkeypatch: pytest.MonkeyPatch, absent: list[str], engines: tuple[str, ...]
) -> None:
    for package in absent:
        monkeypatch.setitem(sys.modules, package, None)
    settings = Settings(repository=root)
    assert meanwhile(settings) == engines
    assert meanwhile(Settings(repository=root, engine="event")) == ()
    with serving(root) as client:
        assert predicted(client) == engines[0]
    first_start.over()
    assert meanwhile(settings) == ()


def test_a_model_that_only_the_event_engine_can_run_waits_for_kernels_and_others_answer(
    first_start: FirstStart, root: Path
) -> None:
    ModelRepository(root).publish(contents(sparse(), "sparse"))
    with serving(root, wait=False, max_model_bytes=2**26, strict_readiness=False) as client:
        while "engine" not in str(client.get("/models").json()):
            pass
        assert predicted(client) == "onnx"
        answer = client.get("/models/sparse")
        assert answer.status_code == 503
        assert "is still loading" in answer.json()["error"]
        first_start.over()
        while client.get("/models/sparse").status_code == 503:
            pass
        assert client.get("/models/sparse").json()["engine"] == "event"


def test_a_version_that_the_event_engine_cannot_load_is_no_longer_compiling(
    first_start: FirstStart, root: Path
) -> None:
    with serving(root) as client:
        (root / "pairs" / "1" / "weights.safetensors").write_bytes(b"")
        first_start.over()
        while "error" not in (status := client.get("/models/pairs").json()["versions"][0]):
            pass
        assert (status["state"], status["engine"], "compiling" in status) == ("ready", "onnx", False)
        assert predicted(client) == "onnx"


@pytest.mark.usefixtures("first_start")
def test_a_damaged_version_is_told_of_while_kernels_are_compiled(root: Path) -> None:
    (root / "pairs" / "1" / "weights.safetensors").write_bytes(b"")
    with serving(root, wait=False) as client:
        while "is still loading" in (said := client.get("/models/pairs").json()["error"]):
            pass
    assert said.startswith("model 'pairs' version 1 could not be loaded: weights.safetensors: ")


def sparse() -> Network:
    """A layer of one weight for each of its neurons, which takes 64 MiB as all of its weights."""
    weight = np.zeros((4096, 4096), np.float32)
    weight[np.arange(4096), np.arange(4096)] = 1
    nodes: list[dict[str, Any]] = [
        {"type": "Linear", "name": "fc", "in_features": 4096, "out_features": 4096, "bias": False},
        {"type": "IF", "name": "out"},
    ]
    return network_of(nodes, {"fc.weight": weight}, **task(4096, 1, 4096, "spikes")).compact()


def test_where_compilers_die_the_log_says_so_once_and_answers_go_on(
    first_start: FirstStart, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.close(first_start.lock)  # nobody else compiles
    monkeypatch.setattr("spikeserve.service.app.prepare", os.getenv)  # a compiler that ends without kernels
    with structlog.testing.capture_logs() as entries, serving(root) as client:
        while not [each for each in entries if each["event"] == "kernels_not_compiled"]:
            assert predicted(client) == "onnx"
        assert predicted(client) == "onnx"
        (status,) = client.get("/models/pairs").json()["versions"]
        assert status == {"version": 1, "state": "ready", "engine": "onnx"}
    (entry,) = (each for each in entries if each["event"] == "kernels_not_compiled")
    assert (entry["tries"], entry["meaning"]) == (2, "answers go on by another engine")


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the program without a cache, as a new machine has it."""
    folder = tmp_path_factory.mktemp("program")
    for each in ("models", "plugins", "service", "spikeserve"):
        shutil.copytree(ROOT / each, folder / each, ignore=shutil.ignore_patterns("__pycache__"), symlinks=True)
    return folder


def test_two_workers_on_one_core_answer_before_during_and_after_one_process_has_compiled(
    copied: Path, root: Path
) -> None:
    prepare("event")  # the kernels of this checkout, which are moved to the copy as a compiler would write them
    lock = os.open(copied / "models" / "engines" / "event", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    command = [sys.executable, "-m", "spikeserve.service", "--port", "0", "--workers", "2", "--repository", str(root)]
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, cwd=copied, **pipes)
    finally:
        os.sched_setaffinity(0, cores)
    with process:
        service = Process(process)
        try:
            listening = service.wait_for("listening")
            url = f"http://{listening['host']}:{listening['port']}"
            assert [service.wait_for("model_ready")["engine"] for _ in range(2)] == ["onnx", "onnx"]
            engines = [asked(url) for _ in range(4)]
            for room in ("models/engines/event", "service/inference/decoding"):
                cache = copied / room / "__pycache__"
                cache.mkdir(exist_ok=True)
                for file in (ROOT / room / "__pycache__").glob("*.nb?"):
                    shutil.copy(file, cache)
            os.close(lock)
            ready = threading.Thread(target=lambda: [service.wait_for("model_ready") for _ in range(2)])
            ready.start()
            with httpx.Client(base_url=url) as kept_open:
                while ready.is_alive():
                    engines.append(predicted(kept_open))
            after = [asked(url) for _ in range(4)]
        finally:
            process.terminate()
            service.read_out()
    assert engines[:4] == ["onnx"] * 4
    assert after == ["event"] * 4
    assert not [each for each in service.entries if each["level"] == "error"]


@pytest.fixture
def bundle(root: Path) -> Bundle:
    """The bundle of 'pairs'."""
    return read_bundle(root / "pairs" / "1", Settings())


def test_a_model_without_a_server_goes_on_by_the_event_engine_once_there_are_kernels(
    first_start: FirstStart, bundle: Bundle, capfd: pytest.CaptureFixture[str]
) -> None:
    inputs = encode(np.ones((3, 4, 2), np.float32), bundle.task)
    expected, _ = ReferenceEngine(bundle.network).run(inputs)
    with loaded(bundle, Settings(), prepare) as model:
        assert model.newest.engine.name == "onnx"
        assert (model.newest.run(inputs, None).spike_counts == expected.spike_counts).all()
        first_start.over()
        while model.newest is model:
            assert (model.newest.run(inputs, None).spike_counts == expected.spike_counts).all()
        assert model.newest.engine.name == "event"
        assert (model.newest.run(inputs, None).spike_counts == expected.spike_counts).all()
    assert capfd.readouterr().err == "spikeserve: compiling kernels: answers come by onnx until then\n"


def test_the_command_says_which_engine_answers_and_ends_without_kernels(
    first_start: FirstStart, root: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "configure", lambda *_: None)  # which is for a whole process
    (root / "input").write_text(json.dumps(EVENTS["inputs"][0]) + "\n")
    with (root / "input").open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert main(["--format", "json", str(root / "pairs" / "1")]) == 0
    said = capfd.readouterr()
    assert json.loads(said.out)["spike_counts"] == COUNTS[0]
    assert said.err == "spikeserve: compiling kernels: answers come by onnx until then\n"
    os.close(first_start.lock)


def test_the_command_goes_on_by_the_event_engine_between_two_lines(
    first_start: FirstStart, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "configure", lambda *_: None)
    engines, run = list[str](), LoadedModel.run

    def noted(self: LoadedModel, *arguments: Any) -> RunResult:
        engines.append(self.engine.name)
        return run(self, *arguments)

    monkeypatch.setattr(LoadedModel, "run", noted)
    reading, writing = os.pipe()
    with os.fdopen(reading) as file, os.fdopen(writing, "w") as lines, ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(sys, "stdin", file)
        ended = pool.submit(main, ["--format", "json", str(root / "pairs" / "1")])
        while "event" not in engines and not ended.done():
            if engines == ["onnx"]:
                first_start.over()
            asked = len(engines)
            print(json.dumps(EVENTS["inputs"][0]), file=lines, flush=True)
            while len(engines) == asked and not ended.done():
                pass
        lines.close()
        assert ended.result() == 0
    assert engines == sorted(engines, reverse=True)  # onnx, and from some line on event


def test_where_kernels_cannot_be_kept_the_command_says_once_where_and_who_answers(
    first_start: FirstStart, bundle: Bundle, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # as on a read-only disk
    with loaded(bundle, Settings(), prepare) as model:
        first_start.over()
        assert model.newest.engine.name == "onnx"
    said = capfd.readouterr().err
    assert said.startswith("spikeserve: onnx answers: no kernels can be kept in ")
    assert said.count("\n") == 1
