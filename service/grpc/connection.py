"""End a connection that gRPC holds: its library ends neither a connection nor a call of a server by itself."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

import structlog

FILES = Path("/proc/self/fd")  # of this process; elsewhere than on Linux there is none
MAPPED = "::ffff:"  # before an IPv4 address where the library listens for both kinds


def hang_up(peer: str, port: int) -> None:
    """Shut down this process's connection between its `port` and `peer`, such as ipv4:127.0.0.1:40000."""
    address = address_of(peer)
    for file in FILES.iterdir() if FILES.is_dir() else ():
        with suppress(OSError):  # it is no socket, has no peer, or was closed just now
            if os.readlink(file).startswith("socket:"):  # noqa: PTH115  (it leads to no file)
                with socket.socket(fileno=os.dup(int(file.name))) as connection:
                    if _ends(connection) == (*address, port):
                        connection.shutdown(socket.SHUT_RDWR)
                        structlog.get_logger().warning("answer_unread", peer=peer)
                        return


def address_of(peer: str) -> tuple[str, int]:
    """Return the host and port of a peer, such as ipv4:127.0.0.1:40000; of one that has none, "" and 0."""
    host, _, number = unquote(peer).partition(":")[2].rpartition(":")
    return (host.strip("[]").removeprefix(MAPPED), int(number)) if number.isdigit() else ("", 0)


def _ends(connection: socket.socket) -> tuple[str, int, int] | None:
    """Return the peer's host and port, and our port; raises OSError for a socket without a peer."""
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    host, port, *_ = connection.getpeername()
    return host.removeprefix(MAPPED), port, connection.getsockname()[1]
