"""What several test files share."""

from __future__ import annotations

from collections.abc import Generator
from importlib.util import find_spec

import numpy as np
import pytest

from models.errors import EngineUnavailable
from models.spec.network import Network
from tests.networks import network_of

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
        input={"shape": [64]},
        time_steps=12,
        labels=[str(digit) for digit in range(10)],
    )
