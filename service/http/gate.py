"""The gate: which requests a connection gives to the batcher itself, by their path and headers.

It admits a POST of a short body to a version that is ready, unless one of its headers is rare. The application answers
all others, and refuses those that may not be answered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.errors import UnsupportedMedia
from spikeserve.service.http.access import ORIGIN, SITE, Access
from spikeserve.service.inference.decoding.media import (
    BYTES,
    CONTENT_ENCODING,
    CONTENT_TYPE,
    FORM,
    JSON,
    NPY,
    PREDICT_TYPES,
    RECORDS,
    media_type,
)
from spikeserve.service.inference.decoding.readers import readers_of
from spikeserve.service.inference.protocols.native.endpoint import NativeEndpoint
from spikeserve.service.inference.protocols.v2.codec import HEADER_LENGTH_BYTES
from spikeserve.service.inference.protocols.v2.endpoint import InferEndpoint
from spikeserve.service.inference.scheduling.entry import MAX_DIGITS, TIMEOUT
from spikeserve.service.inference.scheduling.frames import BatchedEndpoint, Endpoint, Extras, Frames, RepeatCache
from spikeserve.service.inference.scheduling.query import SMALL_BODY
from spikeserve.service.keys import AUTHORIZATION, bearer_key
from spikeserve.service.services import Services
from spikeserve.service.telemetry.access import REQUEST_ID, request_id_of
from spikeserve.service.telemetry.record import PARENT, STATE, TIMING_WANTED, Trace

RARE = frozenset({b"expect", b"transfer-encoding", b"upgrade"})
NEW = frozenset({REQUEST_ID, PARENT, STATE})
OF_PAGES = frozenset({ORIGIN, SITE})
ASKING = frozenset({AUTHORIZATION, ORIGIN, TIMEOUT, TIMING_WANTED, CONTENT_ENCODING, HEADER_LENGTH_BYTES})
PACKED = (b"gzip", b"x-gzip")
OF_BYTES = (b"", BYTES, JSON)  # the types that a body of the protocol v2 may have
OF_NUMBERS = (*OF_BYTES, NPY, RECORDS, FORM)  # and one of the native protocol; curl says FORM of any file
END = b"\r\n\r\n"  # of headers
MAX_HEAD_BYTES = 1024  # of one that is known
PREDICT = "/predict"  # of all paths here, which the same keys and origins may ask
MAX_JSON_DIGITS = 5  # of the length of a short body's JSON


class Gate:
    """The paths of all versions that are ready, each with its endpoint."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.catalog = services.catalog
        self.metrics = services.metrics
        self.access = Access(services.keys, services.settings)
        self.tracing = services.tracing
        self.is_keyed = bool(services.keys.clients)
        self.changes = -1
        self.endpoints: dict[tuple[bytes, bytes], BatchedEndpoint] = {}  # by URL and media type
        self.heads = RepeatCache[bytes, tuple[Endpoint, int]]()  # with the length of the body that each announces
        self.frames: Frames = RepeatCache()

    def known(self, data: bytes) -> tuple[Endpoint, bytes, Trace | None, bytes] | None:
        """Find a request's endpoint, id and trace by the bytes of its headers, and with them its body.

        None for headers that are not remembered, and where `data` is not one whole request.
        """
        if self.changes != self.catalog.changes:
            self._list()
        end = data.find(END) + len(END)
        entry = self.heads.values.get(data[:end])
        if entry is None or len(data) - end != entry[1] or self.catalog.draining:
            return None
        return entry[0], request_id_of({}), self._trace({}), data[end:]

    def learn(self, head: bytes, headers: Sequence[tuple[bytes, bytes]], endpoint: Endpoint, body_bytes: int) -> None:
        """Remember headers byte for byte once they were admitted twice, unless they hold an id or a trace."""
        if len(head) <= MAX_HEAD_BYTES and NEW.isdisjoint(name for name, _ in headers) and self.heads.came(head):
            self.heads.learn(head, (endpoint, body_bytes))

    def admit(
        self, url: bytes, headers: Sequence[tuple[bytes, bytes]], body_bytes: int
    ) -> tuple[Endpoint, bytes, Trace | None] | None:
        """Check URL and headers of a POST; return its endpoint, id and trace, or None for the application."""
        if self.changes != self.catalog.changes:
            self._list()
        by_name = dict(headers)
        kind = by_name.get(CONTENT_TYPE) or (JSON if CONTENT_ENCODING in by_name else b"")
        endpoint = self.endpoints.get((url, kind)) or self.endpoints.get((url, _plain(by_name) or b"?"))
        if endpoint is None or not 0 < body_bytes <= SMALL_BODY or self.catalog.draining:
            return None
        if len(by_name) != len(headers) or not RARE.isdisjoint(by_name):
            return None
        key = bearer_key(by_name.get(AUTHORIZATION, b"")) if self.is_keyed else None
        is_guarded = self.is_keyed or not OF_PAGES.isdisjoint(by_name)
        if is_guarded and self.access.refusal(PREDICT, by_name, key):
            return None
        if not ASKING.isdisjoint(by_name):
            length, milliseconds = by_name.get(HEADER_LENGTH_BYTES), by_name.get(TIMEOUT)
            if by_name.get(CONTENT_ENCODING, PACKED[0]) not in PACKED or not (
                _is_short(length, MAX_JSON_DIGITS) and _is_short(milliseconds, MAX_DIGITS)
            ):
                return None
            json_bytes = int(length or 0) if endpoint.is_v2 else 0
            lines, key = self._cors(by_name.get(ORIGIN)), bearer_key(by_name.get(AUTHORIZATION, b"")) or b""
            asked = TIMING_WANTED in by_name, CONTENT_ENCODING in by_name
            endpoint = endpoint.plus(Extras(lines, *asked, json_bytes, key, int(milliseconds or 0)))
        return endpoint, request_id_of(by_name), self._trace(by_name)

    def _trace(self, headers: Mapping[bytes, bytes]) -> Trace | None:
        return self.tracing.chosen.choose("POST", headers) if self.tracing else None

    def _cors(self, origin: bytes | None) -> bytes:
        return b"".join([b"%s: %s\r\n" % header for header in self.access.cors(origin)])

    def _list(self) -> None:
        self.changes = self.catalog.changes
        self.metrics.settle()  # uncounted batches keep versions that are gone
        self.heads, self.frames = RepeatCache(), RepeatCache()
        self.endpoints = dict(self._paths())
        for endpoint in self.endpoints.values():
            endpoint.extras = Extras(self._cors(None))

    def _paths(self) -> Iterator[tuple[tuple[bytes, bytes], BatchedEndpoint]]:
        """Yield the path and the media type of each route to each version that is ready, and the newest of each."""
        for name, entries in self.catalog.models.items():
            ready = {number: entry.model for number, entry in entries.items() if entry.model is not None}
            for number, model in ready.items():
                yield from self._of(f"/models/{name}/versions/{number}", "/models/{name}/versions/{version}", model)
            if ready:
                newest = ready[max(ready)]
                yield from self._of(f"/models/{name}", "/models/{name}", newest)
                if name == self.catalog.default:
                    yield from self._of("", "", newest)

    def _of(self, path: str, route: str, model: LoadedModel) -> Iterator[tuple[tuple[bytes, bytes], BatchedEndpoint]]:
        """Yield the paths of a version, native and, but for the default model's own, of the protocol v2."""
        readers = readers_of(model)
        for kind in OF_NUMBERS:
            endpoint = NativeEndpoint(kind, readers, f"{route}/predict", model, self.frames)
            yield (f"{path}/predict".encode(), kind), endpoint
        if path:
            infer = InferEndpoint(readers.rows, self.services.blobs, f"/v2{route}/infer", model, self.frames)
            yield from (((f"/v2{path}/infer".encode(), kind), infer) for kind in OF_BYTES)


def _plain(headers: Mapping[bytes, bytes]) -> bytes | None:
    """Return a Content-Type without its parameters; None if no route takes it."""
    try:
        return media_type(headers, *PREDICT_TYPES)
    except UnsupportedMedia:
        return None


def _is_short(number: bytes | None, digits: int) -> bool:
    """Whether a number is missing, or is positive and has at most this number of `digits`."""
    return number is None or (number.isdigit() and len(number) <= digits and int(number) > 0)
