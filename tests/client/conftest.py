"""A server with a model of events, for the tests of the client."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from spikeserve import Client
from tests.bundles import publish
from tests.service.sessions.conftest import pairs
from tests.serving import Process, running


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A server of the model 'pairs', whose two units spike at every second event, and whose windows last 2 ms."""
    root = tmp_path_factory.mktemp("repository")
    publish(root, pairs(), "pairs")
    with running(root, "--session-idle-seconds", "1") as process:
        yield process


@pytest.fixture
def client(service: Process) -> Iterator[Client]:
    with Client(service.url) as each:
        yield each
