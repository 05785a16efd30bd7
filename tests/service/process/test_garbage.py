"""Requests leave nothing that only a garbage collection frees, as one would stop the event loop for 100 ms."""

import gc
from pathlib import Path

import httpx

from spikeserve.service.http.requests import Exchange
from tests.service.asgi import until
from tests.service.one_way.server import Server

ASKED = 5  # of each kind
REQUESTS = {
    "a question after its health": ("GET", "/health/live", b"", 200),
    "a path that there is not": ("GET", "/nothing", b"", 404),
    "a small request": ("POST", "/predict", b'{"inputs": [[0, 1]]}', 200),
    "a long request": ("POST", "/predict", b'{"inputs": [%s]}' % b", ".join([b"[0, 1]"] * 300), 200),
    "a request that is refused": ("POST", "/predict", b'{"inputs": [[0, "a"]]}', 422),
    "a stream that is refused": ("POST", "/models/toy/stream", b'{"close": true}\n', 415),
}


def test_a_request_is_freed_without_a_garbage_collection(repository: Path) -> None:
    async def ask(method: str, path: str, body: bytes, status: int) -> None:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.address[1]}", timeout=60) as client:
            for _ in range(ASKED):
                headers = {"Content-Type": "application/json"}
                answer = await client.request(method, path, content=body, headers=headers)
                assert answer.status_code == status
        await until(lambda: not server.server.server_state.tasks)

    server = Server(repository, plain=False)
    for kind, asked in REQUESTS.items():
        server.run(ask(*asked))  # what is made once
        gc.collect()
        before = exchanges()
        gc.disable()
        try:
            server.run(ask(*asked))
            assert exchanges() - before == 0, kind
        finally:
            gc.enable()
    server.close()


def exchanges() -> int:
    """Return how many requests' objects there are."""
    return sum(type(each) is Exchange for each in gc.get_objects())
