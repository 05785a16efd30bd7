"""A session that ends while its client does not read: its state is not ahead of the lines that were sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from spikeserve.models.coding.records import make_records
from spikeserve.service.inference.scheduling.query import NOBODY
from spikeserve.service.inference.sessions.messages import Line, StreamOptions
from spikeserve.service.inference.sessions.stream import Stream
from spikeserve.service.inference.sessions.table import Ended
from spikeserve.service.services import Services
from tests.bundles import publish
from tests.service.asgi import started
from tests.service.sessions.conftest import pairs


@pytest.mark.anyio
async def test_a_window_whose_line_was_not_sent_is_not_in_the_state(tmp_path: Path) -> None:
    publish(tmp_path, pairs(), "pairs")
    async with started(tmp_path) as client:
        services: Services = client.app.state.services
        sent: list[Line] = []
        blocked = asyncio.Event()

        messages = iter([[0, 2000], [4000, 6000]])  # the first closes window 0, the second windows 1 and 2

        async def receive() -> bytes:
            return make_records(next(messages), [0, 0]).tobytes()

        async def send(lines: Sequence[bytes]) -> None:
            told = [json.loads(line) for line in lines]
            if told[0]["type"] == "window" and told[0]["window"] == 1:
                blocked.set()
                await asyncio.Event().wait()  # this client reads no further
            sent.extend(told)

        async def serve() -> None:
            with services.sessions.opened(client.model("pairs"), StreamOptions(), NOBODY) as opened:
                await Stream(opened, services.sessions, services.blobs, send).serve(receive)

        serving = asyncio.create_task(serve())
        await blocked.wait()
        services.sessions.end_all(Ended.DRAINING)
        await serving
    first, state = sent
    assert (first["type"], state["type"]) == ("window", "state")
    assert state["type"] == "state"
    assert (state["window"], state["t"]) == (1, 2000)
