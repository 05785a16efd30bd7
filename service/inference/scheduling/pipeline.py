"""The pipeline both protocols share: admit, read the body, decode, schedule, encode, run, render, record.

Each protocol brings a codec (`service.inference.scheduling.query`); nothing else here depends on the protocol. The
scheduler decides on which thread and in which batch a request is encoded and run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import perf_counter
from traceback import clear_frames

from starlette.requests import ClientDisconnect

from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.errors import MalformedHeader, late, shown
from spikeserve.service.inference.decoding.body import RequestBody
from spikeserve.service.inference.scheduling.job import Answer, Job, RawJob, Work
from spikeserve.service.inference.scheduling.query import NOBODY, SMALL_BODY, Codec, Sender
from spikeserve.service.inference.scheduling.scheduler import Scheduler
from spikeserve.service.telemetry.metrics import Metrics
from spikeserve.service.telemetry.record import RequestRecord, Times

TIMEOUT = b"x-request-timeout-ms"
MAX_DIGITS = 9  # of that header; a longer number exceeds any setting


class Pipeline:
    """Takes a request for a model from its body to the content of its answer."""

    def __init__(self, scheduler: Scheduler, metrics: Metrics, request_timeout_ms: int) -> None:
        self.scheduler = scheduler
        self.metrics = metrics
        self.request_timeout_ms = request_timeout_ms

    async def answer(
        self,
        model: LoadedModel,
        codec: Codec,
        headers: Mapping[bytes, bytes],
        body: RequestBody,
        record: RequestRecord,
        sender: Sender = NOBODY,
    ) -> Answer:
        """Return the answer of `model` to a request, and update `record` and the metrics; sequences need its `sender`.

        Raises MalformedHeader, MalformedBody, InvalidInput, TooLarge, Overloaded, BodyTooSlow, DeadlineExceeded,
        ShuttingDown, and ClientDisconnect where the client leaves.
        """
        record.labels |= {"model": model.name, "version": model.version}
        model.requests.count += 1
        try:
            answer = await self._answer(model, codec, body, self._deadline(headers), sender)
        except Exception as error:
            clear_frames(error.__traceback__)  # which hold the job, and it the error: a cycle, with the body in it
            self.metrics.queues.count_end(model.name, error)
            raise
        finally:
            model.requests.count -= 1
        record.labels["samples"] = answer.record.samples
        record.answer = answer.record
        return answer

    async def _answer(
        self, model: LoadedModel, codec: Codec, body: RequestBody, deadline: float, sender: Sender
    ) -> Answer:
        if not 0 <= body.length <= SMALL_BODY:
            self.scheduler.require_room(model)  # a long body is read only if the queue has room
        content = await body.read(deadline)
        times = Times(perf_counter())
        if deadline <= asyncio.get_running_loop().time():
            raise late(model.name)
        query = codec.decode_small(content) if len(content) <= SMALL_BODY else None
        job = Job.begin(model, times, sender)
        job.expire_at(deadline)
        leaving = asyncio.get_running_loop().create_task(body.wait_for_disconnect())
        leaving.add_done_callback(lambda _: job.fail(ClientDisconnect()))
        try:
            if query is None:
                self.scheduler.admit(RawJob(job, codec, content, body.reserve))
            else:
                self.scheduler.admit(Work.of(job, query, times.arrived, body.reserve))
            answer: Answer = await job.answer
        finally:
            leaving.cancel()
            job.answer.cancel()
        return answer

    def _deadline(self, headers: Mapping[bytes, bytes]) -> float:
        """Return the request's deadline, on the event loop's clock.

        It is set by the header X-Request-Timeout-Ms, up to the limit of the settings. Raises MalformedHeader.
        """
        most = self.request_timeout_ms
        return asyncio.get_running_loop().time() + min(milliseconds_of(headers) or most, most) / 1000


def milliseconds_of(headers: Mapping[bytes, bytes]) -> int:
    """Return the milliseconds that X-Request-Timeout-Ms asks for; 0 for none. Raises MalformedHeader."""
    value = headers.get(TIMEOUT)
    if value is None:
        return 0
    if not value.isdigit() or not value.strip(b"0"):
        text = shown(value.decode("latin-1"))
        raise MalformedHeader(f"X-Request-Timeout-Ms is {text}, expected whole milliseconds, at least 1")
    return int(value) if len(value) <= MAX_DIGITS else 0
