"""Frames: the bytes that short bodies have in common, around their numbers.

A *frame* is the rest of a body without its numbers. The protocol's decoder reads a body whose frame is not known. When
a frame comes again, a kernel (`service.inference.decoding.rows`) reads that body too. If both read the same, the frame
is remembered by its bytes, and from then on the kernel alone reads the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import copy
from http import HTTPStatus
from typing import Any, Generic, NamedTuple, Self, TypeAlias, TypeVar

import numpy as np

from spikeserve.models.coding import Inputs, encode
from spikeserve.models.spec import Coding
from spikeserve.models.spec.network import FloatArray
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.errors import TooLarge
from spikeserve.service.inference.decoding.media import Unpack
from spikeserve.service.inference.decoding.pieces import SHORT_BYTES
from spikeserve.service.inference.decoding.readers import FLOAT32, Reader
from spikeserve.service.inference.scheduling.answer import Renderer
from spikeserve.service.inference.scheduling.query import Codec, Query, RunOptions
from spikeserve.service.telemetry.access import line_template

MAX_KNOWN = 1024  # frames of all endpoints, and as many heads; when there are more, all are forgotten
MAX_BRACKETS = 5  # in a row at the beginning of samples: their own, and one for each axis of the largest input
DRAWN = frozenset({Coding.RATE, Coding.LATENCY})  # codings that make each step of the values
MAX_DRAWN = 2**18  # values of one request that these make on the event loop, in some milliseconds
OF_EVENTS = -1  # in place of a number of brackets
MAX_FRAME_BYTES = 1024  # of one that is known; a longer one is parsed each time


K = TypeVar("K")
V = TypeVar("V")


class RepeatCache(Generic[K, V]):
    """A cache that stores a value only once its key comes a second time; of a first one it stores the hash."""

    def __init__(self) -> None:
        self.values: dict[K, V] = {}
        self.once: set[int] = set()

    def came(self, key: K) -> bool:
        """Note a key, and return whether it came before."""
        again = hash(key) in self.once
        if len(self.once) == MAX_KNOWN:
            self.once.clear()
        self.once.add(hash(key))
        return again

    def learn(self, key: K, value: V) -> None:
        """Store the value of a key."""
        if len(self.values) == MAX_KNOWN:
            self.values.clear()
        self.values[key] = value


class Span(NamedTuple):
    """Where the numbers of a body begin and end, and the number of brackets that they begin with.

    It is 0 for float32, and OF_EVENTS for objects.
    """

    start: int
    stop: int
    brackets: int


class Extras(NamedTuple):
    """Options in a request's headers: header lines for its answer, whether it has timings, whether the body is gzip.

    `json_bytes` is the length of the JSON before binary values; 0 where the body is all JSON or all an array. `key` is
    the client's; `milliseconds` are until its deadline, 0 where it has none of its own.
    """

    lines: bytes = b""
    timing: bool = False
    packed: bool = False
    json_bytes: int = 0
    key: bytes = b""
    milliseconds: int = 0


class Group(NamedTuple):
    """The model, reader and options of requests that run as one batch; the seed is 0 unless the coding draws."""

    model: LoadedModel
    reader: Reader
    options: RunOptions

    @classmethod
    def of(cls, model: LoadedModel, reader: Reader, options: RunOptions) -> Group:
        """Make the group of a request with these options."""
        return cls(model, reader, options if model.spec.coding is Coding.RATE else options._replace(seed=0))

    def is_short(self, samples: int, answer_bytes: int) -> bool:
        """Whether a request of that size is within the limits, and short to encode and to answer."""
        limits, spec, steps = self.model.limits, self.model.spec, self.options.time_steps
        try:
            limits.check_size(samples, steps)
        except TooLarge:
            return False
        drawn = samples * steps * math.prod(spec.input.shape) if spec.coding in DRAWN else 0
        return answer_bytes <= min(SHORT_BYTES, limits.answer_bytes) and drawn <= MAX_DRAWN


class Frame(NamedTuple):
    """How to read and answer a body: the group that it runs with, its number of samples, and its answer's renderer.

    `dtype` is the type of binary numbers.
    """

    group: Group
    counts: range
    render: Renderer
    dtype: np.dtype[Any] = FLOAT32

    def reads(self, body: bytes, span: Span, samples: FloatArray | Inputs) -> bool:
        """Whether the kernel reads exactly these samples from a body."""
        model, reader, options = self.group
        count = reader.read(body, *span, reader.rows, self.dtype)
        if count != len(samples) or count not in self.counts:
            return False
        steps, seed = options.time_steps, options.seed
        expected = encode(samples, model.spec, steps, seed) if isinstance(samples, np.ndarray) else samples
        own = reader.inputs(count, steps, seed)
        return np.array_equal(own.dense().steps, expected.dense().steps)


# By the model, the kind of endpoint, the bytes around the numbers, and the number of brackets.
Key: TypeAlias = tuple[LoadedModel, type, bytes, bytes, int]
Frames: TypeAlias = RepeatCache[Key, Frame]


# The frame of a body, and the bytes of its numbers: the body itself, or float32 of a decoder.
Match: TypeAlias = tuple[Frame, bytes, Span]  # made for every request, which a tuple with names would make dearer


class DecodedBody(NamedTuple):
    """The frame of a decoded body, and whether a kernel may read bodies of this frame."""

    frame: Frame
    is_plain: bool


class Endpoint:
    """One route to one version of a model, by the route's template."""

    invalid: HTTPStatus = HTTPStatus.BAD_REQUEST  # of an invalid input, in the protocol v2

    def __init__(self, route: str, model: LoadedModel) -> None:
        self.route = route
        self.model = model
        self.extras = Extras()
        self.labels: Mapping[str, str | int] = {"model": model.name, "version": model.version}
        self.line = line_template("POST", route, HTTPStatus.OK, self.labels, "samples")

    def plus(self, extras: Extras) -> Self:
        """Copy the endpoint, for requests with these options."""
        endpoint = copy(self)
        endpoint.extras = extras
        return endpoint

    def codec(self, unpack: Unpack | None = None) -> Codec:
        """Return the decoder of a body, which `unpack` decompresses first."""
        raise NotImplementedError

    def find(self, body: bytes) -> Match | Query | None:
        """Find the frame and the numbers of a body, or decode it; return None if that may take long.

        Raises what the codec raises.
        """
        raise NotImplementedError


