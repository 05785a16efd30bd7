"""The endpoints of streams: a WebSocket, and a POST whose body and answer are both sent while they come.

WebSocket    binary messages are event records, or values of float32; texts are JSON messages; each line is a text
POST         the body is such bytes, or JSON messages, one a line; the answer is a line of JSON each (NDJSON)
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from sys import getsizeof
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute, APIWebSocketRoute
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec import Coding
from spikeserve.service.errors import UnsupportedMedia, shown
from spikeserve.service.http.access import SUBPROTOCOL, sender_of
from spikeserve.service.http.requests import exchange_of
from spikeserve.service.http.routes import ERRORS, model_of, of_model, responses
from spikeserve.service.inference.decoding.body import UNRESERVED_BYTES, Body
from spikeserve.service.inference.decoding.media import BYTES, RECORDS, unpacking
from spikeserve.service.inference.decoding.memory import Reservation
from spikeserve.service.inference.sessions.messages import StreamOptions
from spikeserve.service.inference.sessions.stream import Stream
from spikeserve.service.inference.sessions.table import EndReason, OpenSession
from spikeserve.service.inference.sessions.values import ValueWindows
from spikeserve.service.inference.sessions.windows import Windows
from spikeserve.service.services import Services

RECORD_TYPES = {RECORDS.decode(), BYTES.decode(), "application/x-www-form-urlencoded", ""}  # curl sends the third
LINES = "application/x-ndjson"
MESSAGES = {LINES, "application/jsonl"}
LINE_BYTES = 2**26  # of a message in a body
LINE_END = re.compile(rb"\n[ \t\r\n]*")  # with the empty lines behind it, which may be thousands
PART_BYTES = 2**16  # of events or values that are worked on at once, unless one step has more
CODES, GOING_AWAY = {None: 1000, EndReason.ERROR: 1008}, 1001  # WebSocket's, by why a session ended
SOCKET = "spikeserve.socket"  # the extension of ASGI of our own server: its `connection` writes texts


async def stream_by_websocket(websocket: WebSocket) -> None:
    """Serve a session over a WebSocket."""
    services: Services = websocket.app.state.services
    model = await model_of(websocket)
    labels = exchange_of(websocket).record.labels
    labels |= {"model": model.name, "version": model.version}
    options = StreamOptions.read(websocket.scope["query_string"])
    with services.sessions.opened(model, options, sender_of(websocket.scope), labels) as opened:
        offered = websocket.scope["subprotocols"]
        await websocket.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None)

        async def receive() -> bytes | str | None:
            message = await (websocket if own is None else own).receive()
            if message["type"] == "websocket.disconnect":
                raise ClientDisconnect
            records: bytes | None = message.get("bytes")
            return message["text"] if records is None else records

        async def send(lines: Sequence[bytes]) -> None:
            try:
                if own is not None:
                    await own.send_texts(lines)
                    return
                for line in lines:
                    await websocket.send_text(line.decode())
            except (WebSocketDisconnect, RuntimeError) as error:
                raise ClientDisconnect from error

        own: Any = websocket.scope.get("extensions", {}).get(SOCKET, {}).get("connection")
        await Stream(opened, services.sessions, services.blobs, send, own).serve(receive)
        if websocket.application_state is WebSocketState.CONNECTED:
            with suppress(WebSocketDisconnect, RuntimeError):
                await websocket.close(CODES.get(opened.ended, GOING_AWAY))


streaming = APIRouter()


@of_model(
    streaming,
    "POST",
    "/stream",
    response_class=Response,  # so that FastAPI documents the content below, and errors as JSON
    response_description="A line of JSON for each window of time, and one at the end.",
    responses={
        200: {"content": {LINES: {"schema": {"type": "string"}}}},
        **responses(ERRORS, 401, 403, 404, 415, 422, 503),
    },
    tags=["stream"],
)
async def stream_by_post(request: Request) -> Response:
    """Stream to a model's newest version that is ready, or to one, and read an answer for each window.

    The body and the answer are both sent while they are made, as one session, which keeps the network's state. Clients
    that cannot read an answer before their body ends use a WebSocket at the same path.
    """
    services: Services = request.app.state.services
    exchange = exchange_of(request)
    kind = exchange.headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
    if kind not in RECORD_TYPES | MESSAGES:
        raise UnsupportedMedia(f"Content-Type is {shown(kind)}, expected {RECORDS.decode()} or {LINES}")
    if unpacking(exchange.headers, exchange.body) is not None:
        raise UnsupportedMedia("Content-Encoding says that the body is compressed, expected one that is not, here")
    model = await model_of(request)
    exchange.record.labels |= {"model": model.name, "version": model.version}
    exchange.body.streamed = True
    if kind == RECORDS.decode() and model.spec.coding is not Coding.SPIKES:
        raise UnsupportedMedia(
            f"Content-Type is {shown(kind)}, but this model takes values, expected {LINES} or {BYTES.decode()}"
        )
    options = StreamOptions.read(request.scope["query_string"])
    opening = services.sessions.opened(model, options, sender_of(request.scope), exchange.record.labels)
    return LinesResponse(opening, exchange.body, services, is_messages=kind in MESSAGES)


@dataclass(eq=False)
class LinesResponse(Response):
    """Serves a session over a POST: its lines are sent as they are made, while the body still comes."""

    opening: AbstractContextManager[OpenSession]
    request_body: Body
    services: Services
    is_messages: bool

    def __post_init__(self) -> None:
        super().__init__(media_type=LINES)
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Serve the session."""
        with self.opening as opened, Reservation(self.services.budget) as room:
            await self.request_body.invite()
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": b"", "more_body": True})

            body, windows = self.request_body, opened.session.windows
            parts: AsyncIterator[bytes | str]
            parts = _messages(body, room) if self.is_messages else _records(body, windows, room)

            async def next_part() -> bytes | str | None:
                await asyncio.sleep(0)  # of the thousands that may have come at once, one in each iteration of the loop
                return await anext(parts, None)

            async def write(lines: Sequence[bytes]) -> None:
                await send({"type": "http.response.body", "body": b"\n".join([*lines, b""]), "more_body": True})

            await Stream(opened, self.services.sessions, self.services.blobs, write).serve(next_part)
            await send({"type": "http.response.body", "body": b""})


