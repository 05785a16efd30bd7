"""ModelInfer: each call is an entry of the batcher (`service.inference.scheduling.batcher`).

The *frame* of a message is the rest of it without the bytes of its values. gRPC's library accepts one call in an
iteration of the event loop. So calls that came together are gathered first.
"""

from __future__ import annotations

import asyncio
from asyncio import TimerHandle
from dataclasses import dataclass
from typing import Any, Self

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
from spikeserve.service.inference.scheduling.entry import AwaitedEntry
from spikeserve.service.services import Services
from spikeserve.service.telemetry.record import RequestRecord
from spikeserve.service.telemetry.tracing import RequestSpan, Tracing

INFER = "ModelInfer"
ROUTE = f"/{SERVICE}/{INFER}"
GATHER_SECONDS = 0.001  # for which a call waits for the next one
MAX_GATHERED = 8  # calls that wait for each other at most


class MessageEndpoint(frames.BatchedEndpoint):
    """The endpoint of messages for one model, `of` one of them, whose values `reader` reads."""

    def __init__(self, services: Services, *of: Any) -> None:
        super().__init__(ROUTE, *of)
        self.blobs = services.blobs
        self.reader = readers_of(self.model).rows
        self.is_read = self.reader is not None
        self.parted: SplitRequest | None = None

    def of(self, parted: SplitRequest, milliseconds: int) -> Self:
        """Copy the endpoint for one message."""
        endpoint = self.plus(frames.Extras(milliseconds=milliseconds))
        endpoint.parted = parted
        return endpoint

    def codec(self, unpack: Unpack | None = None) -> MessageCodec:  # noqa: ARG002  (gRPC's library decompresses)
        """Return the decoder of the message."""
        return MessageCodec(self.model, self.blobs, self.parted)

    def span(self, _: bytes) -> frames.Span | None:
        """Return where the values are, if they are in one place."""
        places = self.parted.places if self.parted else []
        return frames.Span(*places[0], 0) if len(places) == 1 else None

    def framed(self, _: bytes, query: InferQuery) -> frames.DecodedBody | None:
        """Return the frame of a decoded message; None where it shares no batch on the event loop."""
        frame = None if self.reader is None else frame_of(query, self.model, self.reader)
        return frame and frames.DecodedBody(frame, query.datatype is Datatype.FP32)


@dataclass(eq=False, kw_only=True)
class CallEntry(AwaitedEntry):
    """A call, or a message of a stream, until it is answered; it has a `span` where it is sampled."""

    asker: Call
    span: RequestSpan | None

    def end_span(self, _: Tracing, record: RequestRecord, status: int) -> None:
        """End its span."""
        self.asker.end_span(self.span, status, record)


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
        self.endpoints: dict[LoadedModel, MessageEndpoint] = {}
        self.frames: frames.Frames = frames.RepeatCache()

    async def answer(self, call: Call) -> bytes:
        """Classify each sample. Raises the errors of the codec, and those that end an entry."""
        self.catalog.check_open()
        body = (await call.read()).content
        known = self._endpoint(parted := part(body))
        call.record.labels |= known.labels
        endpoint = known.of(parted, call.milliseconds)
        span, call.span = call.span, None
        of_call = call.record.request_id, call.trace, body, call.began
        entry = CallEntry(endpoint, *of_call, asker=call, holds=call.holds, span=span)
        call.is_logged = True  # by the batcher
        del body, parted, of_call  # they may be long
        self._gather(entry)
        return (await entry.content(self.batcher.end)).body

    def _gather(self, entry: CallEntry) -> None:
        """Answer a call once `expected` wait, or none has come for GATHER_SECONDS.

        One that comes before any of the last batch has ended was in flight beside all of them: so more are expected.
        """
        entry.asker.context.add_done_callback(self._ended)
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
            self.batcher.add(each, alone=len(each.asker.calls.tasks) == 1)

    def _ended(self, _: object) -> None:
        self.all_in_flight = False

    def _endpoint(self, parted: SplitRequest) -> MessageEndpoint:
        """Return the endpoint of a message. Raises ModelNotFound and NotReady."""
        if self.changes != self.catalog.changes:
            self.changes = self.catalog.changes
            self.services.metrics.settle()  # as the gate does
            self.endpoints, self.frames = {}, frames.RepeatCache()
        model = self.catalog.find(parted.message.model_name, parted.message.model_version or None)
        endpoint = self.endpoints.get(model)
        if endpoint is None:
            endpoint = self.endpoints[model] = MessageEndpoint(self.services, model, self.frames)
        return endpoint
