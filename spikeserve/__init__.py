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
    from spikeserve._async.client import AsyncClient
    from spikeserve._async.session import AsyncSession
    from spikeserve._sync.client import Client
    from spikeserve._sync.session import Session
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
    from spikeserve.records import RECORD, Events, events, read_events

__all__ = [
    "RECORD", "AnswerError", "AsyncClient", "AsyncSession", "Client", "ConnectionLost", "Events", "InvalidEvents",
    "InvalidOption", "InvalidRequest", "ModelNotFound", "NoKey", "Prediction", "Session", "SessionError",
    "SessionState", "SpikeserveError", "Summary", "TooLarge", "TookTooLong", "Unavailable", "Window", "events",
    "read_events",
]  # fmt: skip

# Where they are looked for: in those that need numpy alone first.
_MODULES = ("answers", "errors", "records", "_sync.client", "_sync.session", "_async.client", "_async.session")


def __getattr__(name: str) -> _typing.Any:
    """Import a name of the client; raises ImportError where the extra `client` is not installed."""
    if name not in __all__:
        raise AttributeError(f"module 'spikeserve' has no attribute '{name}'")
    try:
        modules = (_importlib.import_module(f"spikeserve.{place}") for place in _MODULES)
        return next(getattr(module, name) for module in modules if hasattr(module, name))
    except ModuleNotFoundError as error:
        how = _importlib.import_module("spikeserve.models.errors").install("client")
        raise ImportError(f"{name} needs the extra client: {how} (there is no module '{error.name}')") from error


def __dir__() -> list[str]:
    return [*globals(), *__all__]
