"""What several test files share."""

from __future__ import annotations

import numpy as np
import pytest

from models.spec.network import Network
from tests.networks import network_of


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
