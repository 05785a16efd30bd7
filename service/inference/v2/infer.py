"""One request from its bytes to the bytes of its answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Self

from starlette.requests import Request
from starlette.responses import Response

from models.engines import RunResult
from models.errors import InvalidInput
from service.catalog.served import ServedModel
from service.errors import ServiceError
from service.http.body import BODY, SMALL, Body
from service.inference.asking import ask
from service.inference.jobs import SMALL_BODY, Answer
from service.inference.pending import Share
from service.inference.v2.encoding import Encoding, accepted, encoding_of, pack, unpack
from service.inference.v2.errors import InvalidRequest
from service.inference.v2.reading import HEADER_LENGTH, Asked, read
from service.inference.v2.writing import write
from service.telemetry.v2_statistics import PhaseSeconds, RequestStats


@dataclass(frozen=True)
class Reply:
    """An answer's body and headers, and the seconds that it took to read the request and to write this."""

    body: bytes
    headers: Mapping[str, str]
    read_seconds: float
    write_seconds: float


@dataclass(frozen=True)
class InferForm:
    """How one request asks `model` and is answered (a `Form`), by what its headers say of it and of its answer."""

    model: ServedModel
    content_encoding: str | None
    header_length: str | None
    accept_encoding: str | None
    most_bytes: int
    share: Share | None  # what the body holds of all bodies, unless there is none

    @classmethod
    def of(cls, request: Request, model: ServedModel) -> Self:
        """Return how `request` asks."""
        headers = request.headers
        body: Body | None = request.scope.get(BODY)
        return cls(
            model,
            headers.get("content-encoding"),
            headers.get(HEADER_LENGTH),
            headers.get("accept-encoding"),
            request.app.state.settings.max_body_bytes,
            None if body is None else body.share,
        )

    def read_small(self, body: bytes) -> Asked | None:
        """Return what a short body asks, else None; a packed one may hold a lot. Raises as `read` does."""
        return self.read(body) if self.content_encoding is None and len(body) <= SMALL_BODY else None

    def read(self, body: bytes) -> Asked:
        """Return what a body asks. Raises UnknownEncoding, MalformedBody, InvalidRequest, TooLarge or Overloaded."""
        began = perf_counter()
        encoding = encoding_of(self.content_encoding)
        unpacked = unpack(body, encoding, self.most_bytes)
        if self.share is not None and encoding is not Encoding.IDENTITY and len(unpacked) > SMALL:
            self.share.take(len(unpacked))
        asked = read(unpacked, self.header_length, self.model)
        return replace(asked, read_seconds=perf_counter() - began)

    def render(self, query: Asked, result: RunResult) -> Reply:
        """Return the answer, packed as the client accepts it."""
        began = perf_counter()
        written = write(query, result, self.model)
        headers = {"Content-Type": "application/json"}
        if written.header_length is not None:
            headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(written.header_length)}
        encoding = accepted(self.accept_encoding, len(written.content))
        if encoding is not Encoding.IDENTITY:
            headers |= {"Content-Encoding": encoding, "Vary": "Accept-Encoding"}
        body = pack(written.content, encoding)
        return Reply(body, headers, query.read_seconds, perf_counter() - began)


async def infer(request: Request, model: ServedModel) -> Response:
    """Answer an infer request with `model`; every request starts from rest."""
    stats: RequestStats = request.app.state.stats
    began = perf_counter()
    try:
        answer = await ask(request, model, InferForm.of(request, model))
    except InvalidInput as error:
        stats.count_failure(model.name, model.version, perf_counter() - began)
        raise InvalidRequest(str(error)) from error
    except ServiceError:
        stats.count_failure(model.name, model.version, perf_counter() - began)
        raise
    seconds = perf_counter() - answer.times.arrived
    stats.count_success(model.name, model.version, answer.samples, seconds, _phases(answer))
    return Response(answer.content.body, headers=answer.content.headers)


def _phases(answer: Answer[Reply]) -> PhaseSeconds:
    """Return where the time went since the request had arrived."""
    reply, times = answer.content, answer.times
    compute_input = reply.read_seconds + times.encode_seconds
    return PhaseSeconds(
        queue=max(0.0, times.run_began - times.arrived - compute_input),
        compute_input=compute_input,
        compute_infer=times.run_ended - times.run_began,
        compute_output=reply.write_seconds,
    )
