"""The client of a Spikeserve server: predictions, and streams that go on by themselves after a lost connection.

    from spikeserve import Client

    with Client("http://localhost:8000", model="braille") as client:
        (prediction,) = client.predict(raster)
        for window in client.stream(recording, step_us=1000):
            print(window.t, window.label)

`AsyncClient` has the same methods, to be awaited. docs/streaming.md and docs/client.md are the pages.

Each name is imported when it is first asked for. The command, the service and training lie here too: they need no
httpx, and the service handles signals before it imports anything that takes long.
"""

import importlib as _importlib
import typing as _typing

if _typing.TYPE_CHECKING:
    from spikeserve.answers import Prediction, SessionState, Summary, Window
    from spikeserve.async_client import AsyncClient, AsyncSession
    from spikeserve.client import Client, Session
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
    from spikeserve.files import read_events
    from spikeserve.records import RECORD, Events, events

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

_MODULES = {
    "answers": ("Prediction", "SessionState", "Summary", "Window"),
    "async_client": ("AsyncClient", "AsyncSession"),
    "client": ("Client", "Session"),
    "errors": (
        "AnswerError",
        "ConnectionLost",
        "InvalidEvents",
        "InvalidOption",
        "InvalidRequest",
        "ModelNotFound",
        "NoKey",
        "SessionError",
        "SpikeserveError",
        "TookTooLong",
        "TooLarge",
        "Unavailable",
    ),
    "records": ("RECORD", "Events", "events"),
    "files": ("read_events",),
}
_PLACES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> _typing.Any:
    """Import a name of the client; raises ImportError where the extra `client` is not installed."""
    if name not in _PLACES:
        raise AttributeError(f"module 'spikeserve' has no attribute '{name}'")
    try:
        module = _importlib.import_module(f"spikeserve.{_PLACES[name]}")
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{name} needs the extra client: pip install 'spikeserve[client]' (there is no module '{error.name}')"
        ) from error
    return getattr(module, name)


def __dir__() -> list[str]:
    return [*globals(), *_PLACES]
