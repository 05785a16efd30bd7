"""A service that listens for gRPC, shared by the tests of a module, and a client of it."""

from collections.abc import Iterator

import pytest

from spikeserve.models.spec import Coding
from spikeserve.models.spec.network import Network
from tests.bundles import published
from tests.networks import regression, toy
from tests.plugins.grpc.rpc import Rpc, serving_grpc
from tests.service.conftest import _no_descriptors_are_left as _no_descriptors_are_left
from tests.service.conftest import _no_settings_from_outside as _no_settings_from_outside
from tests.service.conftest import _plain_tracebacks as _plain_tracebacks
from tests.service.conftest import anyio_backend as anyio_backend
from tests.service.conftest import digits_repository as digits_repository
from tests.service.conftest import reference_engine as reference_engine
from tests.service.conftest import repository as repository
from tests.service.sessions.conftest import pairs
from tests.serving import Process


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, digits_like: Network) -> Iterator[Process]:
    """The toy, one that takes spikes, a larger one, one of events and a regression."""
    root = published(
        tmp_path_factory,
        toy=toy(),
        spikes=toy(Coding.SPIKES),
        digits=digits_like,
        pairs=pairs(),
        regression=regression(),
    )
    with serving_grpc(root, "--default-model", "toy", ready=5) as process:
        yield process
        assert process.stop() == 0  # with its log read to the end


@pytest.fixture
def rpc(service: Process) -> Iterator[Rpc]:
    """A plain client of it."""
    with Rpc(service) as client:
        yield client
