"""A Ray cluster of several processes on the loopback, which the tests here share, and repositories to serve in it."""

import socket
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("ray") is not None:
    from spikeserve.plugins.ray.job import connected, local_environment

    local_environment()  # before Ray is imported
    with warnings.catch_warnings():  # its own, of pydantic
        warnings.simplefilter("ignore")
        import ray.data
        import ray.serve
        import ray.train.torch  # noqa: F401


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder. What Ray warns of is in its own code."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker("ray")
            item.add_marker(pytest.mark.filterwarnings(r"ignore:::ray\."))


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """Be connected to a local cluster; it counts more CPUs than there are, so that every process finds one."""
    with connected(16):
        yield


@pytest.fixture(scope="session")
def proxy(cluster: None) -> Iterator[str]:  # noqa: ARG001
    """Return the address of Ray Serve's proxy."""
    from ray import serve

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()
