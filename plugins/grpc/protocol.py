"""gRPC as a protocol of the service: its port is reserved before the service forks, and each worker then shares it.

gRPC's library is imported by each worker alone: its threads would not live on in a process that is forked.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from spikeserve.service.errors import Misconfigured

if TYPE_CHECKING:
    from spikeserve.plugins.grpc.server import GrpcServer
    from spikeserve.service.services import Services


class Grpc:
    """gRPC before it is started, see `models.kinds.ServiceProtocol`."""

    threads = 19  # of gRPC's core: one for each core of the processor, 4 to 16, and three more

    def reserve(self, host: str, port: int) -> socket.socket:
        """Return a socket that holds the port, which each worker then shares; raises Misconfigured.

        Without it, another server that shares its port as well could take a part of the connections unnoticed. It does
        not listen, so no connection goes to it. On Windows, where ports are not shared, it holds nothing.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        holder = socket.socket(family, socket.SOCK_STREAM)
        if not hasattr(socket, "SO_REUSEPORT"):
            return holder
        try:
            with socket.socket(family, socket.SOCK_STREAM) as alone:
                alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                alone.bind((host, port))
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            holder.bind((host, port))
        except OSError as error:
            holder.close()
            raise Misconfigured(f"--grpc-port: cannot listen on {host} port {port}: {error.strerror}") from error
        return holder

    async def start(self, services: Services, host: str, port: int) -> GrpcServer:
        """Listen there; raises Misconfigured where that is impossible."""
        from spikeserve.plugins.grpc.server import GrpcServer

        server = GrpcServer(services, port)
        await server.start(host)
        return server


PROTOCOL = Grpc()
