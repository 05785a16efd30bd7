"""ModelInfer, and its ordinary calls: short messages of one tensor of floats, which differ in these only.

The *frame* of a message is what is left of it without the bytes of its values. The first two messages of a frame go the
full way, through the pipeline. Once that has answered them, messages with the same bytes around as many values as they
had are answered by the tick (`service.inference.scheduling.tick`), in one batch with others. gRPC's library accepts one
call in an iteration of the event loop, so calls that came together are gathered first. What is odd in any way, in the
message or the call, goes the full way.
"""

from __future__ import annotations

import asyncio
from asyncio import Future, TimerHandle
from http import HTTPStatus

from spikeserve.models.errors import InvalidInput
from spikeserve.plugins.grpc.call import Call
from spikeserve.plugins.grpc.codec import MessageCodec
from spikeserve.plugins.grpc.methods import SERVICE, answer_message
from spikeserve.plugins.grpc.wire import SplitRequest, part
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.errors import ServiceError
from spikeserve.service.inference.decoding.readers import readers_of
from spikeserve.service.inference.protocols.v2.endpoint import frame_of
from spikeserve.service.inference.protocols.v2.tensors import Datatype
from spikeserve.service.inference.scheduling import frames
from spikeserve.service.inference.scheduling.answer import Content
from spikeserve.service.inference.scheduling.pipeline import TIMEOUT
from spikeserve.service.inference.scheduling.query import SMALL_BODY
from spikeserve.service.inference.scheduling.tick import Tick
from spikeserve.service.services import Services

INFER = "ModelInfer"
ROUTE = f"/{SERVICE}/{INFER}"
RARE = frozenset({TIMEOUT})  # metadata that asks for anything else than an answer
LEAST_SECONDS = 0.1  # up to the deadline of an ordinary call: what it shares a batch with is done by then
GATHER_SECONDS = 0.001  # for which a call waits for the next one
MAX_GATHERED = 8  # calls that wait for each other at most
MAX_PLACES = 8  # of the values in messages of one length; of further ones, the full way is taken


class KnownEndpoint(frames.Endpoint):
    """The endpoint of messages that have one frame: where their values are is known, and so is the frame."""

    def __init__(self, model: LoadedModel, frame: frames.Frame, place: frames.Span) -> None:
        super().__init__(ROUTE, model)
        self.known = frame
        self.place = place

    def find(self, body: bytes) -> frames.Match:
        """Return the frame."""
        return self.known, body, self.place


class OrdinaryCall:
    """An ordinary call, until it is answered or goes the full way."""

    def __init__(self, endpoint: frames.Endpoint, call: Call, body: bytes) -> None:
        self.endpoint = endpoint
        self.call = call
        self.request_id = call.record.request_id
        self.body = body
        self.withdrawn = False
        self.trace = call.trace
        self.started = call.began
        self.answered: Future[bytes | None] = asyncio.get_running_loop().create_future()

    def answer(self, content: Content) -> None:
        """Send the answer."""
        if not self.answered.done():
            self.answered.set_result(content.body)

    def refuse(self, error: ServiceError | InvalidInput, _: HTTPStatus) -> None:
        """Send an error."""
        self.call.is_logged = True
        if not self.answered.done():
            self.answered.set_exception(error)

    def decline(self) -> None:
        """Send it the full way instead."""
        if not self.answered.done():
            self.answered.set_result(None)


class Infer:
    """The method ModelInfer. Without a tick, and where it has a span, a call goes the full way."""

    def __init__(self, services: Services, tick: Tick | None) -> None:
        self.services = services
        self.catalog = services.catalog
        self.tick = tick
        self.gathered: list[OrdinaryCall] = []
        self.expected, self.all_in_flight = 1, False  # calls of a batch; whether none of the last one's has ended
        self.timer: TimerHandle | None = None
        self.changes = -1
        self.endpoints = frames.RepeatCache[tuple[bytes, bytes], frames.Endpoint]()  # by the bytes around the values
        self.places: dict[int, dict[tuple[int, int], None]] = {}  # of the values, by the length of the message

    async def answer(self, call: Call) -> bytes:
        """Classify each sample. Raises what the pipeline raises."""
        self.catalog.check_open()
        message = await call.read()
        body, changes = message.content, self.catalog.changes
        if self.tick and not call.span and (endpoint := self._endpoint(call, body)) is not None:
            ordinary = OrdinaryCall(endpoint, call, body)
            self._gather(self.tick, ordinary)
            try:
                content: bytes | None = await ordinary.answered
            finally:
                ordinary.withdrawn = True
            if content is not None:
                call.is_logged = True
                return content
        call.set_deadline()
        parted = part(body)
        answer = await answer_message(call, message, parted, call.record)
        if self.tick is not None and changes == self.catalog.changes and len(body) <= SMALL_BODY:
            self._learn(body, parted)
        return answer

    def _gather(self, tick: Tick, ordinary: OrdinaryCall) -> None:
        """Answer a call once `expected` wait, or none has come for GATHER_SECONDS.

        One that comes before any of the last batch has ended was in flight beside all of them: so more are expected.
        """
        ordinary.call.context.add_done_callback(self._ended)
        self.gathered.append(ordinary)
        if self.all_in_flight:
            self.expected = min(2 * self.expected, MAX_GATHERED)
        if self.timer is not None:
            self.timer.cancel()
        if len(self.gathered) >= self.expected:
            self._answer_gathered(tick)
        else:
            self.timer = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._answer_gathered, tick)

    def _answer_gathered(self, tick: Tick) -> None:
        gathered, self.gathered, self.all_in_flight = self.gathered, [], True
        self.expected = max(len(gathered), self.expected // 2)
        for each in gathered:
            tick.add(each, alone=len(each.call.tasks) == 1)

    def _ended(self, _: object) -> None:
        self.all_in_flight = False

    def _endpoint(self, call: Call, body: bytes) -> frames.Endpoint | None:
        """Return the endpoint of an ordinary call; None for any other, and where its frame is not known."""
        if self.changes != self.catalog.changes:
            self._forget()
        for start, stop in self.places.get(len(body), ()):
            endpoint = self.endpoints.values.get((body[:start], body[stop:]))
            if endpoint is not None:
                left = call.context.time_remaining()
                return endpoint if (left is None or left >= LEAST_SECONDS) and RARE.isdisjoint(call.headers) else None
        return None

    def _forget(self) -> None:
        self.changes = self.catalog.changes
        self.services.metrics.settle()  # as the gate does
        self.endpoints = frames.RepeatCache()
        self.places.clear()

    def _learn(self, body: bytes, parted: SplitRequest) -> None:
        """Keep the frame of a message that was answered just now, if it is plain and came twice."""
        asked = parted.message
        model = self.catalog.find(asked.model_name, asked.model_version or None)
        reader = readers_of(model).rows
        if reader is None or len(parted.places) != 1 or asked.inputs[0].datatype != Datatype.FP32:
            return
        ((start, stop),) = parted.places
        key, places = (body[:start], body[stop:]), self.places.get(len(body), {})
        if len(body) + start - stop > frames.MAX_FRAME_BYTES or len(places) == MAX_PLACES:
            return
        if len(self.endpoints.values) == frames.MAX_KNOWN:
            self._forget()
        query = MessageCodec(model, self.services.blobs, parted).decode(body) if self.endpoints.came(key) else None
        if query is not None and (frame := frame_of(query, model, reader)) is not None:
            self.endpoints.learn(key, KnownEndpoint(model, frame, frames.Span(start, stop, 0)))
            self.places.setdefault(len(body), {})[start, stop] = None
