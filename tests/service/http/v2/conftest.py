"""Models for the tests of the protocol, and clients of an app that serves them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from spikeserve.models.spec import Coding
from spikeserve.models.spec.network import Network
from tests.bundles import publish
from tests.networks import network_of, regression, toy
from tests.serving import serving


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
def models(tmp_path_factory: pytest.TempPathFactory, digits_like: Network) -> Path:
    """The toy, a rate-coded one, one that takes spikes, one that reads out membranes, a larger one and a regression."""
    root: Path = tmp_path_factory.mktemp("repository")
    publish(root, toy())
    publish(root, toy(Coding.RATE, time_steps=16), "rate")
    publish(root, toy(Coding.SPIKES), "spikes")
    publish(root, integrator(), "integrator")
    publish(root, digits_like, "digits")
    publish(root, regression(units=["rad", "m/s"]), "regression")
    return root


@pytest.fixture(scope="module")
def http(models: Path) -> Iterator[TestClient]:
    """A client of all of them, which the tests of a file share: they only read."""
    with serving(models, default_model="toy") as client:
        yield client


@pytest.fixture
def client(fresh: TestClient) -> TestClient:
    """A client of a toy model of the test's own."""
    return fresh
