"""Which outputs an infer request is answered with. Its requests wait and end in time, as the native ones do."""

import asyncio
import gzip
import json
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from spikeserve.service.inference.scheduling.query import SMALL_BODY
from spikeserve.service.inference.scheduling.queue import Price
from tests.service.asgi import LEFT, Client, busy, metric, settled
from tests.service.infer_requests import HEADER, INFER, asked, outputs, request

# Decay 0.5, threshold 1, three steps: 0.6 charges 0.60, 0.90, 1.05, one spike; 2 fires at each step, as 3 does.
SAMPLES = [[0.6, 2], [3, 0]]
COUNTS = [[1, 3], [3, 0]]


def test_an_answer_has_every_output_and_the_id(http: httpx.Client) -> None:
    answer = http.post(INFER, json=request(SAMPLES, id="42"))
    assert HEADER not in answer.headers
    body = answer.json()
    assert {name: body[name] for name in ("model_name", "model_version", "id")} == {
        "model_name": "toy",
        "model_version": "1",
        "id": "42",
    }
    assert [(each["name"], each["datatype"], each["shape"]) for each in body["outputs"]] == [
        ("spike_counts", "INT64", [2, 2]),
        ("probabilities", "FP32", [2, 2]),
        ("class_index", "INT64", [2, 1]),
        ("label", "BYTES", [2, 1]),
        ("synaptic_operations", "INT64", [2, 1]),
    ]


def test_only_the_outputs_that_are_asked_for_come_back_in_their_order(http: httpx.Client) -> None:
    asked = [{"name": "class_index"}, {"name": "spike_counts"}]
    answer = http.post(INFER, json=request(SAMPLES, outputs=asked))
    assert list(outputs(answer).items()) == [("class_index", [[1], [0]]), ("spike_counts", COUNTS)]


def test_an_output_says_for_itself_whether_it_is_bytes(http: httpx.Client) -> None:
    asked = [
        {"name": "label"},
        {"name": "spike_counts", "parameters": {"binary_data": False}},
        {"name": "probabilities", "parameters": {"binary_data": True}},
    ]
    answer = http.post(INFER, json=request(SAMPLES, outputs=asked, parameters={"binary_data_output": True}))
    header = json.loads(answer.content[: int(answer.headers[HEADER])])
    # "right" and "left" are 5 and 4 bytes after 4 of length each; four FP32 are 16 bytes.
    assert [each.get("parameters") for each in header["outputs"]] == [
        {"binary_data_size": 17},
        None,
        {"binary_data_size": 16},
    ]
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert [outputs(answer)[name] for name in ("label", "spike_counts")] == [[["right"], ["left"]], COUNTS]


def test_a_membrane_readout_is_an_output_of_its_own(http: httpx.Client) -> None:
    # Two steps of 1.5 and -2 sum to 3 and -4.
    answer = http.post("/v2/models/whole/infer", json=request([[1.5, -2.0]], outputs=[{"name": "readout"}]))
    assert outputs(answer) == {"readout": [[3.0, -4.0]]}
    assert "readout" not in outputs(http.post(INFER, json=request(SAMPLES)))


def test_classification_gives_the_greatest_as_text_and_a_tie_to_the_lower_index(http: httpx.Client) -> None:
    asked = [{"name": "spike_counts", "parameters": {"classification": 5}}]
    answer = http.post(INFER, json=request([[0.6, 2], [3, 3]], outputs=asked))
    assert answer.json()["outputs"][0]["datatype"] == "BYTES"
    assert outputs(answer) == {"spike_counts": [["3:1:right", "1:0:left"], ["3:0:left", "3:1:right"]]}
    asked = [{"name": "readout", "parameters": {"classification": 1, "binary_data": True}}]
    answer = http.post("/v2/models/whole/infer", json=request([[1.5, -2.0]], outputs=asked))
    assert outputs(answer) == {"readout": [["3.000000:0:left"]]}


LATE = {"error": "model 'toy' did not answer within the time that the request had"}
PADDING = " " * SMALL_BODY  # after the JSON of a body that shall be long


async def post(client: Client, text: str) -> Any:
    return await client.call("POST", INFER, text.encode(), {}, asyncio.Event())


@pytest.mark.parametrize("path", ["/predict", INFER])
@pytest.mark.parametrize(
    "length", [{"Content-Length": str(SMALL_BODY + 1)}, {"Transfer-Encoding": "chunked"}], ids=["long", "chunked"]
)
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


async def test_what_is_compressed_is_unpacked_behind_long_bodies_and_needs_no_worker(repository: Path) -> None:
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
