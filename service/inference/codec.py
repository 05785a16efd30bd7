"""The codec: how one protocol asks a model and is answered. The pipeline knows nothing else of a protocol."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from typing import Protocol, TypeVar

from models.engines import RunResult
from service.inference.query import Query

Content_co = TypeVar("Content_co", covariant=True)
Q = TypeVar("Q", bound=Query)

SMALL_BODY = 2**14  # bytes; a longer one takes longer to decode than to hand to another thread
FEW_VALUES = 2**18  # of samples; more take longer to make than to hand a request to another thread
LONG_JSON = 2**20  # bytes; so long a body is decoded alone

_ONE_AT_A_TIME = Lock()
_AT_ONCE = nullcontext()


class Codec(Protocol[Q, Content_co]):
    """How one request for one model is decoded and answered. Its methods run on any thread and keep nothing."""

    def decode_small(self, body: bytes) -> Q | None:
        """Return what a body of at most SMALL_BODY bytes asks, or None where it is much for all that.

        A few events may be a large raster, and a compressed body may be a long one. Raises as `decode` does.
        """
        ...

    def decode(self, body: bytes) -> Q:
        """Return what a body asks. Raises MalformedBody, InvalidInput or TooLarge."""
        ...

    def render(self, query: Q, result: RunResult) -> Content_co:
        """Return the answer's content."""
        ...


def one_long_body_at_a_time(size: int) -> AbstractContextManager[object]:
    """Return a context manager that JSON of `size` bytes is parsed in, up to the array that it becomes.

    While it is parsed it takes up to sixty times its bytes. Python parses one body at a time anyway, so that nothing is
    answered later for it.
    """
    return _ONE_AT_A_TIME if size > LONG_JSON else _AT_ONCE
