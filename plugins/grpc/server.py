"""The gRPC server: it listens on a port of its own, in the process and on the event loop of the HTTP server."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from spikeserve.plugins.grpc import methods, reflection
from spikeserve.plugins.grpc.call import Calls
from spikeserve.plugins.grpc.infer import INFER, Infer
from spikeserve.plugins.grpc.methods import HEALTH, SERVICE
from spikeserve.plugins.grpc.stream import STREAM, Streams
from spikeserve.service.errors import Misconfigured
from spikeserve.service.services import Services
from spikeserve.service.settings import Settings

OPEN = frozenset({"ServerLive", "ServerReady", "Check"})  # methods without a key, as the probes over HTTP
METHODS = {
    "ServerLive": methods.server_live,
    "ServerReady": methods.server_ready,
    "ServerMetadata": methods.server_metadata,
    "ModelReady": methods.model_ready,
    "ModelMetadata": methods.model_metadata,
    "ModelConfig": methods.model_config,
    "RepositoryIndex": methods.repository_index,
    "RepositoryModelLoad": methods.repository_load,
    "RepositoryModelUnload": methods.repository_unload,
}
CONTROL = "Repository"  # the methods with this prefix need an admin's key, as the paths of the repository over HTTP

MAX_STREAMS = 256  # RPCs in progress on one connection; a client waits with further ones
MAX_METADATA_BYTES = 2**14  # of one request, as HTTP/2 counts them; grpc's own default for what it surely takes
IDLE_SECONDS = 300  # a connection without RPCs is closed after that
AGE_SECONDS = 600  # and any other once its RPCs are over: its client then looks for the addresses of all replicas
KEEPALIVE_SECONDS, KEEPALIVE_ANSWER_SECONDS = 60, 20  # a client that is gone without a word is found after both
PING_SECONDS = 10  # the least between a client's own pings; one that pings faster is disconnected after some
CLOSING_SECONDS = 0.25  # for the last answers to leave, once the grace period is over


class GrpcServer:
    """gRPC's server for the services of one app. It is made on the event loop that it runs on."""

    def __init__(self, services: Services, port: int) -> None:
        self.services, self.port = services, port
        self.infer = Infer(services)
        self.calls, self.streams = Calls(services, port), Streams()
        self.server: Any = None

    async def start(self, host: str) -> None:
        """Listen on `host`; raises Misconfigured where that is impossible."""
        self.server = grpc.aio.server(options=options(self.services.settings))
        answers = METHODS | {INFER: self.infer.answer}
        handlers = {SERVICE: {name: self._handler(SERVICE, name, answer) for name, answer in answers.items()}}
        handlers[SERVICE][STREAM] = self._handler(SERVICE, STREAM, self.streams.answer, stream=True)
        handlers[HEALTH] = {"Check": self._handler(HEALTH, "Check", methods.check)}
        for name in reflection.SERVICES:
            handlers[name] = {reflection.METHOD: self._handler(name, reflection.METHOD, reflection.answer, stream=True)}
        self.server.add_generic_rpc_handlers(
            tuple(grpc.method_handlers_generic_handler(name, each) for name, each in handlers.items())
        )
        try:
            self.server.add_insecure_port(f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}")
        except RuntimeError as error:
            raise Misconfigured(f"--grpc-port: cannot listen on {host} port {self.port}") from error
        await self.server.start()

    def _handler(self, service: str, name: str, answer: Any, *, stream: bool = False) -> Any:
        key, control = name not in OPEN, name.startswith(CONTROL)
        return self.calls.handler(f"/{service}/{name}", answer, key=key, control=control, stream=stream)

    @property
    def in_progress(self) -> bool:
        """Whether any RPC is in progress."""
        return bool(self.calls.tasks)

    def end_streams(self) -> None:
        """Have each stream end once its requests are answered."""
        self.streams.end_all()

    async def cancel_all(self) -> bool:
        """End the RPCs that are left, each of which is answered UNAVAILABLE; return whether there were any."""
        self.calls.ending = True
        tasks = list(self.calls.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSING_SECONDS)
        return bool(tasks)

    async def stop(self, seconds: float) -> None:
        """Close the port, and all connections once their RPCs have ended, or after so many seconds."""
        closing = asyncio.create_task(self.server.stop(max(seconds, CLOSING_SECONDS)))
        while not (await asyncio.wait([closing], timeout=CLOSING_SECONDS))[0] and self.in_progress:
            self.end_streams()  # also those that were opened last
        await asyncio.gather(closing, self.server.stop(None))  # a client may not have read that it is to close


def options(settings: Settings) -> list[tuple[str, int]]:
    """Return the options of grpc's core, which bound the resources of a client."""
    return [
        ("grpc.max_receive_message_length", settings.max_body_bytes),  # also once it is decompressed
        ("grpc.max_send_message_length", -1),  # answers have their own limit
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.server_handshake_timeout_ms", round(settings.header_seconds * 1000)),
        ("grpc.max_connection_idle_ms", IDLE_SECONDS * 1000),
        ("grpc.max_connection_age_ms", AGE_SECONDS * 1000),
        ("grpc.keepalive_time_ms", KEEPALIVE_SECONDS * 1000),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_ANSWER_SECONDS * 1000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", PING_SECONDS * 1000),
        ("grpc.so_reuseport", 1),  # each of several workers listens for itself
    ]
