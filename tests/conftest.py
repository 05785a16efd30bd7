"""What several test files share."""

import gc
import inspect
import os
import signal
from collections.abc import Generator, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from httpx._transports import default
from hypothesis import settings

from spikeserve.models import door
from spikeserve.models.bundle.repository import PRETRAINED, ModelRepository
from spikeserve.models.engines.compiling import compiled
from spikeserve.models.errors import EngineUnavailable
from spikeserve.models.spec.network import Network
from spikeserve.service import app
from spikeserve.service.inference.decoding.readers import prepare
from spikeserve.service.settings import ENVIRONMENT_PREFIX, available_cores
from tests import held
from tests.networks import network_of, task

# PyTorch gets one thread. More would keep the cores busy that the other test processes need, and a test that forks
# would hang, because threads do not live on in the new process.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# By itself Hypothesis fails an example of over 0.2 s, which is nothing on a busy machine.
settings.register_profile("ours", deadline=None, max_examples=int(os.environ.get("SPIKESERVE_EXAMPLES", "30")))
settings.load_profile("ours")

# By itself httpx gives an answer up after 5 s, which a busy machine may take to start a process that has to be asked.
vars(inspect.signature(httpx.Client).parameters["timeout"].default).update(vars(httpx.Timeout(60)))
# By itself each of its clients reads all certificates, which takes 10 ms.
vars(default).update(create_ssl_context=cache(httpx.create_ssl_context))

app.create_app = held.watch(app.create_app)  # before any test imports it


@pytest.fixture
def plugins_dir(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of plugins, as --plugins-dir names it, which the door reads at its first use in a test."""
    monkeypatch.setenv(door.FOLDER, str(folder := tmp_path_factory.mktemp("plugins")))
    door.opened.cache_clear()
    yield folder
    door.opened.cache_clear()


def pytest_collection() -> None:
    """Look for no garbage while tests are collected: what is imported stays, and to look at it takes half a second."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Compile kernels, without which servers begin with another engine; never look at what was imported again."""
    if find_spec("numba") and not compiled():
        prepare("event")
    gc.freeze()
    gc.enable()


def pytest_xdist_auto_num_workers() -> int:
    """Return two processes more than there are cores: tests of servers wait for a part of their time."""
    return available_cores() + 2


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None]:
    """Fail a test after which anything is held that should have been given back."""
    yield
    held.check()


@pytest.fixture(scope="session")
def shipped() -> Iterator[Any]:
    """The service with the models that ship, all of them ready, which tests only read from."""
    from tests.serving import running  # here, since it needs what serving needs

    with running(PRETRAINED, ready=len(list(ModelRepository(PRETRAINED).names()))) as process:
        yield process


@pytest.fixture(scope="module")
def fast_servers() -> Iterator[None]:
    """Have each server of a module run the engine that starts fastest: no engine is the subject there."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(f"{ENVIRONMENT_PREFIX}ENGINE", "reference")
        yield


@pytest.fixture(autouse=True)
def _signal_handlers() -> Iterator[None]:
    """Put back the handlers of signals that a test changes, as the server's command line does."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


if find_spec("torch") is None:  # as where ./scripts/test-pythons runs them

    def pytest_runtest_setup(item: pytest.Item) -> None:
        """Skip a test that is run once for each engine, for this one."""
        if isinstance(item, pytest.Function) and hasattr(item, "callspec") and "torch" in item.callspec.params.values():
            pytest.skip("PyTorch is not installed for this Python")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call() -> Generator[None]:
        """Skip a test that goes through all engines itself, once it comes to this one."""
        try:
            return (yield)
        except EngineUnavailable as error:
            if str(error) == "engine 'torch': the package torch is not installed here":
                pytest.skip("PyTorch is not installed for this Python")
            raise


@pytest.fixture(scope="session")
def digits_like() -> Network:
    """A 64-32-10 network with weights that are not dyadic, as trained ones are."""
    rng = np.random.default_rng(7)
    return network_of(
        [
            {"type": "Linear", "name": "fc1", "in_features": 64, "out_features": 32},
            {"type": "LIF", "name": "lif1", "decay": 0.9},
            {"type": "Linear", "name": "fc2", "in_features": 32, "out_features": 10},
            {"type": "LIF", "name": "lif2", "decay": 0.9},
        ],
        {
            "fc1.weight": rng.normal(0, 0.2, (32, 64)),
            "fc1.bias": rng.normal(0, 0.1, 32),
            "fc2.weight": rng.normal(0, 0.4, (10, 32)),
            "fc2.bias": rng.normal(0, 0.1, 10),
        },
        **task(64, 12, 10),
    )
