"""The bytes of all bodies at once are bounded: what would be too much is refused at once, and what ends leaves room.

A long array of numbers is cut out of a body and decoded in slices; whatever is odd is left to the usual parser.
"""

import asyncio
import gzip
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient

from spikeserve.service.errors import Overloaded
from spikeserve.service.inference.decoding import numbers
from spikeserve.service.inference.decoding.body import UNRESERVED_BYTES
from spikeserve.service.inference.decoding.memory import MemoryBudget, Reservation
from spikeserve.service.inference.decoding.numbers import LONG_ARRAY, SLICE_BYTES
from tests.service.asgi import LEFT, slow, started
from tests.service.infer_requests import INFER, request
from tests.service.sockets import connect, read_all, read_answer
from tests.serving import running

LONG = 70_000  # bytes; of the 100,000 that the tests allow, one body of them is held and a second is too much
MOST = 100_000
BODY = json.dumps(LEFT).encode().ljust(LONG)
HEAD = b"POST /predict HTTP/1.1\r\nHost: test\r\n"


@pytest.mark.usefixtures("reference_engine")
def test_a_body_too_many_is_refused_before_it_is_read_and_small_ones_are_answered(repository: Path) -> None:
    declared = HEAD + b"Content-Length: %d\r\n\r\n" % LONG
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n"
    flags = ("--max-body-bytes", str(LONG), "--max-pending-bytes", str(MOST))
    with running(repository, *flags) as service, connect(service) as first:
        first.sendall(declared.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
        assert first.recv(100).startswith(b"HTTP/1.1 100 ")  # its body is waited for
        with connect(service) as second:
            second.sendall(declared)
            refused = read_all(second)
        with connect(service) as third:
            third.sendall(chunked % (UNRESERVED_BYTES + 1, b" " * (UNRESERVED_BYTES + 1)))
            cut_off = read_all(third)
        assert httpx.post(f"{service.url}/predict", content=json.dumps(LEFT).ljust(UNRESERVED_BYTES)).status_code == 200
        first.sendall(BODY)
        assert read_answer(first).startswith(b"HTTP/1.1 200 ")
        assert httpx.post(f"{service.url}/predict", content=BODY).status_code == 200
        assert service.stop() == 0
    for answer, together in ((refused, 2 * LONG), (cut_off, LONG + UNRESERVED_BYTES + 1)):
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1\r\n" in answer
        assert b"connection: close" in answer
        sentence = (
            "the bodies and answers of all requests in progress would have %d bytes with this one, expected at most %d"
        )
        assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"error": sentence % (together, MOST)}


async def test_what_a_packed_body_holds_once_it_is_unpacked_counts_too(repository: Path) -> None:
    packed = gzip.compress(json.dumps(request([[1.0, 0.0]])).encode().ljust(LONG))
    headers = {"Content-Encoding": "gzip", "Content-Length": str(len(packed))}

    async with started(repository, threads=2, max_body_bytes=LONG, max_pending_bytes=MOST) as client:

        def ask() -> asyncio.Task[Any]:
            return asyncio.create_task(client.call("POST", INFER, packed, headers, asyncio.Event()))

        held = slow(client.model())
        first = ask()
        await held.begun()
        refused = await ask()
        held.go_on.release(2)
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert [(await first).status, (await ask()).status] == [200, 200]


def test_a_thread_that_still_reads_for_a_request_that_has_ended_holds_nothing() -> None:
    budget = MemoryBudget(MOST)
    reservation = Reservation(budget)
    reservation.reserve(LONG)
    with pytest.raises(Overloaded):
        Reservation(budget).reserve(LONG)
    reservation.release()
    reservation.reserve(LONG)
    assert budget.reserved == 0


def test_no_slice_has_more_bytes_than_its_length_and_one_number() -> None:
    text = ",".join(["12345"] * 100_000).encode()
    slices = list(numbers._slices(text))
    assert b",".join(slices) == text
    assert {len(each) for each in slices[:-1]} == {SLICE_BYTES // 6 * 6 + 5}  # 65,536 are in the 10,923rd number
    assert all(first and second for first, second in pairwise(slices))


def test_a_long_body_may_nest_its_tensor(client: TestClient) -> None:
    values = (np.random.default_rng(2).random((1024, 2)) * 10).round(9).tolist()
    tensor = request(values)
    short = client.post(INFER, json=tensor)
    tensor["inputs"][0]["data"] = values
    padded = json.dumps(tensor).replace('"data": [', '"data": [' + " " * LONG_ARRAY)
    assert client.post(INFER, content=padded).json()["outputs"] == short.json()["outputs"]


ARRAYS = """
    [[1, 2]]; [[1, 2], [3, 4], [5, 6]]; [[[1, 2]]]; [1, 2]; []; [[], []]; [[1, 2], [3]]; [[1, 2], 3]; [[1,, 2]]; [[1 2]]
    [[1, ]]; [[1], [2]; [[1], [2]]]; [[1]][2]; [[1, 2][3, 4]]; [[1, 2, 3]]; [[01, 2]]; [[1., 2]]; [[true, 2]]; [[-, 2]]
    [[null, 1]]; [[NaN, 1]]; [[1, 1e39]]; [[1, 1e999]]; ["1"]; [[1, 2], [1, 11]]; [[1, 2]], "seed": 3
    [[1, 2]], "return": ["raster", [1]]; [[1, 2]], "time_steps": 0
"""


@pytest.mark.parametrize("array", re.split(r"\s*[;\n]\s*", ARRAYS.strip()))
def test_an_array_in_a_long_body_is_answered_as_in_a_short_one(client: TestClient, array: str) -> None:
    for name in ("inputs", "\\u0069nputs"):
        short, long = (f'{{"{name}": {array.replace("[", "[" + " " * pad, 1)}}}' for pad in (0, LONG_ARRAY))
        one, other = (client.post("/predict", content=body) for body in (short, long))
        assert other.status_code == one.status_code
        assert re.sub(r"column \d+", "", other.text) == re.sub(r"column \d+", "", one.text)
