"""ModelInfer: each call is an entry of the batcher (`service.inference.scheduling.batcher`).

The *frame* of a message is what is left of it without the bytes of its values. A frame of floats that comes a second
time is known by its bytes; from then on only the values are read. gRPC's library accepts one call in an iteration of
the event loop, so calls that came together are gathered first.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError, Future, TimerHandle
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from spikeserve.plugins.grpc.call import Call
from spikeserve.plugins.grpc.codec import MessageCodec
from spikeserve.plugins.grpc.methods import SERVICE
from spikeserve.plugins.grpc.wire import SplitRequest, part
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.inference.decoding.media import Unpack
from spikeserve.service.inference.decoding.readers import readers_of
from spikeserve.service.inference.protocols.v2.decode import InferQuery
from spikeserve.service.inference.protocols.v2.endpoint import frame_of
from spikeserve.service.inference.protocols.v2.tensors import Datatype
from spikeserve.service.inference.scheduling import frames
from spikeserve.service.inference.scheduling.answer import Content
from spikeserve.service.inference.scheduling.job import Job
from spikeserve.service.inference.scheduling.query import Query, Sender
from spikeserve.service.services import Services
from spikeserve.service.telemetry.record import RequestRecord
from spikeserve.service.telemetry.tracing import Tracing

INFER = "ModelInfer"
ROUTE = f"/{SERVICE}/{INFER}"
GATHER_SECONDS = 0.001  # for which a call waits for the next one
MAX_GATHERED = 8  # calls that wait for each other at most
MAX_PLACES = 8  # of the values in messages of one length; further ones are decoded each time


class KnownEndpoint(frames.Endpoint):
    """The endpoint of messages that have one frame: where their values are is known, and so is the frame."""

    def __init__(self, services: Services, frame: frames.Frame, place: frames.Span) -> None:
        super().__init__(ROUTE, frame.group.model)
        self.services = services
        self.frame = frame
        self.place = place

    def codec(self, unpack: Unpack | None = None) -> MessageCodec:  # noqa: ARG002  (gRPC's library decompresses)
        """Return the decoder of a message."""
        return MessageCodec(self.model, self.services.blobs)

    def find(self, body: bytes) -> frames.Match:
        """Return the frame."""
        return self.frame, body, self.place


Learn: TypeAlias = Callable[["MessageEndpoint", bytes, InferQuery], KnownEndpoint | None]


class MessageEndpoint(frames.Endpoint):
    """The endpoint of one message whose frame is not known, which `learn` is given once it is decoded."""

    def __init__(self, model: LoadedModel, services: Services, parted: SplitRequest, learn: Learn) -> None:
        super().__init__(ROUTE, model)
        self.services = services
        self.parted = parted
        self.learn = learn

    def codec(self, unpack: Unpack | None = None) -> MessageCodec:  # noqa: ARG002  (gRPC's library decompresses)
        """Return the decoder of the message."""
        return MessageCodec(self.model, self.services.blobs, self.parted)

    def find(self, body: bytes) -> frames.Match | Query | None:
        """Decode the message, and return its frame where that is known from now on."""
        query = self.codec().decode(body)
        known = self.learn(self, body, query)
        return query if known is None else known.find(body)


class CallEntry:
    """A call, until it is answered."""

    def __init__(self, endpoint: frames.Endpoint, call: Call, body: bytes) -> None:
        self.endpoint = endpoint
        self.call = call
        self.request_id = call.record.request_id
        self.body = body
        self.is_over = False
        self.job: Job | None = None
        self.trace = call.trace
        self.started = call.began
        self.answered: Future[bytes] = asyncio.get_running_loop().create_future()

    @property
    def sender(self) -> Sender:
        """The client's key and address."""
        return self.call.sender

    def answer(self, content: Content, sent: Callable[[], object] | None = None) -> None:
        """Send the answer; `sent` is called at the end of the call."""
        self.is_over = self.call.is_logged = True
        if sent is not None:
            self.call.holds.callback(sent)
        if not self.answered.done():
            self.answered.set_result(content.body)

    def refuse(self, error: Exception, _: int) -> None:
        """Send an error."""
        self.is_over = self.call.is_logged = True
        if not self.answered.done():
            self.answered.set_exception(error)

    def end_span(self, _: Tracing, record: RequestRecord, status: int) -> None:
        """End the call's span."""
        span, self.call.span = self.call.span, None
        self.call.end_span(span, status, record)


