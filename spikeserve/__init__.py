"""The client of a Spikeserve server: predictions, and streams that go on by themselves after a lost connection.

    from spikeserve import Client

    with Client("http://localhost:8000", model="braille") as client:
        (prediction,) = client.predict(raster)
        for window in client.stream(recording, step_us=1000):
            print(window.t, window.label)

`AsyncClient` has the same methods, to be awaited. docs/streaming.md and docs/client.md are the pages.

Both are imported when they are first asked for: the command `spikeserve`, which lies here too, needs no httpx.
"""

import importlib as _importlib
import typing as _typing

from spikeserve.answers import Prediction, SessionState, Summary, Window
from spikeserve.errors import (
    AnswerError,
    ConnectionLost,
    InvalidEvents,
    InvalidOption,
    InvalidRequest,
    ModelNotFound,
    NoKey,
    SessionError,
    SpikeserveError,
    TookTooLong,
    TooLarge,
    Unavailable,
)
from spikeserve.events import RECORD, Events, events
from spikeserve.files import read_events

if _typing.TYPE_CHECKING:
    from spikeserve.async_client import AsyncClient, AsyncSession
    from spikeserve.client import Client, Session

__all__ = [
    "RECORD",
    "AnswerError",
    "AsyncClient",
    "AsyncSession",
    "Client",
    "ConnectionLost",
    "Events",
    "InvalidEvents",
    "InvalidOption",
    "InvalidRequest",
    "ModelNotFound",
    "NoKey",
    "Prediction",
    "Session",
    "SessionError",
    "SessionState",
    "SpikeserveError",
    "Summary",
    "TooLarge",
    "TookTooLong",
    "Unavailable",
    "Window",
    "events",
    "read_events",
]

_CLIENTS = {"AsyncClient": "async_client", "AsyncSession": "async_client", "Client": "client", "Session": "client"}


def __getattr__(name: str) -> _typing.Any:
    """Import a client; raises ImportError where the extra `client` is not installed."""
    if name not in _CLIENTS:
        raise AttributeError(f"module 'spikeserve' has no attribute '{name}'")
    try:
        module = _importlib.import_module(f"spikeserve.{_CLIENTS[name]}")
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{name} needs the extra client: pip install 'spikeserve[client]' (there is no module '{error.name}')"
        ) from error
    return getattr(module, name)


def __dir__() -> list[str]:
    return [*globals(), *_CLIENTS]
