"""A data set that trains in a second."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikeserve.training.config import DataConfig, NetworkConfig, OptimisationConfig, TrainingConfig
from spikeserve.training.data.datasets import Dataset, load


@pytest.fixture(scope="session")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An .npz of 4×4 images with a bright row (class 0) or a bright column (class 1), in sixteenths."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 5, (160, 1, 4, 4)).astype(np.float32)
    y = np.arange(160) % 2
    for index, label in enumerate(y):
        line = rng.integers(0, 4)
        x[index, 0][(line, slice(None)) if label == 0 else (slice(None), line)] = 16
    path = tmp_path_factory.mktemp("data") / "stripes.npz"
    np.savez(path, x=x, y=y)
    return path


def changed(config: TrainingConfig, **sections: dict[str, Any]) -> TrainingConfig:
    """Return a configuration with other fields in some of its sections."""
    parts = {name: getattr(config, name).model_copy(update=fields) for name, fields in sections.items()}
    return config.model_copy(update=parts)


@pytest.fixture(scope="session")
def config(stripes: Path) -> TrainingConfig:
    """A small network and four epochs for `stripes`."""
    return TrainingConfig(
        data=DataConfig(dataset="arrays", file=stripes, low=0, high=16),
        network=NetworkConfig(architecture="4C3-AP2-16", time_steps=4),
        optimisation=OptimisationConfig(epochs=4, batch_size=16, learning_rate=1e-2),
    )


@pytest.fixture(scope="session")
def data(config: TrainingConfig) -> Dataset:
    """`stripes`, split."""
    return load(config.data, config.network.coding)
