"""The gate: which requests are ordinary, as far as their path and headers say.

A request is ordinary if it posts a short JSON body to a version that is ready, and nothing in its headers asks for
anything else than an answer. All others go the full way, through the application.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.http.access import ORIGIN, SITE
from spikeserve.service.http.answers import TIMING_WANTED
from spikeserve.service.inference.decoding.media import BYTES, CONTENT_ENCODING, CONTENT_TYPE, JSON, NPY
from spikeserve.service.inference.decoding.readers import readers_of
from spikeserve.service.inference.ordinary.frames import Endpoint, Frames, Recurring
from spikeserve.service.inference.ordinary.native import EventFormat, NativeFormat, NpyFormat
from spikeserve.service.inference.ordinary.v2 import InferFormat
from spikeserve.service.inference.protocols.v2.codec import HEADER_LENGTH_BYTES
from spikeserve.service.inference.scheduling.pipeline import TIMEOUT
from spikeserve.service.inference.scheduling.query import SMALL_BODY
from spikeserve.service.keys import AUTHORIZATION, bearer_key
from spikeserve.service.services import Services
from spikeserve.service.telemetry.access import REQUEST_ID, request_id_of

RARE = frozenset({b"expect", b"transfer-encoding", b"upgrade", CONTENT_ENCODING, ORIGIN, SITE, TIMING_WANTED})
AMPLE_MILLISECONDS = 1000  # for an ordinary request, which is answered in some: no such deadline passes before
OF_BYTES = frozenset({b"", BYTES, JSON})  # the types that a body of JSON and bytes may have
KEEP_ALIVE = b"keep-alive"
END = b"\r\n\r\n"  # of headers
MAX_HEAD_BYTES = 1024  # of one that is known
MAX_DIGITS = 5  # of the length of an ordinary body's JSON, and of a deadline's milliseconds


class Gate:
    """The paths of all versions that are ready, each with its endpoint."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.catalog = services.catalog
        self.metrics = services.metrics
        self.keys = services.keys if services.keys.clients else None  # who needs none is not asked for one
        self.changes = -1
        self.endpoints: dict[tuple[bytes, bytes], Endpoint] = {}  # by URL and media type
        self.heads = Recurring[bytes, tuple[Endpoint, int]]()  # with the length of the body that each announces
        self.frames: Frames = Recurring()

    def known(self, data: bytes) -> tuple[Endpoint, bytes] | None:
        """Return the endpoint and the body of a request whose headers were admitted before, to the byte.

        None for any other, and where `data` is not one whole request.
        """
        if self.changes != self.catalog.changes:
            self._list()
        end = data.find(END) + len(END)
        entry = self.heads.values.get(data[:end])
        if entry is None or len(data) - end != entry[1] or self.catalog.draining:
            return None
        return entry[0], data[end:]

    def learn(self, head: bytes, headers: Sequence[tuple[bytes, bytes]], endpoint: Endpoint, body_bytes: int) -> None:
        """Know headers by their bytes once they were admitted twice; not if they have an id, which is new."""
        if len(head) <= MAX_HEAD_BYTES and not any(name == REQUEST_ID for name, _ in headers):
            self.heads.learn(head, (endpoint, body_bytes))

    def admit(
        self, url: bytes, headers: Sequence[tuple[bytes, bytes]], body_bytes: int
    ) -> tuple[Endpoint, bytes] | None:
        """Return the endpoint and the id of an ordinary POST, by its URL and its headers; None for any other."""
        if self.changes != self.catalog.changes:
            self._list()
        by_name = dict(headers)
        endpoint = self.endpoints.get((url, by_name.get(CONTENT_TYPE, b"")))
        if HEADER_LENGTH_BYTES in by_name:
            endpoint = self._of_bytes(url, by_name, body_bytes)
        if endpoint is None or not 0 < body_bytes <= SMALL_BODY or self.catalog.draining:
            return None
        if len(by_name) != len(headers) or not RARE.isdisjoint(by_name) or not _is_ample(by_name.get(TIMEOUT)):
            return None
        if by_name.get(b"connection", KEEP_ALIVE).lower() != KEEP_ALIVE:
            return None
        if self.keys is not None and self.keys.refusal(bearer_key(by_name.get(AUTHORIZATION, b"")), control=False):
            return None
        return endpoint, request_id_of(by_name)

    def _of_bytes(self, url: bytes, headers: Mapping[bytes, bytes], body_bytes: int) -> Endpoint | None:
        """Return the endpoint of bodies in the protocol v2 whose JSON has the length that the headers say."""
        plain, length = self.endpoints.get((url, JSON)), headers[HEADER_LENGTH_BYTES]
        if plain is None or headers.get(CONTENT_TYPE, b"") not in OF_BYTES:
            return None
        if not (length.isdigit() and len(length) <= MAX_DIGITS and 0 < int(length) < body_bytes):
            return None
        if not isinstance(plain.form, InferFormat):
            return None
        of_bytes = replace(plain.form, json_bytes=int(length))
        return Endpoint(plain.route, plain.model, of_bytes, plain.batch, self.frames)

    def _list(self) -> None:
        self.changes = self.catalog.changes
        self.metrics.settle()  # what is not counted yet keeps versions that are gone
        self.heads, self.frames = Recurring(), Recurring()
        self.endpoints = {} if self.services.tracing else dict(self._paths())

    def _paths(self) -> Iterator[tuple[tuple[bytes, bytes], Endpoint]]:
        """Yield the path and the media type of each route to each version that is ready, and the newest of each."""
        for name, entries in self.catalog.models.items():
            ready = {number: entry.model for number, entry in entries.items() if entry.model is not None}
            for number, model in ready.items():
                yield from self._of(f"/models/{name}/versions/{number}", "/models/{name}/versions/{version}", model)
            if ready:
                newest = ready[max(ready)]
                yield from self._of(f"/models/{name}", "/models/{name}", newest)
                if name == self.catalog.default:
                    yield from self._native("", "", newest)

    def _of(self, path: str, route: str, model: LoadedModel) -> Iterator[tuple[tuple[bytes, bytes], Endpoint]]:
        yield from self._native(path, route, model)
        if (reader := readers_of(model).rows) is not None:
            form = InferFormat(model, reader, self.services.blobs)
            endpoint = Endpoint(f"/v2{route}/infer", model, form, self._batch(model), self.frames)
            yield (f"/v2{path}/infer".encode(), JSON), endpoint

    def _native(self, path: str, route: str, model: LoadedModel) -> Iterator[tuple[tuple[bytes, bytes], Endpoint]]:
        forms: dict[bytes, NativeFormat] = {}
        readers = readers_of(model)
        if readers.rows is not None:
            forms = {JSON: NativeFormat(model, readers.rows), NPY: NpyFormat(model, readers.rows)}
        elif readers.events is not None:
            forms = {JSON: EventFormat(model, readers.events)}
        for kind, form in forms.items():
            endpoint = Endpoint(f"{route}/predict", model, form, self._batch(model), self.frames)
            yield (f"{path}/predict".encode(), kind), endpoint

    def _batch(self, model: LoadedModel) -> Callable[[int], int]:
        return partial(self.services.pipeline.scheduler.queue(model).policy.max_samples, model.cost)


def _is_ample(timeout: bytes | None) -> bool:
    """Return whether a deadline, if there is one, is no less than AMPLE_MILLISECONDS."""
    return timeout is None or (timeout.isdigit() and len(timeout) <= MAX_DIGITS and int(timeout) >= AMPLE_MILLISECONDS)
