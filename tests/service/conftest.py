"""Fixtures of the service's tests: repositories of toy models, and a client of one."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog
from structlog.dev import ConsoleRenderer, plain_traceback

from spikeserve.models.spec.network import Network
from spikeserve.service.settings import ENVIRONMENT_PREFIX
from spikeserve.service.telemetry import logs
from tests import held
from tests.bundles import publish
from tests.networks import toy
from tests.serving import serving

if TYPE_CHECKING:  # its import warns, as `tests.serving` says
    from fastapi.testclient import TestClient


@pytest.fixture(autouse=True, scope="module")
def _no_descriptors_are_left() -> Iterator[None]:
    """Fail the last test of a module whose tests left sockets or pipes open."""
    with held.descriptors():
        yield


@pytest.fixture(autouse=True, scope="session")
def _plain_tracebacks() -> None:
    """Log errors without the values of variables, as the server does: to write these takes a second."""
    *others, _ = structlog.get_config()["processors"]
    structlog.configure(processors=[*others, ConsoleRenderer(exception_formatter=plain_traceback)])


@pytest.fixture
def restored_logging() -> Iterator[None]:
    """Put back what the configuration of logs changes."""
    root, quoting = logging.getLogger(), logging.getLogger(logs.QUOTES_CLIENTS)
    handlers, level, hooks = root.handlers[:], root.level, (sys.excepthook, threading.excepthook)
    before = structlog.get_config()
    for each in map(
        logging.getLogger, ("uvicorn", "uvicorn.error")
    ):  # which another test's library may have configured
        each.handlers, each.propagate = [], True
    yield
    structlog.configure(**before)  # by default an error is written with the values of variables
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    quoting.setLevel(logging.NOTSET)
    sys.excepthook, threading.excepthook = hooks


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(ENVIRONMENT_PREFIX)]:
        monkeypatch.delenv(name)


@pytest.fixture
def reference_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each server of a test run the reference engine: a new Python starts with it in half the time."""
    monkeypatch.setenv(f"{ENVIRONMENT_PREFIX}ENGINE", "reference")


@pytest.fixture
def anyio_backend() -> str:
    """The event loop that awaited tests run on."""
    return "asyncio"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A model repository with the toy network as model 'toy', version 1."""
    root = tmp_path / "repository"
    publish(root, toy())
    return root


@pytest.fixture
def client(repository: Path) -> Iterator[TestClient]:
    """A client of the toy model."""
    with serving(repository) as serving_toy:
        yield serving_toy


@pytest.fixture
def digits_repository(tmp_path: Path, digits_like: Network) -> Path:
    """A model repository with a network of the digits' size as model 'digits'."""
    root = tmp_path / "digits"
    publish(root, digits_like, "digits")
    return root
