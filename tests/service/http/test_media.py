"""What a body may be: its Content-Type and Content-Encoding, in both protocols."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from spikeserve.service.errors import Overloaded, ServiceError, TooLarge
from spikeserve.service.inference.decoding.compression import MAX_MEMBERS, Encoding, unpack
from spikeserve.service.inference.decoding.memory import MemoryBudget, Reservation
from tests.service.infer_requests import HEADER, INFER, binary_request, request

if TYPE_CHECKING:  # its import warns, as `tests.serving` says
    from fastapi.testclient import TestClient

# Into a decay of 0.5 and a threshold of 1, a constant 1 spikes at each of three steps and 0.5 never.
NATIVE = json.dumps({"inputs": [[1, 0.5]]}).encode()
TENSORS = json.dumps(request([[1, 0.5]])).encode()
PATHS = [("/predict", NATIVE), ("/models/toy/predict", NATIVE), ("/models/toy/versions/1/predict", NATIVE)]
PATHS += [(INFER, TENSORS)]
UNKNOWN = ("snappy", "gzip, gzip", "br")
UNLOAD = "/v2/repository/models/toy/unload"


def counts(answer: Any) -> Any:
    assert answer.status_code == 200, answer.text
    if "predictions" in answer.json():
        return answer.json()["predictions"][0]["spike_counts"]
    return next(each["data"] for each in answer.json()["outputs"] if each["name"] == "spike_counts")


def members(body: bytes) -> bytes:
    return b"".join(gzip.compress(part) for part in (body[:7], b"", body[7:]))


def most_members(body: bytes) -> bytes:
    return gzip.compress(body) + gzip.compress(b"", mtime=0) * (MAX_MEMBERS - 1)


def raw_deflate(body: bytes) -> bytes:
    return zlib.compress(body, wbits=-15)


@pytest.mark.parametrize(("path", "body"), PATHS)
@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("GZIP", members),
        ("gzip", most_members),
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
        ("identity", bytes),
        ("", bytes),
    ],
)
def test_a_compressed_body_is_answered_as_the_same_body_is(
    client: TestClient, path: str, body: bytes, encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    for length in (len(body), 300_000):  # read on the event loop if it were not compressed; in five pieces on a thread
        content = compress(body.ljust(length))
        answer = client.post(path, content=content, headers={"Content-Encoding": encoding})
        assert counts(answer) == [3, 0]


@pytest.mark.parametrize(("path", "body"), PATHS)
@pytest.mark.parametrize(
    ("compress", "encoding", "fault"),
    [
        (bytes, "gzip", "the body is not gzip"),
        (lambda body: gzip.compress(body)[:-1], "gzip", "the body is not one whole gzip stream"),
        (lambda body: gzip.compress(body) + b"\0", "gzip", "the body is not one whole gzip stream"),
        (lambda body: gzip.compress(body) + b"more", "gzip", "the body is not one whole gzip stream"),
        (lambda body: zlib.compress(body) * 2, "deflate", "the body is not one whole deflate stream"),
        (lambda body: b"", "gzip", "the body is not one whole gzip stream"),  # noqa: ARG005
        *((bytes, name, f"Content-Encoding is '{name}', expected gzip, deflate or none") for name in UNKNOWN),
        (lambda body: gzip.compress(b"", mtime=0) * (MAX_MEMBERS + 1), "gzip", "the body has more than 16384 gzip"),  # noqa: ARG005
    ],
)
def test_a_body_that_is_not_compressed_as_it_says_is_named(
    client: TestClient, path: str, body: bytes, compress: Callable[[bytes], bytes], encoding: str, fault: str
) -> None:
    answer = client.post(path, content=compress(body), headers={"Content-Encoding": encoding})
    assert answer.status_code == (413 if "more than" in fault else 415 if encoding in UNKNOWN else 400)
    assert answer.json()["error"].startswith(fault)


@pytest.mark.parametrize(("free", "error", "kept"), [(2**24, TooLarge, 2**20), (2**19, Overloaded, 2**19)])
def test_a_bomb_is_unpacked_up_to_limit_or_free_memory(free: int, error: type[ServiceError], kept: int) -> None:
    # 100 MB of white space in 100 kB. Of pieces of 64 KiB the 17th is over the limit of 1 MiB for a body, and of the
    # 512 KiB that all bodies may have here, the ninth; up to there each piece is counted.
    hold = Reservation(budget := MemoryBudget(free))
    for bomb, encoding in (
        (gzip.compress(bytes(10**8)), Encoding.GZIP),
        (zlib.compress(bytes(10**8)), Encoding.DEFLATE),
    ):
        assert len(bomb) < 2**17
        with pytest.raises(error, match=r"bytes once it is unpacked, expected at most|bytes with this one"):
            unpack(bomb, encoding, 2**20, hold.reserve)
        assert budget.reserved == kept
        hold = Reservation(budget := MemoryBudget(free))


@pytest.mark.parametrize(("path", "body"), [*PATHS, (UNLOAD, b"{}")])
@pytest.mark.parametrize(
    "content_type",
    [
        "application/json; charset=latin-1", "application/x-www-form-urlencoded", "text/plain",
        "application/problem+json", "multipart/form-data; a=b",
    ],
)  # fmt: skip
def test_another_type_is_415_and_says_which(client: TestClient, path: str, body: bytes, content_type: str) -> None:
    answer = client.post(path, content=body, headers={"Content-Type": content_type})
    arrays = "application/x-npy, application/vnd.spikeserve.events"
    expected = {UNLOAD: "application/json", INFER: "application/json, application/octet-stream"}.get(
        path, f"application/json, {arrays}, application/octet-stream"
    )
    what_to_send = f"{expected} or none; with curl, add -H 'content-type: application/json'"
    sentence = "charset=utf-8 or none" if "charset" in content_type else what_to_send
    assert (answer.status_code, answer.json()) == (
        415,
        {"error": f"Content-Type is '{content_type}', expected {sentence}"},
    )


def test_the_bytes_of_tensors_may_come_as_what_they_are(client: TestClient) -> None:
    body, headers = binary_request(np.array([[1, 0.5]], "<f4"))
    packed = gzip.compress(body)
    kind = {"Content-Type": "application/octet-stream", "Content-Encoding": "gzip", HEADER: headers[HEADER]}
    assert counts(client.post(INFER, content=packed, headers=kind)) == [3, 0]
    # To the native routes such bytes are event records, which the toy does not take.
    refused = client.post("/predict", content=gzip.compress(NATIVE), headers=kind)
    assert refused.status_code == 415
    assert refused.json()["error"].startswith("the body is event records, but model 'toy' does not say how")


def test_what_controls_models_takes_no_compressed_body_and_without_one_any_content_type(client: TestClient) -> None:
    answer = client.post(UNLOAD, content=gzip.compress(b"{}"), headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 415
    assert answer.json()["error"].startswith("Content-Encoding says that the body is compressed, expected one that is")
    # curl -d '' says that nothing is a form.
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert client.post("/v2/repository/index", headers=form).status_code == 200
