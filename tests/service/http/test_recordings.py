"""Event records and arrays as bodies of predict: every format gives the spikes worked out by hand."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest

from tests.bundles import publish, published
from tests.inside import Inside
from tests.networks import toy
from tests.service.http.recordings import COUNTS, EVENTS, FORM, STEP_US, camera, csv, npy, records, structured
from tests.serving import serving

if TYPE_CHECKING:  # its import warns, as `tests.serving` says
    from fastapi.testclient import TestClient

RECORDS = {"Content-Type": "application/vnd.spikeserve.events"}
OCTETS = {"Content-Type": "application/octet-stream"}
NPY = {"Content-Type": "application/x-npy"}
NATIVE, V2 = "/models/camera/predict", "/v2/models/camera/infer"


@pytest.fixture(scope="module")
def repository_of_cameras(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the camera; with one that counts, in four units of one polarity; and with the toy."""
    root = published(tmp_path_factory, camera=camera())
    counting = {"rule": "count", "polarity": "merged", "sensor": [4], "origin": "zero"}
    publish(root, camera((4,), high=3, **counting), "units")
    publish(root, toy(), "toy")
    return root


@pytest.fixture(scope="module")
def client(repository_of_cameras: Path) -> Iterator[TestClient]:
    """A client of an app that serves them."""
    with serving(repository_of_cameras) as serving_cameras:
        yield serving_cameras


def spikes(answer: httpx.Response) -> dict[int, int]:
    """Return how often each output neuron spiked, of those that did."""
    assert answer.status_code == 200, answer.text
    counts = answer.json()["predictions"][0]["spike_counts"]
    return {unit: count for unit, count in enumerate(counts) if count}


def test_event_records_and_arrays_of_events_give_the_same_spikes(client: TestClient) -> None:
    assert spikes(client.post(NATIVE, content=records(), headers=RECORDS)) == COUNTS
    # 2**32 - 5000 microseconds are late enough for the clock to start again between the second and the third event.
    late = [(t + 2**32 - 5000, x, y, p) for t, x, y, p in EVENTS]
    assert spikes(client.post(NATIVE, content=records(late), headers=RECORDS)) == COUNTS
    for kind in (NPY, OCTETS, FORM, {}):
        assert spikes(client.post(NATIVE, content=structured(), headers=kind)) == COUNTS


def test_a_model_says_how_events_become_its_steps(client: TestClient) -> None:
    described = client.get("/models/units").json()["input"]["events"]
    assert described == {
        "step_us": STEP_US, "window_steps": 1, "sensor": [4], "crop": None, "bin": 1, "polarity": "merged",
        "rule": "count", "origin": "zero",
    }  # fmt: skip
    assert client.get("/models/toy").json()["input"]["events"] is None


def test_octets_that_begin_as_nothing_known_are_event_records(client: TestClient) -> None:
    assert spikes(client.post(NATIVE, content=records(), headers=OCTETS)) == COUNTS
    # To the protocol v2 they are JSON and tensors, and it takes no others.
    assert [client.post(V2, content=records(), headers=kind).status_code for kind in (OCTETS, RECORDS)] == [400, 415]


@pytest.mark.parametrize("kind", [NPY, OCTETS, FORM, {}])
def test_an_array_is_one_sample_or_many_nested_or_flat(client: TestClient, kind: dict[str, str]) -> None:
    raster = np.zeros((3, 2, 12, 10), np.uint8)
    raster[0, 1, 2, 3] = raster[0, 0, 7, 0] = raster[1, 1, 1, 5] = 1
    for array in (raster, raster[np.newaxis], raster.reshape(3, 240), np.asfortranarray(raster.astype(">f8"))):
        assert spikes(client.post(NATIVE, content=npy(array), headers=kind)) == COUNTS


def test_events_add_up_and_begin_at_time_0_where_the_bundle_says_so(client: TestClient) -> None:
    # Three events of unit 2 in step 0 are a current of 3, of which an IF neuron of threshold 1 that subtracts keeps 2:
    # it spikes at all of three steps. One of unit 3 at 29,999 spikes in the last step.
    events = [(5, 2, 0, 0), (6, 2, 0, 1), (7, 2, 0, 0), (29_999, 3, 0, 0)]
    answer = client.post("/models/units/predict", content=records(events), headers=RECORDS)
    assert spikes(answer) == {2: 3, 3: 1}
    columns = np.array([(t, x) for t, x, _, _ in events], [("time", "<i8"), ("channel", "<i8")])
    assert spikes(client.post("/models/units/predict", content=npy(columns), headers=NPY)) == {2: 3, 3: 1}
    # A fourth one would be outside of the declared range of 0 to 3.
    refused = client.post("/models/units/predict", content=records([(8, 2, 0, 0), *events]), headers=RECORDS)
    assert (refused.status_code, refused.json()["error"]) == (422, "inputs[0][0][2] is 4, expected 0 to 3")


HEADER = b"\x93NUMPY\x01\x00\x5d\x00{'descr': '<f4', 'fortran_order': False, 'shape': (%-40s)}"  # of 93 bytes
MANY_AXES = b"\x93NUMPY\x01\x00\xb8\x0b" + (HEADER[10:-7] + b"9," * 1400 + b")}").ljust(3000)
HEADER_OF_ROWS = HEADER.replace(b"'<f4'", b"('f4',3)").replace(b"-40", b"-37")
CAMERA_ARRAY = "expected samples×time_steps×2×12×10, or one"


