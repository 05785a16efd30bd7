"""A body is stopped at its first byte over the limit, whatever it says of its length."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.types import Message, Receive, Scope, Send

from service.errors import TooLarge
from service.limits import BodyLimit
from tests.service.conftest import serving


def test_a_chunked_body_is_counted_as_it_arrives(repository: Path) -> None:
    def chunks(size: int) -> Iterator[bytes]:
        yield b'{"inputs":[[0,1]]}'.ljust(size // 2)
        yield b" " * (size - size // 2)

    with serving(repository, max_body_bytes=100) as client:
        assert client.post("/predict", content=chunks(100)).status_code == 200
        answer = client.post("/predict", content=chunks(101))
    assert answer.status_code == 413
    assert answer.json() == {"error": "the body has 101 bytes or more, expected at most 100"}


@pytest.mark.parametrize(("declared", "read"), [(b"101", 0), (b"100", 3), (b"junk", 3), (None, 3)])
def test_no_more_is_read_than_it_takes_to_know(declared: bytes | None, read: int) -> None:
    # Chunks of 40 bytes: the third is the first to pass 100. A declared length that is too long needs none.
    received: list[Message] = []

    async def app(_: Scope, receive: Receive, __: Send) -> None:
        while True:
            await receive()

    async def receive() -> Message:
        received.append({"type": "http.request", "body": b"x" * 40, "more_body": True})
        return received[-1]

    async def send(_: Message) -> None:
        pytest.fail("nothing is sent here")

    scope: Scope = {"type": "http", "headers": [(b"content-length", declared)] if declared else []}
    with pytest.raises(TooLarge):
        asyncio.run(BodyLimit(app, 100)(scope, receive, send))
    assert len(received) == read
