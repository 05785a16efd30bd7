"""gRPC in the server's process: its port, several workers, and how it ends."""

import socket
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc import StatusCode

from spikeserve.models import door
from spikeserve.models.errors import install
from spikeserve.plugins.grpc import messages, reflection
from spikeserve.plugins.grpc.methods import HEALTH, SERVICE
from spikeserve.plugins.grpc.protocol import PROTOCOL
from spikeserve.service.errors import Misconfigured
from spikeserve.service.process import command_line
from tests.plugins.grpc.rpc import Open, Rpc, address, free_port, infer_request, outputs, serving_grpc
from tests.serving import Process, running

pytestmark = pytest.mark.usefixtures("reference_engine")

REQUEST = infer_request(np.array([[0.6, 2.0]]))


def test_without_the_setting_nothing_of_grpc_is_imported(repository: Path) -> None:
    # A library that cannot be imported is not missed.
    program = (
        "import sys\nfor name in ('grpc', 'google.protobuf'): sys.modules[name] = None\n"
        "from spikeserve.service.process.command_line import main\nsys.exit(main(sys.argv[1:]))"
    )
    with running(repository, program=("-c", program)) as service:
        assert httpx.post(f"{service.url}/predict", json={"inputs": [[0.6, 2.0]]}).status_code == 200
        assert "grpc_port" not in service.entries[0]
        assert service.stop() == 0


@pytest.mark.parametrize("library", ["grpc", "google.protobuf"])
def test_a_library_that_is_missing_is_named(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], library: str
) -> None:
    monkeypatch.setattr(door, "find_spec", lambda name: None if name == library else find_spec(name))
    assert command_line.main(["--repository", str(repository), "--grpc-port", "1"]) == 2
    assert capsys.readouterr() == (
        "",
        f"spikeserve: grpc_port: is set, but '{library}' is not installed: {install('grpc')}\n",
    )


@pytest.mark.parametrize("version", reflection.SERVICES)
def test_a_client_learns_services_and_messages_by_reflection(rpc: Rpc, version: str) -> None:
    database = pytest.importorskip(
        "grpc_reflection.v1alpha.proto_reflection_descriptor_database", reason="the extra 'dev' has grpcio-reflection"
    )

    class Channel:  # the library asks by the older name alone
        def stream_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
            return rpc.channel.stream_stream(f"/{version}/{method.rpartition('/')[2]}", *arguments, **options)

    told = database.ProtoReflectionDescriptorDatabase(Channel())
    assert list(told.get_services()) == [SERVICE, HEALTH]
    pool, ours = DescriptorPool(told), messages.ModelInferRequest.DESCRIPTOR
    asked = pool.FindServiceByName(SERVICE).methods_by_name["ModelInfer"].input_type
    assert list(asked.fields_by_name) == list(ours.fields_by_name)
    assert pool.FindServiceByName(HEALTH).methods_by_name.keys() == ["Check"]
    with pytest.raises(KeyError):
        told.FindFileContainingSymbol("inference.Nothing")
    ask = rpc.channel.stream_unary(f"/{version}/{reflection.METHOD}")
    with pytest.raises(grpc.RpcError, match="the message is not a ServerReflectionRequest, expected one"):
        ask(iter([b"\xff"]), timeout=60)


def test_a_port_that_is_taken_is_refused_also_where_it_is_shared(service: Process) -> None:
    def refused(port: int) -> str:
        with pytest.raises(Misconfigured) as caught:
            PROTOCOL.reserve("127.0.0.1", port)
        return str(caught.value)

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert refused(port) == f"--grpc-port: cannot listen on 127.0.0.1 port {port}: Address already in use"
    taken_by_another = int(address(service).rpartition(":")[2])  # which would share it, as its own workers do
    assert refused(taken_by_another).endswith("Address already in use")


def test_it_listens_on_ipv6_as_well(repository: Path) -> None:
    if not socket.has_ipv6:
        pytest.skip("there is no IPv6 here")
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("there is no IPv6 here")
    port = free_port()
    with running(repository, "--host", "::1", "--grpc-port", str(port)) as service:
        with grpc.insecure_channel(f"[::1]:{port}") as channel:
            assert channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=60) == b"\x08\x01"
        assert service.stop() == 0


def test_several_workers_share_the_port_and_change_as_one(repository: Path) -> None:
    with serving_grpc(repository, "--workers", "2", ready=2) as service:
        counts = set()
        for _ in range(20):  # each connection reaches one of them
            with Rpc(service) as rpc:
                counts.add(str(outputs(rpc.call("ModelInfer", REQUEST))["spike_counts"]))
        assert counts == {"[[1, 3]]"}
        counted, route = 0.0, 'route="/inference.GRPCInferenceService/ModelInfer"'
        while counted != 20:  # a call is counted soon after its answer, and a worker that is late is left out
            lines = httpx.get(f"{service.url}/metrics", timeout=60).text.splitlines()
            of_calls = [each for each in lines if each.startswith("spikeserve_http_requests_total") and route in each]
            counted = sum(float(line.split()[-1]) for line in of_calls)
            assert counted <= 20
        with Rpc(service) as rpc:
            assert rpc.call("RepositoryModelUnload", b"\x0a\x03toy").isUnloaded
        for _ in range(10):
            with Rpc(service) as rpc:
                assert rpc.refused("ModelInfer", REQUEST).code() is StatusCode.NOT_FOUND
        assert service.stop() == 0


def wait_until_in_flight(service: Process) -> None:
    """Wait until a call is in progress, beside the request that asks for it."""
    while "spikeserve_http_requests_in_flight 2" not in httpx.get(f"{service.url}/metrics").text:
        pass


def test_what_was_accepted_is_answered_and_what_comes_later_is_unavailable(repository: Path) -> None:
    with serving_grpc(repository) as service, Rpc(service) as rpc, Rpc(service) as other:
        call = Open(rpc, "ModelInfer")
        wait_until_in_flight(service)
        service.process.terminate()
        while other.call("ServerReady").ready:
            pass
        error = other.refused("ModelInfer", REQUEST)
        assert (error.code(), error.details()) == (StatusCode.UNAVAILABLE, "the server is shutting down")
        assert int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"]) > 0
        assert other.call("ServerLive").live
        assert outputs(call.ask(REQUEST))["spike_counts"] == [[1, 3]]
        call.close()
        assert service.ended() == 0


def test_a_grace_period_that_ends_cuts_what_is_left(repository: Path) -> None:
    with serving_grpc(repository, "--shutdown-seconds", "1") as service, Rpc(service) as rpc:
        call = Open(rpc, "ModelInfer")
        wait_until_in_flight(service)
        service.process.terminate()
        with pytest.raises(grpc.RpcError) as ended:
            next(call.answers)
        assert ended.value.code() is StatusCode.UNAVAILABLE
        assert ended.value.details() == "the server is shutting down and could not wait for this request to end"
        call.close()
        assert service.ended() == 1