async def _records(body: Body, windows: Windows | ValueWindows, room: Reservation) -> AsyncIterator[bytes]:
    """Yield a body's events or values, several at once; a part of one waits for its rest, and counts in `room`."""
    rest, size = bytearray(), windows.record_bytes
    at_once = max(size, PART_BYTES - PART_BYTES % size)
    while (part := await body.part()) is not None:
        rest += part
        whole = len(rest) - len(rest) % size
        for start in range(0, whole, at_once):
            yield bytes(rest[start : min(whole, start + at_once)])
        del rest[:whole]
        room.resize(len(rest), UNRESERVED_BYTES)
    if rest:
        raise InvalidInput(
            f"the body ends with {len(rest)} bytes of its last {windows.record}, expected {size} for each"
        )


async def _messages(body: Body, room: Reservation) -> AsyncIterator[str]:
    """Yield a body's messages, one for each line, which counts in `room` until the next one is asked for."""
    rest = bytearray()
    while (part := await body.part()) is not None:
        *lines, last = LINE_END.split(part)
        for line in lines:
            rest += line
            if rest and not rest.isspace():
                yield _text(rest, room)
            rest.clear()
        rest += last
        if len(rest) > LINE_BYTES:
            raise InvalidInput(f"a message has {len(rest)} bytes or more, expected at most {LINE_BYTES}")
        room.resize(len(rest), UNRESERVED_BYTES)
    if rest and not rest.isspace():
        yield _text(rest, room)


def _text(line: bytearray, room: Reservation) -> str:
    """Take the text of a line, and count it in place of the line's bytes: it may be up to four times as long."""
    text = line.decode(errors="replace")
    line.clear()
    room.resize(getsizeof(text), UNRESERVED_BYTES)
    return text


sockets = [
    APIWebSocketRoute(route.path, stream_by_websocket) for route in streaming.routes if isinstance(route, APIRoute)
]
