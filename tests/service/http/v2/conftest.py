"""A service as a process of its own for the tests of the protocol, and requests for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from spikeserve.models.spec import Coding
from spikeserve.models.spec.network import Network
from tests.bundles import publish
from tests.networks import network_of, regression, toy
from tests.serving import Process, running


def integrator() -> Network:
    """Two inputs into two neurons that never fire: the last membrane is the sum of what came in."""
    return network_of(
        [{"type": "I", "name": "out"}],
        {},
        input={"shape": [2], "low": -8, "high": 8},
        time_steps=2,
        readout="last_membrane",
        labels=["left", "right"],
    )


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, digits_like: Network) -> Iterator[Process]:
    """The toy, a rate-coded one, one that takes spikes, one that reads out membranes, a larger one and a regression."""
    root: Path = tmp_path_factory.mktemp("repository")
    publish(root, toy())
    publish(root, toy(Coding.RATE, time_steps=16), "rate")
    publish(root, toy(Coding.SPIKES), "spikes")
    publish(root, integrator(), "integrator")
    publish(root, digits_like, "digits")
    publish(root, regression(units=["rad", "m/s"]), "regression")
    with running(root, "--default-model", "toy", until="listening") as process:
        for _ in range(6):
            process.wait_for("model_ready")
        yield process
        assert process.stop() == 0  # with its log read to the end


@pytest.fixture
def http(service: Process) -> Iterator[httpx.Client]:
    """A plain client of it."""
    with httpx.Client(base_url=service.url, timeout=60) as client:
        yield client
