"""Models for the tests of the protocol, and clients of an app that serves them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from spikeserve.models.spec import Coding
from spikeserve.models.spec.network import Network
from tests.bundles import published
from tests.networks import network_of, regression, task, toy
from tests.serving import serving


def integrator() -> Network:
    """Two inputs into two neurons that never fire: the last membrane is the sum of what came in."""
    return network_of(
        [{"type": "I", "name": "out"}], {}, **task(2, 2, ["left", "right"], low=-8, high=8, readout="last_membrane")
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, digits_like: Network) -> Path:
    """The toy, a rate-coded one, one that takes spikes, one that reads out membranes, a larger one and a regression."""
    return published(
        tmp_path_factory,
        toy=toy(),
        rate=toy(Coding.RATE, time_steps=16),
        spikes=toy(Coding.SPIKES),
        integrator=integrator(),
        digits=digits_like,
        regression=regression(units=["rad", "m/s"]),
    )


@pytest.fixture(scope="module")
def http(models: Path) -> Iterator[TestClient]:
    """A client of all of them, which the tests of a file share: they only read."""
    with serving(models, default_model="toy") as client:
        yield client


@pytest.fixture
def client(fresh: TestClient) -> TestClient:
    """A client of a toy model of the test's own."""
    return fresh
