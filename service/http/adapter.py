"""The adapter of FastAPI's handlers that predict: it reads the body, and the batcher answers."""

from __future__ import annotations

import asyncio

from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.http.answers import PiecesResponse, invalid_at
from spikeserve.service.http.requests import exchange_of
from spikeserve.service.inference.scheduling.entry import AwaitedEntry, OneEndpoint, milliseconds_of
from spikeserve.service.inference.scheduling.frames import Extras
from spikeserve.service.inference.scheduling.query import SMALL_BODY, Codec
from spikeserve.service.services import Services
from spikeserve.service.telemetry.record import TIMING_WANTED


async def answered(request: Request, model: LoadedModel, codec: Codec) -> Response:
    """Have `model` answer a request, whose body `codec` decodes.

    Raises MalformedHeader, the errors of `Body.read`, and those that end an entry.
    """
    services: Services = request.app.state.services
    exchange, batcher, loop = exchange_of(request), services.batcher, asyncio.get_running_loop()
    body, record, most = exchange.body, exchange.record, services.settings.request_timeout_ms
    endpoint = OneEndpoint(request.scope["route"].path, model, codec)
    endpoint.invalid = invalid_at(endpoint.route)
    record.labels |= endpoint.labels
    model.requests.count += 1  # while the body comes; then the batcher counts
    try:
        milliseconds = milliseconds_of(exchange.headers)
        if not 0 <= body.length <= SMALL_BODY:
            batcher.scheduler.require_room(model)  # a long body is read only if the queue has room
        content = await body.read(loop.time() + min(milliseconds or most, most) / 1000)
    except Exception as error:
        services.metrics.queues.count_end(model.name, error)
        raise
    finally:
        model.requests.count -= 1
    endpoint.extras = Extras(timing=TIMING_WANTED in exchange.headers, milliseconds=milliseconds)
    entry = AwaitedEntry(
        endpoint, record.request_id, exchange.trace, content, exchange.started, asker=exchange, holds=exchange.holds
    )
    del content  # it may be long
    exchange.is_logged = True  # by the batcher
    leaving = loop.create_task(body.wait_for_disconnect())
    leaving.add_done_callback(lambda _: batcher.end(entry, ClientDisconnect()))
    try:
        batcher.add(entry, alone=False)
        return PiecesResponse(await entry.content(batcher.end))
    finally:
        leaving.cancel()
