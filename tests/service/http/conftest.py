"""A client of the toy model that the tests of a file share: they only read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.bundles import published
from tests.networks import toy
from tests.serving import serving

if TYPE_CHECKING:  # its import warns, as `tests.serving` says
    from fastapi.testclient import TestClient


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A client of the toy model."""
    root = published(tmp_path_factory, toy=toy())
    with serving(root) as serving_toy:
        yield serving_toy


@pytest.fixture
def fresh(repository: Path) -> Iterator[TestClient]:
    """A client of a toy model of its own, for a test that counts or changes something."""
    with serving(repository) as serving_toy:
        yield serving_toy
