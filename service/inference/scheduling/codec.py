"""The codec: how one protocol decodes requests and renders answers. The pipeline knows nothing else of a protocol."""

from __future__ import annotations

from typing import Protocol, TypeVar

from spikeserve.models.engines import RunResult, State
from spikeserve.service.inference.scheduling.query import Query

Content_co = TypeVar("Content_co", covariant=True)
Q = TypeVar("Q", bound=Query)

SMALL_BODY = 2**14  # bytes; decoding a longer body takes longer than handing it to another thread
FEW_VALUES = 2**18  # values of all samples; making more takes longer than handing the request to another thread


class Codec(Protocol[Q, Content_co]):
    """Decodes and answers one request for one model. Its methods may run on any thread and keep no state."""

    def decode_small(self, body: bytes) -> Q | None:
        """Decode a body of at most SMALL_BODY bytes on the event loop; return None where that could take long.

        A few events may stand for a large raster, and a compressed body may be long. Raises as `decode` does.
        """
        ...

    def waits(self, body: bytes) -> bool:
        """Return whether decoding a body may wait for another process, as for one that reads a recording's file."""
        ...

    def decode(self, body: bytes) -> Q:
        """Decode a body. Raises UnsupportedMedia, MalformedBody, InvalidInput or TooLarge."""
        ...

    def render(self, query: Q, result: RunResult, after: State | None) -> Content_co:
        """Render the answer's content: at once where it takes at most SHORT_BYTES, else in pieces.

        `after` is the state after the last step of a request of a sequence.
        """
        ...
