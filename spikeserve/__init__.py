"""The client of a Spikeserve server: predictions, and streams that go on by themselves after a lost connection.

    from spikeserve import Client

    with Client("http://localhost:8000", model="braille") as client:
        (prediction,) = client.predict(raster)
        for window in client.stream(recording, step_us=1000):
            print(window.t, window.label)

`AsyncClient` has the same methods, to be awaited. docs/streaming.md and docs/client.md are the pages.
"""

from spikeserve.answers import Prediction, SessionState, Summary, Window
from spikeserve.async_client import AsyncClient, AsyncSession
from spikeserve.client import Client, Session
from spikeserve.errors import (
    AnswerError,
    ConnectionLost,
    InvalidEvents,
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

__all__ = [
    "RECORD",
    "AnswerError",
    "AsyncClient",
    "AsyncSession",
    "Client",
    "ConnectionLost",
    "Events",
    "InvalidEvents",
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
