"""A connection waits for the worker that has fewer, but not for long."""

import socket

import pytest

from spikeserve.service.process import listener
from spikeserve.service.process.listener import Listener, connections_of, listen


def test_a_worker_leaves_connections_to_one_that_has_fewer_until_that_has_let_them_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = connections_of(3)  # the last of which never serves
    with (
        listen("127.0.0.1", 0) as first,
        Listener(first.family, first.type, first.proto, first.dup().detach()) as other,
    ):
        for number, worker in enumerate((first, other)):
            worker.setblocking(False)
            worker.counts, worker.number = counts, number
            worker.listen()
        clients = [socket.create_connection(first.getsockname()) for _ in range(4)]
        monkeypatch.setattr(listener, "PATIENCE_SECONDS", 60.0)
        one, _ = first.accept()
        with pytest.raises(BlockingIOError):
            first.accept()
        two, _ = other.accept()
        three, _ = other.accept()
        assert list(counts) == [1, 2, listener.NOT_SERVING]
        one.close()
        one.close()
        assert list(counts) == [0, 2, listener.NOT_SERVING]
        monkeypatch.setattr(listener, "PATIENCE_SECONDS", 0.0)
        four, _ = other.accept()
        assert list(counts) == [0, 3, listener.NOT_SERVING]
        for each in (two, three, four, *clients):
            each.close()
