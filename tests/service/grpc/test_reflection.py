"""Server reflection: a client learns the services and calls them, without a .proto file and without a key."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from spikeserve.service.grpc.describe import MAX_OPEN, OLDER_REFLECTION, REFLECTION
from spikeserve.service.grpc.reflection import ServerReflectionRequest, ServerReflectionResponse
from tests.bundles import publish
from tests.networks import toy
from tests.service.grpc.rpc import Rpc, serving_grpc
from tests.serving import Process

SERVICES = ["grpc.health.v1.Health", REFLECTION, "inference.GRPCInferenceService"]


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A server with a key."""
    root: Path = tmp_path_factory.mktemp("repository")
    publish(root, toy())
    digest = f"sha256:{sha256(b'secret').hexdigest()}"
    with serving_grpc(root, "--engine", "reference", "--api-keys", digest) as process:
        yield process


def asked(rpc: Rpc, *questions: ServerReflectionRequest, service: str = REFLECTION) -> list[ServerReflectionResponse]:
    method = rpc.channel.stream_stream(
        f"/{service}/ServerReflectionInfo",
        request_serializer=lambda question: question.SerializeToString(),
        response_deserializer=ServerReflectionResponse.FromString,
    )
    return list(method(iter(questions), timeout=60))


@pytest.mark.parametrize("service", [REFLECTION, OLDER_REFLECTION])
def test_a_client_that_knows_nothing_learns_the_services_and_calls_one(keyed: Process, service: str) -> None:
    with Rpc(keyed) as rpc:
        (listed,) = asked(rpc, ServerReflectionRequest(list_services=""), service=service)
        assert [each.name for each in listed.list_services_response.service] == SERVICES
        files = asked(
            rpc, *(ServerReflectionRequest(file_containing_symbol=name) for name in SERVICES), service=service
        )
        pool = DescriptorPool()
        for answer in files:
            (content,) = answer.file_descriptor_response.file_descriptor_proto
            pool.Add(FileDescriptorProto.FromString(content))
        method = pool.FindServiceByName(SERVICES[2]).FindMethodByName("ServerReady")
        call = rpc.channel.unary_unary(f"/{SERVICES[2]}/{method.name}")
        ready: Any = GetMessageClass(method.output_type).FromString(call(b"", timeout=60))
        assert ready.ready
        with pytest.raises(grpc.RpcError) as refused:  # what needs a key goes on to need it
            rpc.channel.unary_unary(f"/{SERVICES[2]}/RepositoryIndex")(b"", timeout=60)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_files_are_found_by_name_by_method_and_by_message_and_nothing_else_is(keyed: Process) -> None:
    found = [
        ServerReflectionRequest(file_by_filename="messages.proto"),
        ServerReflectionRequest(file_containing_symbol="inference.GRPCInferenceService.ModelInfer"),
        ServerReflectionRequest(file_containing_symbol="inference.ModelInferRequest.InferInputTensor"),
    ]
    missing = [
        ServerReflectionRequest(file_by_filename="/etc/passwd"),
        ServerReflectionRequest(file_containing_symbol="toy"),
        ServerReflectionRequest(all_extension_numbers_of_type="inference.ModelInferRequest"),
        ServerReflectionRequest(),
    ]
    with Rpc(keyed) as rpc:
        answers = asked(rpc, *found, *missing)
    contents = {bytes(*answer.file_descriptor_response.file_descriptor_proto) for answer in answers[: len(found)]}
    assert [FileDescriptorProto.FromString(content).name for content in contents] == ["messages.proto"]
    assert [answer.original_request for answer in answers] == [*found, *missing]
    for answer in answers[len(found) :]:
        assert answer.error_response.error_code == 5  # NOT_FOUND
    assert answers[len(found)].error_response.error_message == (
        "file_by_filename is '/etc/passwd', expected what this server has"
    )


def test_what_is_no_question_is_refused_and_few_may_ask_at_once(keyed: Process) -> None:
    with Rpc(keyed) as rpc:
        method = rpc.channel.stream_stream(f"/{REFLECTION}/ServerReflectionInfo")
        with pytest.raises(grpc.RpcError, match="the message is not a ServerReflectionRequest"):
            list(method(iter([b"\xff"]), timeout=60))
        with pytest.raises(grpc.RpcError, match="expected at most"):
            list(method(iter([bytes(2**20)]), timeout=60))
        question = ServerReflectionRequest(list_services="").SerializeToString()

        def silent() -> Iterator[bytes]:
            yield question
            over.wait(60)

        over = threading.Event()
        streams = [method(silent(), timeout=60) for _ in range(MAX_OPEN)]
        for stream in streams:
            next(stream)
        with pytest.raises(grpc.RpcError, match=f"{MAX_OPEN} clients ask for descriptors") as refused:
            list(method(iter([question]), timeout=60))
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert [list(stream) for stream in streams] == [[]] * MAX_OPEN  # each ends once it is silent for long
        over.set()
        assert len(list(method(iter([question]), timeout=60))) == 1
