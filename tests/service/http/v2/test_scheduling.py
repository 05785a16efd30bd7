"""Requests of this protocol wait, share runs and end in time, as the native ones do."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from spikeserve.service.inference.scheduling.query import SMALL_BODY
from spikeserve.service.inference.scheduling.queue import Price
from tests.service.asgi import LEFT, Client, busy, metric, settled, slow, started
from tests.service.infer_requests import INFER, asked

LATE = {"error": "model 'toy' did not answer within the time that the request had"}
PADDING = " " * SMALL_BODY  # after the JSON of a body that shall be long


async def post(client: Client, text: str) -> Any:
    return await client.call("POST", INFER, text.encode(), {}, asyncio.Event())


@pytest.mark.anyio
async def test_a_timeout_counts_in_a_body_that_a_worker_reads(repository: Path) -> None:
    # A tenth of a second by its body and ten minutes by the server: who answers within one was told by the body.
    async with started(repository, threads=2, max_batch=1, request_timeout_ms=600_000) as client:
        held = slow(client.model())
        late = asyncio.create_task(post(client, json.dumps(asked(timeout=10**5)) + PADDING))
        try:
            async with asyncio.timeout(60):
                assert ((await late).status, (await late).json) == (504, LATE)
        finally:
            held.go_on.release(2)


@pytest.mark.anyio
async def test_a_timeout_of_none_or_long_is_answered(repository: Path) -> None:
    async with started(repository) as client:
        slow(client.model()).go_on.release(2)
        for timeout in (0, 2**63 - 1):
            assert (await client.post(asked(timeout=timeout), INFER)).status == 200
        answer = await client.post(asked(timeout=2**63), INFER)
        assert (answer.status, "parameters.timeout is" in answer.json["error"]) == (400, True)


@pytest.mark.anyio
async def test_both_protocols_share_a_run_and_each_is_answered_in_its_own(repository: Path) -> None:
    async with busy(repository) as (client, held, first):
        together = [
            asyncio.create_task(client.post(body, path)) for body, path in ((LEFT, "/predict"), (asked(), INFER))
        ]
        await settled()
        held.go_on.release(2)
        native, other = [await each for each in together]
        assert native.json["predictions"][0]["spike_counts"] == [3, 0]
        assert other.json["outputs"][0]["data"] == [3, 0]
        assert (await first).status == 200
    assert held.runs == [(1, 3), (2, 3)]


@pytest.mark.parametrize("path", ["/predict", INFER])
@pytest.mark.parametrize(
    "length", [{"Content-Length": str(SMALL_BODY + 1)}, {"Transfer-Encoding": "chunked"}], ids=["long", "chunked"]
)
@pytest.mark.anyio
async def test_a_full_queue_refuses_a_long_body_unread(repository: Path, path: str, length: dict[str, str]) -> None:
    body = json.dumps(LEFT if path == "/predict" else asked()) + PADDING
    async with busy(repository, max_queue=1, max_batch=1, max_body_bytes=SMALL_BODY + 1) as (client, held, first):
        accepted = [first, asyncio.create_task(client.post(LEFT))]
        await settled()
        # It has more bytes than a body may have, which would be found out where it is read.
        refused = await client.call("POST", path, body.encode(), length, asyncio.Event())
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert refused.json == {"error": "model 'toy' has 1 requests waiting, expected fewer than max_queue"}
        assert await metric(client, 'spikeserve_requests_shed_total{model="toy"}') == 1
        held.go_on.release(2)
        assert [(await each).status for each in accepted] == [200, 200]


@pytest.mark.anyio
async def test_what_is_compressed_is_unpacked_behind_long_bodies_and_needs_no_worker(
    repository: Path,
) -> None:
    async with busy(repository, max_batch=1) as (client, held, first):
        taken = threading.Event()  # and so is the thread of long bodies, until this is set
        client.scheduler.codec_threads[Price.LONG].submit(taken.wait, 60)
        try:
            headers = {"Content-Encoding": "gzip"}
            waits = asyncio.create_task(client.call("POST", INFER, gzip.compress(b"{"), headers, asyncio.Event()))
            await settled()
            assert not waits.done()
            assert (await post(client, "{")).status == 400  # not compressed, it is read at once
            taken.set()
            assert (await waits).status == 400
            assert not first.done()
        finally:
            taken.set()
            held.go_on.release()
        assert (await first).status == 200
