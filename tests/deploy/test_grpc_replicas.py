"""A gRPC client before two replicas: by the page's policy it divides its calls, and goes on when one shuts down."""

import re
import runpy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import sub
from pathlib import Path

import httpx
import numpy as np
import pytest

from spikeserve.models.bundle.repository import PRETRAINED
from tests.pages import ROOT, block_with
from tests.plugins.grpc.rpc import address, serving_grpc
from tests.replicas import NEEDS_HAPROXY, haproxy
from tests.serving import Process

triton = pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed: the extra 'clients' has it")

pytestmark = pytest.mark.usefixtures("fast_servers")
PAGE = (ROOT / "docs/grpc.md").read_text()
POLICY = block_with(PAGE, "python", "round_robin")
HAPROXY = block_with(PAGE, "text", "proto h2")
PLAIN = "import tritonclient.grpc as triton\nclient = triton.InferenceServerClient('dns:///spikeserve-headless:8001')\n"


@contextmanager
def connected(policy: str, folder: Path, *addresses: str) -> Iterator[Callable[[int], None]]:
    """Run the page's program for these addresses, and yield what makes calls, all of which have one answer."""
    target = "ipv4:" + ",".join(addresses)
    (folder / "client.py").write_text(policy.replace("dns:///spikeserve-headless:8001", target))
    assert target in (folder / "client.py").read_text()
    client = runpy.run_path(str(folder / "client.py"))["client"]
    tensor = triton.InferInput("inputs", [1, 1, 8, 8], "FP32")
    tensor.set_data_from_numpy(np.full((1, 1, 8, 8), 8, np.float32))

    def call(times: int) -> None:
        answers = [client.infer("digits", [tensor]).as_numpy("spike_counts").tolist() for _ in range(times)]
        assert answers == answers[:1] * times

    yield call
    client.close()


@contextmanager
def proxied(one: Process, two: Process, folder: Path) -> Iterator[str]:
    """Run HAProxy on the page's configuration before two replicas; yield its address."""
    text = HAPROXY
    for theirs, ours in (("10.0.0.1", one), ("10.0.0.2", two)):
        http = ours.url.rpartition(":")[2]
        text = text.replace(f"{theirs}:8001", address(ours)).replace("port 8000", f"port {http}", 1)
    assert "10.0.0" not in text
    with haproxy(text, "127.0.0.1:8001", folder) as proxy:
        yield proxy


def answered(replica: Process) -> int:
    """Return how many requests a replica has answered."""
    counted = re.findall(
        r'^spikeserve_model_requests_total\{model="digits",.*status="200".*\} (\S+)$',
        httpx.get(f"{replica.url}/metrics").text,
        re.MULTILINE,
    )
    return sum(int(float(each)) for each in counted)


def shares(replicas: tuple[Process, Process], call: Callable[[int], None]) -> list[int]:
    """Make ten calls, and return how many each replica has answered once all are counted, the last after its answer."""
    before = list(map(answered, replicas))
    call(10)
    while sum(counted := list(map(sub, map(answered, replicas), before))) < 10:
        pass
    return counted


@pytest.fixture(scope="module")
def replicas() -> Iterator[tuple[Process, Process]]:
    """Two replicas, of which the last test ends one."""
    with serving_grpc(PRETRAINED, ready=2) as one, serving_grpc(PRETRAINED, ready=2) as two:
        yield one, two


@NEEDS_HAPROXY
def test_a_proxy_of_http2_divides_one_connections_calls(replicas: tuple[Process, Process], tmp_path: Path) -> None:
    with proxied(*replicas, tmp_path) as proxy, connected(PLAIN, tmp_path, proxy) as call:
        assert shares(replicas, call) == [5, 5]


def test_calls_are_divided_evenly_and_go_on_when_a_replica_shuts_down(
    replicas: tuple[Process, Process], tmp_path: Path
) -> None:
    one, two = replicas
    with connected(POLICY, tmp_path, address(one), address(two)) as call:
        for _ in range(300):  # the connection that is there first has all calls until the other one is there
            call(1)
            if answered(one) and answered(two):
                break
        assert shares(replicas, call) == [5, 5]
        one.process.terminate()
        call(10)
        assert one.ended() == 0
        call(10)
