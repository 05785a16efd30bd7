"""Two replicas behind a proxy, or asked by a gRPC client in turn: they answer as one does, also when one goes."""

import re
import runpy
import shutil
from collections.abc import Iterator
from operator import sub
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from spikeserve import Client
from spikeserve.models.bundle.repository import PRETRAINED
from tests.pages import ROOT, block_with
from tests.plugins.grpc.rpc import address, serving_grpc
from tests.replicas import NEEDS_HAPROXY, haproxy, proxied
from tests.serving import Process

triton = pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed: the extra 'clients' has it")
pytestmark = pytest.mark.usefixtures("fast_servers")

STICKY = block_with((ROOT / "deploy/README.md").read_text(), "text", "balance source").splitlines()
GRPC = (ROOT / "docs/grpc.md").read_text()
Pair = tuple[Process, Process]
DRAINS = ("--drain-seconds", "3")  # as the tutorial into a cluster says
WINDOWS, STEPS, STEP_US = 128, 4, 5000


@pytest.fixture
def replicas(tmp_path: Path) -> Iterator[Pair]:
    """Two replicas, by the names that HAProxy gives them."""
    shutil.copytree(PRETRAINED / "braille", tmp_path / "repository" / "braille")
    with serving_grpc(tmp_path / "repository", *DRAINS) as one, serving_grpc(tmp_path / "repository", *DRAINS) as two:
        yield one, two


def counted(replica: Process, name: str) -> float:
    """Return a metric of a replica, added up."""
    text = httpx.get(f"{replica.url}/metrics").text
    return sum(map(float, re.findall(rf"^{name}\{{.*\}} (\S+)$", text, re.MULTILINE)))


def answered(replicas: Pair) -> list[float]:
    return [counted(replica, "spikeserve_model_requests_total") for replica in replicas]


def touches() -> Iterator[dict[str, np.ndarray] | int]:
    """Yield events that are drawn, window after window, and when each has closed."""
    drawn, lasts = np.random.default_rng(6), STEPS * STEP_US
    yield 0
    for begin in range(0, WINDOWS * lasts, lasts):
        yield {"t": begin + np.sort(drawn.integers(lasts, size=12)), "unit": drawn.integers(12, size=12)}
        yield begin + lasts


def stream(url: str) -> Iterator[dict[str, Any]]:
    """Yield what each window of a session says, but for how long it took."""
    with Client(url, model="braille") as client:
        for window in client.stream(touches(), step_us=STEP_US, window_steps=STEPS):
            yield vars(window) | {"lag_ms": None}


@NEEDS_HAPROXY
@pytest.mark.parametrize("dies", [True, False], ids=["killed", "drained"])
def test_a_session_goes_on_at_the_other_replica_bit_for_bit(replicas: Pair, tmp_path: Path, dies: bool) -> None:
    found = []
    with proxied(*replicas, tmp_path) as url:
        for window in stream(url):
            found.append(window)
            if window["window"] == 70:  # the client has the state after 50
                other, has = sorted(replicas, key=lambda each: counted(each, "spikeserve_sessions"))
                has.process.kill() if dies else has.process.terminate()
    assert has.ended() == (-9 if dies else 0)
    assert found == list(stream(other.url))
    assert len({str(window["scores"]) for window in found}) == WINDOWS  # all different


def sequence(url: str) -> tuple[list[Any], set[str | None], int]:
    """Send a sequence in eight requests; return their answers, the replicas that answered and how many cookies came."""
    answers, raster = [], (np.random.default_rng(6).random((8, 32, 12)) < 0.3).astype(float)
    with httpx.Client(timeout=60) as client:
        for at, steps in enumerate(raster):
            tensor = {"name": "inputs", "shape": [1, 32, 12], "datatype": "FP32", "data": steps.ravel().tolist()}
            ends = {"sequence_id": 1, "sequence_start": at == 0, "sequence_end": at == 7}
            body = {"inputs": [tensor], "parameters": ends}
            answers.append(client.post(f"{url}/v2/models/braille/infer", json=body).raise_for_status())
    outputs = [answer.json()["outputs"] for answer in answers]
    return outputs, {answer.headers.get("x-replica") for answer in answers}, len(client.cookies)


@NEEDS_HAPROXY
@pytest.mark.parametrize("way", ["balance", "cookie"])
def test_a_sequence_stays_with_its_replica_where_that_is_set(replicas: Pair, tmp_path: Path, way: str) -> None:
    expected, *_ = sequence(replicas[0].url)
    with proxied(*replicas, tmp_path, backend="".join(f"{line}\n" for line in STICKY if way in line)) as url:
        found, names, cookies = sequence(url)
    assert found == expected
    assert (len(names), cookies) == (1, way == "cookie")


def ask(client: Any, times: int = 1) -> None:
    """Make calls over gRPC, all of which have one answer."""
    tensor = triton.InferInput("inputs", [1, 256, 12], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 256, 12), np.float32))
    answers = [client.infer("braille", [tensor]).as_numpy("spike_counts").tolist() for _ in range(times)]
    assert answers == answers[:1] * times


def assert_shared(replicas: Pair, client: Any) -> None:
    """Make ten calls, of which each replica answers five, and counts the last one after its answer."""
    before = answered(replicas)
    ask(client, 10)
    while sum(counts := list(map(sub, answered(replicas), before))) < 10:
        pass
    assert counts == [5, 5]


@NEEDS_HAPROXY
def test_a_proxy_of_http2_divides_one_connections_calls(replicas: Pair, tmp_path: Path) -> None:
    text = block_with(GRPC, "text", "proto h2")
    for theirs, ours in (("10.0.0.1", replicas[0]), ("10.0.0.2", replicas[1])):
        http = ours.url.rpartition(":")[2]
        text = text.replace(f"{theirs}:8001", address(ours)).replace("port 8000", f"port {http}", 1)
    with haproxy(text, "127.0.0.1:8001", tmp_path) as proxy, triton.InferenceServerClient(proxy) as client:
        assert_shared(replicas, client)


def test_calls_are_divided_evenly_and_go_on_when_a_replica_shuts_down(replicas: Pair, tmp_path: Path) -> None:
    program, target = block_with(GRPC, "python", "round_robin"), "ipv4:" + ",".join(map(address, replicas))
    (tmp_path / "client.py").write_text(program.replace("dns:///spikeserve-headless:8001", target))
    with runpy.run_path(str(tmp_path / "client.py"))["client"] as client:
        for _ in range(300):  # the connection that is there first has all calls until the other one is there
            ask(client)
            if all(answered(replicas)):
                break
        assert_shared(replicas, client)
        replicas[0].process.terminate()
        while replicas[0].process.poll() is None:
            ask(client)
        assert replicas[0].ended() == 0
        ask(client, 10)
