"""Fixtures that tests of plugins share with those of training."""

from tests.training.conftest import config, data, stripes

__all__ = ["config", "data", "stripes"]
