"""The gate: which requests are ordinary, as far as their path and headers say.

A request is ordinary if it posts a short body to a version that is ready, and none of its headers is rare. All others,
and those that are refused by their headers, go the full way, through the application.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.http.access import ORIGIN, SITE, Access
from spikeserve.service.inference.decoding.media import BYTES, CONTENT_ENCODING, CONTENT_TYPE, FORM, JSON, NPY
from spikeserve.service.inference.decoding.readers import Reader, readers_of
from spikeserve.service.inference.protocols.native.endpoint import NativeEndpoint
from spikeserve.service.inference.protocols.v2.codec import HEADER_LENGTH_BYTES
from spikeserve.service.inference.protocols.v2.endpoint import InferEndpoint
from spikeserve.service.inference.scheduling.frames import Endpoint, Extras, Frames, HttpEndpoint, RepeatCache
from spikeserve.service.inference.scheduling.pipeline import TIMEOUT
from spikeserve.service.inference.scheduling.query import SMALL_BODY
from spikeserve.service.keys import AUTHORIZATION, bearer_key
from spikeserve.service.services import Services
from spikeserve.service.telemetry.access import REQUEST_ID, request_id_of
from spikeserve.service.telemetry.record import PARENT, STATE, TIMING_WANTED, Trace

RARE = frozenset({b"expect", b"transfer-encoding", b"upgrade"})
NEW = frozenset({REQUEST_ID, PARENT, STATE})
KINDS = {JSON + b"; charset=utf-8": JSON, JSON + b";charset=utf-8": JSON}  # what nearly every client writes
OF_PAGES = frozenset({ORIGIN, SITE})
ASKING = frozenset({ORIGIN, TIMING_WANTED, CONTENT_ENCODING, HEADER_LENGTH_BYTES})
PACKED = (b"gzip", b"x-gzip")
AMPLE_MILLISECONDS = 1000  # for an ordinary request, which is answered in some: no such deadline passes before
OF_BYTES = (b"", BYTES, JSON)  # the types that a body of the protocol v2 may have
OF_NUMBERS = (*OF_BYTES, NPY, FORM)  # and one of the native protocol; curl says FORM of any file
KEEP_ALIVE = b"keep-alive"
END = b"\r\n\r\n"  # of headers
MAX_HEAD_BYTES = 1024  # of one that is known
PREDICT = "/predict"  # of the paths that are ordinary, whom the same keys and origins may ask
MAX_DIGITS = 5  # of the length of an ordinary body's JSON, and of a deadline's milliseconds


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
        self.endpoints: dict[tuple[bytes, bytes], HttpEndpoint] = {}  # by URL and media type
        self.heads = RepeatCache[bytes, tuple[Endpoint, int]]()  # with the length of the body that each announces
        self.frames: Frames = RepeatCache()

    def known(self, data: bytes) -> tuple[Endpoint, bytes, Trace | None, bytes, bytes] | None:
        """Find a request's endpoint, id and trace by the bytes of its headers, and with them its data and its body.

        None for headers that are not remembered, and where `data` is not one whole request.
        """
        if self.changes != self.catalog.changes:
            self._list()
        end = data.find(END) + len(END)
        entry = self.heads.values.get(data[:end])
        if entry is None or len(data) - end != entry[1] or self.catalog.draining:
            return None
        return entry[0], request_id_of({}), self._trace({}) if self.tracing else None, data, data[end:]

    def learn(self, head: bytes, headers: Sequence[tuple[bytes, bytes]], endpoint: Endpoint, body_bytes: int) -> None:
        """Remember headers byte for byte once they were admitted twice, unless they hold an id or a trace."""
        if len(head) <= MAX_HEAD_BYTES and NEW.isdisjoint(name for name, _ in headers) and self.heads.came(head):
            self.heads.learn(head, (endpoint, body_bytes))

    def admit(
        self, url: bytes, headers: Sequence[tuple[bytes, bytes]], body_bytes: int
    ) -> tuple[Endpoint, bytes, Trace | None] | None:
        """Check URL and headers of a POST; return its endpoint, id and trace, or None where it is not ordinary."""
        if self.changes != self.catalog.changes:
            self._list()
        by_name = dict(headers)
        kind = by_name.get(CONTENT_TYPE) or (JSON if CONTENT_ENCODING in by_name else b"")
        endpoint = self.endpoints.get((url, KINDS.get(kind.lower(), kind)))
        if endpoint is None or not 0 < body_bytes <= SMALL_BODY or self.catalog.draining:
            return None
        if len(by_name) != len(headers) or not RARE.isdisjoint(by_name) or not _is_ample(by_name.get(TIMEOUT)):
            return None
        if by_name.get(b"connection", KEEP_ALIVE).lower() != KEEP_ALIVE:
            return None
        key = bearer_key(by_name.get(AUTHORIZATION, b"")) if self.is_keyed else None
        is_guarded = self.is_keyed or not OF_PAGES.isdisjoint(by_name)
        if is_guarded and self.access.refusal(PREDICT, by_name, key):
            return None
        if not ASKING.isdisjoint(by_name):
            length = by_name.get(HEADER_LENGTH_BYTES)
            if by_name.get(CONTENT_ENCODING, PACKED[0]) not in PACKED or not (length is None or _is_short(length)):
                return None
            json_bytes = int(length or 0) if endpoint.is_v2 else 0
            lines = self._cors(by_name.get(ORIGIN))
            endpoint = endpoint.plus(Extras(lines, TIMING_WANTED in by_name, CONTENT_ENCODING in by_name, json_bytes))
        return endpoint, request_id_of(by_name), self._trace(by_name) if self.tracing else None

    def _trace(self, headers: Mapping[bytes, bytes]) -> Trace | None:
        return self.tracing.chosen.choose("POST", headers) if self.tracing else None

    def _cors(self, origin: bytes | None) -> bytes:
        return b"".join([b"%s: %s\r\n" % header for header in self.access.cors(origin)])

    def _list(self) -> None:
        self.changes = self.catalog.changes
        self.metrics.settle()  # what is not counted yet keeps versions that are gone
        self.heads, self.frames = RepeatCache(), RepeatCache()
        self.endpoints = dict(self._paths())
        for endpoint in self.endpoints.values():
            endpoint.extras = Extras(self._cors(None))

    def _paths(self) -> Iterator[tuple[tuple[bytes, bytes], HttpEndpoint]]:
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

    def _of(self, path: str, route: str, model: LoadedModel) -> Iterator[tuple[tuple[bytes, bytes], HttpEndpoint]]:
        """Yield the paths of a version, native and, but for the default model's own, of the protocol v2."""
        rows, events = readers_of(model)
        if rows is None and events is None:
            return
        reader_of = events or (lambda _: cast("Reader", rows))
        for kind in OF_NUMBERS if rows is not None else (JSON, b""):
            of = f"{route}/predict", model, self.frames
            yield (f"{path}/predict".encode(), kind), NativeEndpoint(kind, reader_of, *of, events=rows is None)
        if path and rows is not None:
            endpoint = InferEndpoint(rows, self.services.blobs, f"/v2{route}/infer", model, self.frames)
            yield from (((f"/v2{path}/infer".encode(), kind), endpoint) for kind in OF_BYTES)


def _is_ample(timeout: bytes | None) -> bool:
    """Return whether a deadline, if there is one, is no less than AMPLE_MILLISECONDS."""
    return timeout is None or (_is_short(timeout) and int(timeout) >= AMPLE_MILLISECONDS)


def _is_short(number: bytes) -> bool:
    return number.isdigit() and len(number) <= MAX_DIGITS and int(number) > 0
