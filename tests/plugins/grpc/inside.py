"""The gRPC server inside the test's own event loop, where its engine can be held, and an awaited client of it."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from spikeserve.plugins.grpc import messages
from spikeserve.plugins.grpc.methods import SERVICE
from spikeserve.plugins.grpc.server import GrpcServer
from tests.inside import Inside
from tests.plugins.grpc.rpc import ANSWERS, free_port
from tests.service.asgi import Client, started


class GrpcInside(Inside):
    """The app, its gRPC server, and a channel to that."""

    def __init__(self, client: Client, server: GrpcServer, channel: Any) -> None:
        super().__init__(client.app)
        self.client, self.server, self.channel = client, server, channel

    def call(self, name: str, request: Any = None, **options: Any) -> Any:
        """Begin to call a method with a message; to be awaited, or cancelled."""
        method = self.channel.unary_unary(
            f"/{SERVICE}/{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=ANSWERS[name].FromString,
        )
        return method(messages.ServerLiveRequest() if request is None else request, **options)

    def stream(self, name: str = "ModelStreamInfer", **options: Any) -> Any:
        """Open a call that sends messages, or their bytes, when a test asks for it."""
        method = self.channel.stream_stream(
            f"/{SERVICE}/{name}",
            request_serializer=lambda message: message if isinstance(message, bytes) else message.SerializeToString(),
            response_deserializer=ANSWERS.get(name, messages.ModelInferResponse).FromString,
        )
        return method(**options)


@asynccontextmanager
async def grpc_started(
    root: Path, channel_options: Mapping[str, int] | None = None, **settings: Any
) -> AsyncIterator[GrpcInside]:
    """Start an app on `root`, with its models loaded, its gRPC server, and a channel with these options."""
    port = free_port()
    async with started(root, **settings) as client:
        server = GrpcServer(client.services, port)
        await server.start("127.0.0.1")
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
        options += list((channel_options or {}).items())
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            yield GrpcInside(client, server, channel)
        await server.stop(0)


async def error_of(call: Any) -> grpc.aio.AioRpcError:
    """Return the error that a call ends with."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError(f"it was answered: {answer}")