class BatchedEndpoint(Endpoint):
    """An endpoint whose requests can run in batches; all endpoints share their `frames`."""

    is_v2 = False
    is_read = True  # whether a kernel reads any bodies

    def __init__(self, route: str, model: LoadedModel, frames: Frames) -> None:
        super().__init__(route, model)
        self.frames = frames
        self.brackets = {1 if self.is_v2 else 2, 1 + len(model.spec.input.shape)}  # at the beginning of an array

    def span(self, body: bytes) -> Span | None:
        """Find where the numbers of a body should be, or None where it has none."""
        raise NotImplementedError

    def framed(self, body: bytes, query: Any) -> DecodedBody | None:
        """Return the frame of a decoded body; None where its request shares no batch on the event loop."""
        raise NotImplementedError

    def find(self, body: bytes) -> Match | Query | None:
        """Find the frame and the numbers of a body, or decode it; return None if that may take long."""
        span = self.span(body) if self.is_read else None
        start, stop, brackets = span or (0, 0, 0)
        key = self.model, type(self), body[:start], body[stop:], brackets
        if span is not None and (known := self.frames.values.get(key)) is not None:
            return known, body, span
        query = self.codec().decode_small(body)
        if query is None or not self.is_read or (decoded := self.framed(body, query)) is None:
            return query
        frame, samples = decoded.frame, query.samples
        if len(samples) not in frame.counts:
            return query
        if span is not None and decoded.is_plain and self._reads((frame, body, span), samples, key):
            return frame, body, span
        if not isinstance(samples, np.ndarray):
            return query
        numbers = samples.tobytes()
        return frame._replace(dtype=FLOAT32), numbers, Span(0, len(numbers), 0)

    def array_at(self, body: bytes, start: int) -> Span | None:
        """Find the end of the array that begins at body[start], if its last brackets stand side by side."""
        first = start
        while body[first : first + 1] == b"[" and first - start <= MAX_BRACKETS:
            first += 1
        brackets = first - start
        find = body.find if brackets == 1 else body.rfind  # quick for one byte, or at the end
        stop = find(b"]" * brackets, first)
        return Span(start, stop + brackets, brackets) if min(start, stop) >= 0 and brackets in self.brackets else None

    def _reads(self, match: Match, samples: FloatArray | Inputs, key: Key) -> bool:
        """Whether the kernel reads exactly these samples; a frame that comes a second time is then remembered.

        For numbers of a new frame that is not tried, since the decoder has read them already.
        """
        came = len(key[2]) + len(key[3]) <= MAX_FRAME_BYTES and self.frames.came(key)
        frame, body, span = match
        reads = (came or not isinstance(samples, np.ndarray)) and frame.reads(body, span, samples)
        if came and reads:
            self.frames.learn(key, frame)
        return reads
