"""One request from its bytes to the bytes of its answer."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

from starlette.requests import Request
from starlette.responses import Response

from models.errors import InvalidInput
from service.access import LOGGED
from service.errors import ServiceError
from service.metrics import Metrics
from service.routes import SMALL_BODY
from service.served import Answer, ServedModel
from service.v2.encoding import Encoding, accepted, encoding_of, pack, unpack
from service.v2.errors import InvalidRequest
from service.v2.reading import HEADER_LENGTH, Asked, read
from service.v2.stats import Tally, Times
from service.v2.writing import write
from service.workers import Workers


@dataclass(frozen=True)
class Packed:
    """A request as it came: its bytes, how they are compressed, and what its headers say of it and of its answer."""

    body: bytes
    encoding: Encoding
    header_length: str | None
    accept_encoding: str | None
    most_bytes: int


@dataclass(frozen=True)
class Done:
    """An answer with its headers, and where the time went; `began` is when a thread took the request up."""

    answer: Answer
    headers: dict[str, str]
    began: float
    read_seconds: float
    encode_seconds: float
    write_seconds: float

    def times(self, arrived: float) -> Times:
        """Return where the time went since the request had arrived."""
        return Times(
            queue=max(0.0, self.began - arrived - self.read_seconds),
            compute_input=self.read_seconds + self.encode_seconds,
            compute_infer=self.answer.inference_seconds,
            compute_output=self.write_seconds,
        )


async def infer(request: Request, model: ServedModel) -> Response:
    """Answer an infer request with `model`; every request starts from rest."""
    workers: Workers = request.app.state.workers
    metrics: Metrics = request.app.state.metrics
    tally: Tally = request.app.state.tally
    logged = request.scope[LOGGED]
    logged |= {"model": model.name, "version": model.version}
    packed = Packed(
        await request.body(),
        encoding_of(request.headers.get("content-encoding")),
        request.headers.get(HEADER_LENGTH),
        request.headers.get("accept-encoding"),
        request.app.state.settings.max_body_bytes,
    )
    arrived = perf_counter()
    try:
        done = await _done(packed, model, workers)
    except InvalidInput as error:
        tally.failed(model.name, model.version, perf_counter() - arrived)
        raise InvalidRequest(str(error)) from error
    except ServiceError:
        tally.failed(model.name, model.version, perf_counter() - arrived)
        raise
    logged["samples"] = done.answer.samples
    metrics.count_answer(model, done.answer)
    tally.succeeded(model.name, model.version, done.answer.samples, perf_counter() - arrived, done.times(arrived))
    return Response(done.answer.content, headers=done.headers)


async def _done(packed: Packed, model: ServedModel, workers: Workers) -> Done:
    """Answer on the event loop what takes less than to hand it to a thread, and everything else on a thread."""
    if len(packed.body) > SMALL_BODY or packed.encoding is not Encoding.IDENTITY:
        return await workers.run(_unpack_and_answer, packed, model)
    started = perf_counter()
    asked = read(packed.body, packed.header_length, model)
    read_seconds = perf_counter() - started
    if model.is_quick(asked.query):
        return _answer(asked, model, packed.accept_encoding, read_seconds)
    return await workers.run(_answer, asked, model, packed.accept_encoding, read_seconds)


def _unpack_and_answer(packed: Packed, model: ServedModel) -> Done:
    began = perf_counter()
    body = unpack(packed.body, packed.encoding, packed.most_bytes)
    asked = read(body, packed.header_length, model)
    read_seconds = perf_counter() - began
    return _answer(asked, model, packed.accept_encoding, read_seconds)


def _answer(asked: Asked, model: ServedModel, accept_encoding: str | None, read_seconds: float) -> Done:
    began = perf_counter()
    run = model.infer(asked.query)
    ran = perf_counter()
    written = write(asked, run.result, model)
    headers = {"Content-Type": "application/json"}
    if written.header_length is not None:
        headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(written.header_length)}
    encoding = accepted(accept_encoding, len(written.content))
    if encoding is not Encoding.IDENTITY:
        headers |= {"Content-Encoding": encoding, "Vary": "Accept-Encoding"}
    answer = Answer.of(run, pack(written.content, encoding))
    return Done(answer, headers, began, read_seconds, run.encode_seconds, perf_counter() - ran)
