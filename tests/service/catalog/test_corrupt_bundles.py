"""Folders that cannot be read, while models are served: what serves goes on."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog

from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.errors import InvalidBundle
from spikeserve.service.catalog.loader import scan
from tests.bundles import publish
from tests.networks import toy

NOBODY = 65534  # a user who is not root, where the tests run as root


@contextmanager
def unprivileged() -> Iterator[Path]:
    """Yield an empty folder to somebody whom a mode keeps out of a folder, as it does not keep out root."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as name:  # not pytest's own, whose parents only this user may enter
        if user == 0:
            os.chown(name, NOBODY, -1)
            os.seteuid(NOBODY)
        try:
            yield Path(name)
        finally:
            os.seteuid(user)


@pytest.mark.parametrize("mode", [0o000, 0o444], ids=["closed", "listed"])
def test_a_version_whose_folder_cannot_be_read_stops_no_other(mode: int) -> None:
    with unprivileged() as root:
        publish(root, toy())
        publish(root, toy())
        (root / "toy" / "2").chmod(mode)
        found = scan(ModelRepository(root))
        assert {name: list(versions) for name, versions in found.items()} == {"toy": [1, 2]}
        with pytest.raises(InvalidBundle, match=r"^bundle\.json: cannot be read: Permission denied$"):
            ModelRepository(root).read("toy", 2)
        (root / "toy" / "2").chmod(0o755)
        assert scan(ModelRepository(root))["toy"][2] != found["toy"][2]  # and so a poll tries it again


def test_a_model_whose_folder_cannot_be_read_is_logged_and_stops_no_other() -> None:
    with unprivileged() as root:
        publish(root, toy())
        publish(root, toy(), "closed")
        (root / "closed").chmod(0o000)
        with structlog.testing.capture_logs() as entries:
            assert list(scan(ModelRepository(root))) == ["toy"]
        (entry,) = entries
        assert (entry["event"], entry["model"], entry["error"]) == ("model_unreadable", "closed", "Permission denied")
        with pytest.raises(InvalidBundle, match=r"^the folder of model 'closed' cannot be read: Permission denied$"):
            ModelRepository(root).read("closed", 1)
        (root / "closed").chmod(0o755)
