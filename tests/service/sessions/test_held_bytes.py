"""What a stream over HTTP holds of its body counts in the memory budget, from the socket to its last use."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message, Scope

from spikeserve.service.services import Services
from tests.bundles import publish
from tests.service.asgi import Client, started, traced, until
from tests.service.sessions.conftest import pairs

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("reference_engine")]


class Streamed:
    """A POST of a stream whose body the test sends.

    `seen` has the bytes reserved as each line was sent, `taken` those that Python's objects took, while that is traced.
    """

    def __init__(self, client: Client) -> None:
        self.app = client.app
        self.services: Services = client.app.state.services
        self.budget = self.services.budget
        self.body: asyncio.Queue[Message] = asyncio.Queue()
        self.lines: list[dict[str, Any]] = []
        self.seen: list[int] = []
        self.taken: list[int] = []

    def come(self, part: bytes, *, more: bool = True) -> None:
        """Have a part of the body come."""
        self.body.put_nowait({"type": "http.request", "body": part, "more_body": more})

    async def answer(self) -> None:
        """Answer the whole request."""
        headers = [(b"content-type", b"application/x-ndjson"), (b"transfer-encoding", b"chunked")]
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "path": "/models/pairs/stream",
            "raw_path": b"/models/pairs/stream",
            "root_path": "",
            "query_string": b"",
            "scheme": "http",
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 40_000),
            "headers": headers,
            "app": self.app,
        }
        await self.app(scope, self.body.get, self._send)

    async def _send(self, message: Message) -> None:
        if content := message.get("body"):
            self.lines.append(json.loads(content))
            self.seen.append(self.budget.reserved)
            self.taken.append(tracemalloc.get_traced_memory()[0])


@asynccontextmanager
async def streamed(root: Path, **settings: Any) -> AsyncIterator[Streamed]:
    """Begin a stream, and see that nothing is held once it has ended."""
    publish(root, pairs(), "pairs")
    async with started(root, **settings) as client:
        stream = Streamed(client)
        answering = asyncio.create_task(stream.answer())
        yield stream
        async with asyncio.timeout(60):
            await answering
        assert stream.budget.reserved == 0


async def test_a_line_counts_as_it_grows(tmp_path: Path) -> None:
    async with streamed(tmp_path) as stream:
        for size in (2**16 + 1, 2**17, 2**18):
            stream.come(b"x" * (size - stream.budget.reserved))
            await until(lambda size=size: stream.budget.reserved == size)  # type: ignore[misc]
        stream.come(b"", more=False)


async def test_lines_that_exceed_the_budget_end_their_stream_with_a_sentence(tmp_path: Path) -> None:
    async with streamed(tmp_path, max_pending_bytes=2**20, max_body_bytes=2**20) as stream:
        stream.come(b"x" * 2**19)
        stream.come(b"x" * 2**20)
        stream.come(b"", more=False)
    assert stream.lines[-1] == {
        "type": "error",
        "error": f"the bodies and answers of all requests in progress would have {2**19 + 2**20} bytes with this one, "
        f"expected at most {2**20}",
    }


async def test_a_message_counts_while_its_windows_run_and_takes_no_objects_beside(tmp_path: Path) -> None:
    # 2**16 events, and one that closes two windows of 2 ms. As lists and integers they would take 48 bytes each.
    times = [4_000_000_000] * 2**16 + [4_000_004_000]
    message = json.dumps({"type": "events", "t": times, "unit": [0] * len(times)}).encode() + b"\n"
    async with streamed(tmp_path) as stream:
        with traced():
            stream.come(message, more=False)
            await until(lambda: len(stream.lines) == 4)
    assert [line["type"] for line in stream.lines] == ["window", "window", "window", "end"]
    assert stream.seen[0] == stream.seen[1] >= len(message) > stream.seen[2] == 0
    beside = [taken - counted for taken, counted in zip(stream.taken, stream.seen, strict=True)]
    assert beside[0] - beside[-1] < 32 * 2**16  # which the events themselves take, as records and in their window


async def test_of_messages_that_come_at_once_one_is_answered_in_each_loop_iteration(
    tmp_path: Path,
) -> None:
    iterations = 0

    def count() -> None:
        nonlocal iterations
        iterations += 1
        asyncio.get_running_loop().call_soon(count)

    async with streamed(tmp_path) as stream:
        count()
        stream.come(b'{"type": "time", "t": 0}\n\n \n' * 2000, more=False)
    assert iterations >= 2000
    assert stream.lines == [{"type": "end", "windows": 0, "events": 0, "late": 0}]