class Infer:
    """The method ModelInfer."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.catalog = services.catalog
        self.batcher = services.batcher
        self.gathered: list[CallEntry] = []
        self.expected, self.all_in_flight = 1, False  # calls of a batch; whether none of the last one's has ended
        self.timer: TimerHandle | None = None
        self.changes = -1
        self.endpoints = frames.RepeatCache[tuple[bytes, bytes], KnownEndpoint]()  # by the bytes around the values
        self.places: dict[int, dict[tuple[int, int], None]] = {}  # of the values, by the length of the message

    async def answer(self, call: Call) -> bytes:
        """Classify each sample. Raises what the codec raises, and what ends an entry."""
        self.catalog.check_open()
        body = await (await call.read()).read()
        endpoint = self._endpoint(body)
        call.record.labels |= endpoint.labels
        if milliseconds := call.milliseconds:
            endpoint = endpoint.plus(frames.Extras(milliseconds=milliseconds))
        entry = CallEntry(endpoint, call, body)
        del body  # which may be long
        self._gather(entry)
        try:
            return await entry.answered
        except CancelledError:
            call.is_logged = True  # soon, where it waits for a thread
            self.batcher.end(entry, call.why_cancelled(endpoint.model.name))
            raise

    def _gather(self, entry: CallEntry) -> None:
        """Answer a call once `expected` wait, or none has come for GATHER_SECONDS.

        One that comes before any of the last batch has ended was in flight beside all of them: so more are expected.
        """
        entry.call.context.add_done_callback(self._ended)
        self.gathered.append(entry)
        if self.all_in_flight:
            self.expected = min(2 * self.expected, MAX_GATHERED)
        if self.timer is not None:
            self.timer.cancel()
        if len(self.gathered) >= self.expected:
            self._answer_gathered()
        else:
            self.timer = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._answer_gathered)

    def _answer_gathered(self) -> None:
        gathered, self.gathered, self.all_in_flight = self.gathered, [], True
        self.expected = max(len(gathered), self.expected // 2)
        for each in gathered:
            self.batcher.add(each, alone=len(each.call.calls.tasks) == 1)

    def _ended(self, _: object) -> None:
        self.all_in_flight = False

    def _endpoint(self, body: bytes) -> frames.Endpoint:
        """Return the endpoint of a message. Raises MalformedBody, TooLarge, ModelNotFound and NotReady."""
        if self.changes != self.catalog.changes:
            self._forget()
        for start, stop in self.places.get(len(body), ()):
            if (known := self.endpoints.values.get((body[:start], body[stop:]))) is not None:
                return known
        parted = part(body)
        model = self.catalog.find(parted.message.model_name, parted.message.model_version or None)
        return MessageEndpoint(model, self.services, parted, partial(self._learn, self.changes))

    def _forget(self) -> None:
        self.changes = self.catalog.changes
        self.services.metrics.settle()  # as the gate does
        self.endpoints = frames.RepeatCache()
        self.places.clear()

    def _learn(self, changes: int, endpoint: MessageEndpoint, body: bytes, query: InferQuery) -> KnownEndpoint | None:
        """Keep the frame of a message whose endpoint was found before `changes`, if it is plain and comes twice."""
        parted, reader = endpoint.parted, readers_of(endpoint.model).rows
        if reader is None or len(parted.places) != 1 or query.datatype is not Datatype.FP32:
            return None
        ((start, stop),) = parted.places
        key, places = (body[:start], body[stop:]), self.places.get(len(body), {})
        is_long = len(body) + start - stop > frames.MAX_FRAME_BYTES or len(places) == MAX_PLACES
        if is_long or changes != self.changes or not self.endpoints.came(key):
            return None
        if len(self.endpoints.values) == frames.MAX_KNOWN:
            self._forget()
        frame = frame_of(query, endpoint.model, reader)
        if frame is None:
            return None
        known = KnownEndpoint(self.services, frame, frames.Span(start, stop, 0))
        self.endpoints.learn(key, known)
        self.places.setdefault(len(body), {})[start, stop] = None
        return known
