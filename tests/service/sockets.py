"""Raw connections to a service, for what no HTTP client would send."""

import socket
from urllib.parse import urlsplit

from tests.serving import Process

CHUNK = 2**16


def connect(service: Process) -> socket.socket:
    place = urlsplit(service.url)
    connection = socket.create_connection((place.hostname, place.port or 0), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def read_all(connection: socket.socket) -> bytes:
    """Read up to the end of the connection; one that is reset has ended too."""
    received = b""
    try:
        while part := connection.recv(CHUNK):
            received += part
    except ConnectionResetError:
        pass
    return received


def read_answer(connection: socket.socket) -> bytes:
    """Read one answer, up to the end of its body, of a connection that may stay open."""
    received = b""
    while b"}" not in received:
        received += connection.recv(CHUNK)
    return received
