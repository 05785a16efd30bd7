"""An answer: its bytes, and the result of the run that they are rendered from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

from spikeserve.models.engines import RunResult, State
from spikeserve.models.spec import Spec

JSON_LINE = b"content-type: application/json\r\n"

T = TypeVar("T")


class Content(NamedTuple):
    """An answer: its body, of which a long one has `more` pieces, and over HTTP the lines of its headers.

    `headers` describe the body; `lines` are the other headers.
    """

    body: bytes
    headers: bytes = JSON_LINE
    lines: bytes = b""
    more: Sequence[bytes] = ()


@dataclass
class Results:
    """The result of a batch, and all that was computed of it once for all its answers."""

    result: RunResult
    spec: Spec
    computed: dict[Callable[[RunResult, Spec], Any], Any] = field(default_factory=dict)

    def once(self, function: Callable[[RunResult, Spec], T]) -> T:
        """Return a function of the result, which is computed for the first answer only."""
        value: T | None = self.computed.get(function)
        if value is None:
            value = self.computed[function] = function(self.result, self.spec)
        return value


class Renderer(Protocol):
    """Renders answers to one request or to several that ask for the same, on any thread."""

    def __call__(self, results: Results, own: slice, after: State | None = None, /) -> Content:
        """Render the answer for the samples `own` of a batch: at once where it is short, else in pieces.

        `after` is the state after the last step of a request of a sequence. Raises InvalidInput where a raster would
        hold too many spikes.
        """