@pytest.mark.parametrize(
    ("content", "headers", "query", "status", "sentence"),
    [
        (records()[:-1], RECORDS, "", 422, "the body has 31 bytes, expected 8 for each event"),
        (b"", RECORDS, "", 422, "the body has 0 events, but none in the 3 steps of 10000 microseconds that begin at"),
        (b'{"inputs": []}', {}, "?time_steps=3", 422, "time_steps is a parameter of the query, expected a field of th"),
        (csv(), FORM, "", 415, "the body is a recording's file (CSV), expected its events: the client's predict"),
        (b"#!AER-DAT4.0\r\n", OCTETS, "", 415, "the body is a recording's file (AEDAT), expected its events: the clie"),
        (b"% evt 3.0\n% end\n", {}, "", 415, "the body is a recording's file (EVT), expected its events: the client's"),
        (b"a=b", FORM, "", 415, "Content-Type is 'application/x-www-form-urlencoded', expected application/json, app"),
        (npy(np.array([(1, -1)], [("t", "i4"), ("unit", "i1")])), NPY, "", 422, "the body: unit of event 0 is -1, exp"),
        (b"", NPY, "", 400, "the body is no .npy of format 1.0 or 2.0, but begins with "),
        (MANY_AXES, NPY, "", 400, "the body is an .npy whose header is '{'descr': '<f4', 'fortran_order': False, 'sha"),
        (b"\x93NUMPY\x01\x00\x01\x00[", NPY, "", 400, "the body is an .npy whose header is '[', expected descr, fort"),
        (b"\x93NUMPY\x01\x00\x0f'" + b"(" * 9999, NPY, "", 400, "the body is an .npy whose header is '(((((((("),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\x7f", NPY, "", 400, "the body is an .npy whose header has 2147483647 bytes"),
        (HEADER.replace(b"<f4", b"<q9") % b"1,", NPY, "", 400, "the body is an .npy whose header is '{'descr': '<q9'"),
        (HEADER % b"2**60,", NPY, "", 400, "the body is an .npy whose header is '{'descr': "),
        (HEADER % b"0,2305843009213693952,", NPY, "", 400, "the body is an .npy whose axes no array can have: 0×2"),
        (HEADER_OF_ROWS % b"2,", NPY, "", 400, "the body is an .npy of arrays, ('<f4', (3,)), expected one of numbers"),
        (
            HEADER % b"4611686018427387904,",
            NPY, "", 400,
            "the body is an .npy whose shape 4611686018427387904 takes 18446744073709551616 bytes as float32, ",
        ),
        (npy(np.zeros((3, 2, 12, 10)))[:-1], NPY, "", 400, "the body is an .npy whose shape 3×2×12×10 takes 5760 byte"),
        (npy(np.zeros((0, 3, 2, 12, 10))), NPY, "", 422, f"the body is an array of shape 0×3×2×12×10, {CAMERA_ARRAY}"),
        (npy(np.zeros(())), NPY, "", 422, "the number of steps of the body is 0, expected 1 to 1000"),
        (npy(np.zeros((3, 240))), NPY, "?time_steps=2", 422, "time_steps is 2, but the body has 3 steps"),
        (npy(np.zeros((3, 240), "c8")), NPY, "", 422, "the body is an array of complex64, expected numbers"),
        (npy(np.zeros((1, 2**18, 240), np.bool_)), NPY, "", 413, "the body has 62914688 bytes, expected at most"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_gets_a_sentence(
    client: TestClient, content: bytes, headers: dict[str, str], query: str, status: int, sentence: str
) -> None:
    answer = client.post(NATIVE + query, content=content, headers=headers)
    assert answer.json()["error"].startswith(sentence)
    assert answer.status_code == status


@pytest.mark.parametrize("shape", [b"2or 2,", b"2,*'\\d'"])
def test_a_header_makes_python_write_no_warning(client: TestClient, shape: bytes) -> None:
    with warnings.catch_warnings(record=True) as written:
        warnings.simplefilter("always")
        answer = client.post(NATIVE, content=HEADER % shape, headers=NPY)
    assert answer.json()["error"].startswith("the body is an .npy whose header is '{'descr': ")
    assert written == []


def test_an_array_of_objects_is_never_unpickled(client: TestClient) -> None:
    # A pickle that would say so by ending this process.
    array = npy(np.zeros(1, "<i8")).replace(b"'<i8'", b"'|O' ")
    answer = client.post(NATIVE, content=array + b"cos\n_exit\n(I1\ntR.", headers=NPY)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("the body is an .npy of Python objects, expected numbers")


@pytest.mark.parametrize("content", [records(), structured()])
def test_a_model_that_does_not_say_how_events_become_steps_takes_none(client: TestClient, content: bytes) -> None:
    answer = client.post("/models/toy/predict", content=content, headers=OCTETS)
    assert answer.status_code == 415
    assert "but model 'toy' does not say how recorded events become its input" in answer.json()["error"]


def test_a_recording_of_more_events_than_allowed_is_413(repository_of_cameras: Path) -> None:
    with serving(repository_of_cameras) as client:
        Inside(client.app).model("camera").limits.events = 3
        for content in (records(), structured()):
            answer = client.post(NATIVE, content=content, headers=OCTETS)
            assert (answer.status_code, answer.json()["error"]) == (413, "the body has 4 events, expected at most 3")
    with serving(repository_of_cameras, max_values=3 * 240 - 1) as client:
        answer = client.post(NATIVE, content=records(), headers=RECORDS)
        assert answer.json()["error"].startswith("inputs has 1 samples, which at 3 time_steps are 720 values in this")
