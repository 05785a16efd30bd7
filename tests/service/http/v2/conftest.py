"""Models for the tests of the protocol, and clients of an app that serves them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from spikeserve.models.spec.network import Network
from tests.bundles import published
from tests.contracts.answers import NETWORKS
from tests.serving import serving


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, digits_like: Network) -> Path:
    """The toy, a rate-coded one, one that takes spikes, one that reads out membranes, a larger one and a regression."""
    return published(
        tmp_path_factory,
        digits=digits_like,
        **{name: NETWORKS[name] for name in ("toy", "rate", "spikes", "whole", "arm")},
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
