"""ModelStreamInfer: many infer requests on one stream, each answered as soon as it is done.

Requests of one sequence run in the order in which they were sent; others may overtake each other, and a client knows an
answer by its id. A request that fails is answered with its sentence, and the stream goes on. If the client hangs up,
the RPC and all of its requests are cancelled.
"""

from __future__ import annotations

import asyncio
from asyncio import Task, TaskGroup
from contextlib import ExitStack
from time import perf_counter
from weakref import WeakValueDictionary

from spikeserve.models.errors import SpikeserveError
from spikeserve.plugins.grpc.call import EOF, Call, Message, status_of
from spikeserve.plugins.grpc.codec import MessageCodec, plain
from spikeserve.plugins.grpc.infer import CallEntry
from spikeserve.plugins.grpc.messages import ModelInferRequest, ModelInferResponse, ModelStreamInferResponse
from spikeserve.plugins.grpc.wire import delimited, part
from spikeserve.service.errors import DeadlineExceeded, Overloaded, ShuttingDown
from spikeserve.service.inference.decoding.memory import Reservation
from spikeserve.service.inference.scheduling.entry import OneEndpoint, milliseconds_of
from spikeserve.service.inference.scheduling.frames import Extras
from spikeserve.service.telemetry.access import AccessLog
from spikeserve.service.telemetry.record import RequestRecord

STREAM = "ModelStreamInfer"
MAX_IN_FLIGHT = 64  # requests of one stream; the next is read once one of them is answered
STREAMS_SHARE = 2  # streams reserve at most this fraction of the memory budget, a half, for messages to come
RESPONSE = ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER


class Streams:
    """The open streams of this process."""

    def __init__(self) -> None:
        self.open: set[Stream] = set()

    async def answer(self, call: Call) -> bytes:
        """Answer one stream to its end. Raises Overloaded, DeadlineExceeded and ShuttingDown."""
        settings = call.services.settings
        most = max(1, settings.max_pending_bytes // STREAMS_SHARE // settings.max_body_bytes)
        if len(self.open) >= most:
            raise Overloaded(
                f"{len(self.open)} streams are open, expected fewer: each reserves max_body_bytes, and all together at "
                "most half of max_pending_bytes"
            )
        room = Reservation(call.services.budget)
        call.holds.callback(room.release)
        room.reserve(settings.max_body_bytes)
        call.services.catalog.check_open()
        stream = Stream(call)
        self.open.add(stream)
        try:
            await stream.serve()
        finally:
            self.open.discard(stream)
            call.record.labels |= {"requests": stream.requests, "failed": stream.failed}
        return b""

    def end_all(self) -> None:
        """Have every stream end once its requests in flight are answered: the server drains."""
        for stream in self.open:
            stream.end()


class MessageEntry(CallEntry):
    """A message of a stream, which has no line in the log: the stream has one."""

    def log(self, access: AccessLog, _: RequestRecord, status: int) -> None:
        """Count it among its model's requests."""
        model, seconds = self.endpoint.model, perf_counter() - self.started
        access.metrics.models.count_requests(model.name, model.version, status, 1, [seconds])


class Stream:
    """One stream: its requests in flight, and the last one of each sequence."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.requests = self.failed = 0
        self.room = asyncio.Semaphore(MAX_IN_FLIGHT)
        self.writing = asyncio.Lock()
        self.sequences = WeakValueDictionary[tuple[str, object], Task[None]]()  # tasks in progress
        self.reading: asyncio.Timeout | None = None
        self.draining = self.silent = False

    async def serve(self) -> None:
        """Read and answer requests. Raises DeadlineExceeded where none comes for long, and ShuttingDown."""
        try:
            async with TaskGroup() as tasks:
                while (message := await self._next()) is not None:
                    self.requests += 1
                    self._begin(tasks, message)
                    del message  # it may be long, and the client silent from now on
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from group
        if self.draining:
            raise ShuttingDown("the server is shutting down; all requests that it has read were answered")
        if self.silent:
            seconds = self.call.services.settings.session_idle_seconds
            raise DeadlineExceeded(f"nothing was sent for {seconds:g} seconds")

    def end(self) -> None:
        """Read no more requests."""
        self.draining = True
        if self.reading is not None:
            self.reading.reschedule(asyncio.get_running_loop().time())

    async def _next(self) -> bytes | None:
        """Return the next message, once there is room for it; None at the end, or where none comes for long."""
        await self.room.acquire()
        if self.draining:
            return None
        seconds = self.call.services.settings.session_idle_seconds
        self.reading = asyncio.timeout(seconds)
        try:
            async with self.reading:
                content = await self.call.context.read()
        except TimeoutError:
            self.silent = not self.draining
            return None
        finally:
            self.reading = None
        return None if content is EOF else bytes(content)

    def _begin(self, tasks: TaskGroup, content: bytes) -> None:
        """Begin to answer a message, after the one before it of its sequence."""
        call, asked = self.call, ModelInferRequest()
        services, span = call.services, call.span.message() if call.span is not None else None
        try:
            parted, message = part(content), Message(content, services.budget)
            asked = parted.message
            model = services.catalog.find(asked.model_name, asked.model_version or None)
            endpoint = OneEndpoint(STREAM, model, MessageCodec(model, services.blobs, parted))
            endpoint.extras = Extras(milliseconds=milliseconds_of(call.headers))
        except SpikeserveError as error:
            told = ModelInferResponse(id=asked.id, model_name=asked.model_name)
            tasks.create_task(self._refuse(error, told))
            call.end_span(span, status_of(error), RequestRecord(call.record.request_id))
            return
        of_call, holds = (call.record.request_id, call.trace, content), ExitStack()
        holds.callback(message.release)
        entry = MessageEntry(endpoint, *of_call, asker=call, holds=holds, span=span)
        named = plain({"id": asked.parameters["sequence_id"]})["id"] if "sequence_id" in asked.parameters else None
        key = None if named in (None, 0, "") else (asked.model_name, named)
        before = None if key is None else self.sequences.get(key)
        task = tasks.create_task(self._answer(entry, asked.id, before))
        task.add_done_callback(lambda _: holds.close())  # also where it is cancelled before it begins
        if key is not None:
            self.sequences[key] = task

    async def _answer(self, entry: MessageEntry, asked: str, before: Task[None] | None) -> None:
        batcher = self.call.services.batcher
        try:
            if before is not None:
                await asyncio.wait([before])
                entry.started = perf_counter()
            batcher.add(entry, alone=False)
            content = await entry.content(batcher.end)
            await self._write(delimited(RESPONSE, content.body))
        except SpikeserveError as error:
            await self._refuse(error, ModelInferResponse(id=asked, model_name=entry.endpoint.model.name))

    async def _refuse(self, error: SpikeserveError, response: ModelInferResponse) -> None:
        """Answer one request with a sentence; `response` says which."""
        self.failed += 1
        told = ModelStreamInferResponse(error_message=str(error), infer_response=response)
        await self._write(told.SerializeToString())

    async def _write(self, answer: bytes) -> None:
        """Send one answer after the other, each of which makes room for a further request."""
        async with self.writing:
            await self.call.write(answer)
        self.room.release()
