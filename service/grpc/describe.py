"""Server reflection: clients such as grpcurl and Postman ask for the descriptors of the services.

They are the .proto files of this folder, which are the same for everyone and name no model. So no key is needed. The
library grpcio-reflection would do the same, but its code needs one of the newest versions of protobuf; `descriptors`
says why that matters.
"""

from __future__ import annotations

import asyncio
from typing import Any

from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from grpc import StatusCode

from spikeserve.service.errors import MalformedBody, Overloaded, shown
from spikeserve.service.grpc.call import EOF, Call
from spikeserve.service.grpc.descriptors import file_of
from spikeserve.service.grpc.reflection import (
    ErrorResponse,
    FileDescriptorResponse,
    ListServiceResponse,
    ServerReflectionRequest,
    ServerReflectionResponse,
    ServiceResponse,
)
from spikeserve.service.inference.protocols.v2.parsing import MAX_CONTROL_BYTES

REFLECTION = "grpc.reflection.v1.ServerReflection"
OLDER_REFLECTION = "grpc.reflection.v1alpha.ServerReflection"  # with the same messages
INFO = "ServerReflectionInfo"
FILES = ("messages", "health", "reflection")
NOT_FOUND = StatusCode.NOT_FOUND.value[0]
MAX_OPEN = 8  # streams at once in one process, since they need no key
SILENT_SECONDS = 5.0  # after which a stream ends; a client opens another when it asks again


class Reflection:
    """Answers what the services and messages of this server are."""

    def __init__(self) -> None:
        self.files = {file.name: file.SerializeToString() for file in map(file_of, FILES)}
        self.services = sorted(
            f"{file.package}.{service.name}" for file in map(file_of, FILES) for service in file.service
        )
        self.pool = DescriptorPool()
        for name in FILES:
            self.pool.Add(file_of(name))
        self.open = 0

    async def answer(self, call: Call) -> bytes:
        """Answer a stream of questions until its client ends it or is silent. Raises Overloaded and MalformedBody."""
        if self.open >= MAX_OPEN:
            raise Overloaded(f"{self.open} clients ask for descriptors, expected fewer than {MAX_OPEN}")
        self.open += 1
        try:
            while (content := await _next(call)) is not None:
                await call.context.write(self.describe(content).SerializeToString())
        finally:
            self.open -= 1
        return b""

    def describe(self, content: bytes) -> ServerReflectionResponse:
        """Return the answer to one question; raises MalformedBody for a message that is none."""
        if len(content) > MAX_CONTROL_BYTES:
            raise MalformedBody(f"the message has {len(content)} bytes, expected at most {MAX_CONTROL_BYTES} here")
        asked: Any = ServerReflectionRequest()
        try:
            asked.ParseFromString(content)
        except DecodeError as error:
            raise MalformedBody("the message is not a ServerReflectionRequest") from error
        answer = ServerReflectionResponse(valid_host=asked.host, original_request=asked)
        kind = asked.WhichOneof("message_request")
        file: bytes | None = None
        if kind == "list_services":
            listed = [ServiceResponse(name=name) for name in self.services]
            answer.list_services_response.CopyFrom(ListServiceResponse(service=listed))
            return answer
        if kind == "file_by_filename":
            file = self.files.get(asked.file_by_filename)
        elif kind == "file_containing_symbol":
            file = self._file_of(asked.file_containing_symbol)
        if file is None:  # nothing here has extensions
            sentence = "the message asks nothing, expected one of its fields"
            if kind is not None:
                sentence = f"{kind} is {shown(str(getattr(asked, kind)))}, expected what this server has"
            answer.error_response.CopyFrom(ErrorResponse(error_code=NOT_FOUND, error_message=sentence))
        else:
            answer.file_descriptor_response.CopyFrom(FileDescriptorResponse(file_descriptor_proto=[file]))
        return answer

    def _file_of(self, symbol: str) -> bytes | None:
        """Return the file that has a service, a method or a message, under its full name."""
        symbol = symbol.replace("grpc.reflection.v1alpha.", "grpc.reflection.v1.")
        for name in (symbol, symbol.rpartition(".")[0]):
            try:
                return self.files[self.pool.FindFileContainingSymbol(name).name]
            except KeyError:
                continue
        return None


async def _next(call: Call) -> bytes | None:
    """Return the next message; None at the end, or where none comes for long."""
    try:
        async with asyncio.timeout(SILENT_SECONDS):
            content = await call.context.read()
    except TimeoutError:
        return None
    return None if content is EOF else bytes(content)
