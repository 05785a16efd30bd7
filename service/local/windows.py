"""A stream of events or values in this process: one session, and a line of JSON for each window of time."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Sequence
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
from pydantic_core import to_json

from spikeserve.models.coding import Inputs
from spikeserve.models.engines import State
from spikeserve.models.errors import InvalidInput
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.errors import MalformedBody
from spikeserve.service.inference.sessions.batches import Results
from spikeserve.service.inference.sessions.messages import EndMessage, TimeMessage, read_message
from spikeserve.service.inference.sessions.session import Session
from spikeserve.service.inference.sessions.values import ValueWindows
from spikeserve.service.inference.sessions.windows import Windows

T = TypeVar("T")
Parts = Iterator[bytes | str]
Write = Callable[[bytes], None]


class OneByOne:
    """Runs the windows of one session, each at once."""

    def most(self, model: LoadedModel, steps: int) -> int:  # noqa: ARG002  (what `Runs` asks for)
        """Return 1: how many windows are run at once."""
        return 1

    async def run(self, model: LoadedModel, windows: Sequence[Inputs], state: State | None) -> Results:
        """Run one window from `state` on; None is rest."""
        result, after = model.engine.run(windows[0], state)
        return Results(result.spike_counts, result.readout, result.synaptic_operations, after)


def answer_windows(session: Session, parts: Parts, write: Write) -> None:
    """Write a line for each window of a stream, once it is closed, and one at the end.

    `parts` are event records, or values of float32, as bytes, and messages as text. Raises InvalidInput and
    MalformedBody.
    """
    windows = session.windows
    axes = len(windows.task.input.shape) if isinstance(windows, ValueWindows) else None
    for part in parts:
        arrived = perf_counter()
        match part if isinstance(part, bytes) else read_message(part, axes):
            case bytes() as sent:
                windows.add(windows.read(sent))
            case np.ndarray() as read:
                windows.add(read)
            case TimeMessage(t=t):
                if isinstance(windows, Windows):
                    windows.advance(t)
            case EndMessage():
                break
            case _:
                raise InvalidInput("message: type is 'state', expected events, values, time or end: nothing goes on")
        while closed := session.closed():
            for line in _finished(session.answer(closed, arrived)):
                write(line)
    while (window := windows.flush()) is not None:
        for line in _finished(session.answer([window], perf_counter())):
            write(line)
    write(to_json({"type": "end", "windows": windows.number, **windows.held}))


def _finished(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing, without an event loop, which would keep Ctrl-C from ending a read."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise RuntimeError("a window's run waits, expected it to end at once")


def records(chunks: Iterator[bytes], size: int) -> Parts:
    """Yield whole records of `size` bytes, as many as came; raises MalformedBody for a part of one at the end."""
    rest = b""
    for chunk in chunks:
        held = rest + chunk
        whole = len(held) - len(held) % size
        rest = held[whole:]
        if whole:
            yield held[:whole]
    if rest:
        raise MalformedBody(f"it ends with {len(rest)} bytes of a record, expected {size}")
