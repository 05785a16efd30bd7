"""Numbers beyond every type, and states cut at every byte, to every route: a sentence each, and no 5xx."""

import base64
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from fastapi.testclient import TestClient

from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec import Coding
from spikeserve.service.inference.sessions.blob import Blobs
from spikeserve.service.inference.sessions.messages import StreamOptions
from tests.bundles import publish, published
from tests.inside import Inside
from tests.networks import network_of, toy
from tests.service.sessions.conftest import pairs
from tests.serving import serving

EDGES = [2**31, 2**32, 2**53 + 1, 2**61, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**40]
NUMBERS = [*map(str, [0, *EDGES, -1, -(2**31) - 1, -(2**63) - 1, -(10**40), "9" * 5000])]
NUMBERS += ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1e300", "1e-400", "0.5", "1e9", "-0.0"]
STREAM = "application/x-ndjson"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Models of events with and without the length of a step, of values, and one whose steps no record can tell."""
    root = published(tmp_path_factory, pairs=pairs(), unsaid=toy(Coding.SPIKES), values=toy(Coding.CURRENT))
    of_days = {"input": {"shape": [2]}, "coding": "spikes", "time_steps": 3, "labels": ["a", "b"], "dt": 1e5}
    publish(root, network_of([{"type": "IF", "name": "out"}], {}, **of_days), "slow")
    with serving(root, engine="reference") as client:
        yield client


def told(answer: Any) -> dict[str, Any]:
    """Return the body of an answer, or the last line of a stream, once it is known to be no fault of the server."""
    assert answer.status_code < 500, answer.text
    last: dict[str, Any] = json.loads(answer.text.splitlines()[-1])
    if answer.status_code >= 400:
        assert last.keys() == {"error"}
    return last


@pytest.mark.parametrize("option", sorted(StreamOptions.model_fields))
@pytest.mark.parametrize("model", ["pairs", "unsaid", "values", "slow"])
def test_every_option_of_a_stream(client: TestClient, model: str, option: str) -> None:
    message = json.dumps({"type": "end"})
    for number in NUMBERS:
        query = {"step_us": "1000", option: number} if model == "unsaid" else {option: number}
        path = f"/models/{model}/stream"
        line = told(client.post(path, params=query, content=message, headers={"content-type": STREAM}))
        assert "error" in line or line["type"] == "end"
        told(client.post(path, params=query, content=b""))


@pytest.mark.parametrize("number", NUMBERS)
def test_every_number_of_a_message(client: TestClient, number: str) -> None:
    messages = [
        f'{{"type": "time", "t": {number}}}',
        f'{{"type": "events", "t": [{number}], "unit": [0]}}',
        f'{{"type": "events", "t": [0], "unit": [{number}]}}',
        f'{{"type": "events", "t": [0], "x": [0], "y": [{number}]}}',
        f'{{"type": "values", "values": [[{number}, 0]]}}',
        f'{{"type": "state", "state": {number}}}',
    ]
    for model in ("pairs", "values"):
        for message in messages:
            # Whatever it is, a session goes on from its state, and takes an event and the end.
            after = [message, '{"type": "state"}', '{"type": "events", "t": [5], "unit": [1]}', '{"type": "end"}']
            answer = client.post(f"/models/{model}/stream", content="\n".join(after), headers={"content-type": STREAM})
            assert told(answer)["type"] in ("end", "error")
            for line in map(json.loads, answer.text.splitlines()):
                if line["type"] == "state":
                    again = json.dumps({"type": "state", "state": line["state"]})
                    resumed = client.post(f"/models/{model}/stream", content=again, headers={"content-type": STREAM})
                    assert told(resumed)["type"] == "end"


@pytest.mark.parametrize("number", NUMBERS)
def test_every_number_of_a_request(client: TestClient, number: str) -> None:
    for field in ("time_steps", "seed"):
        sample = '{"t": [0], "unit": [0]}'
        told(client.post("/models/pairs/predict", content=f'{{"inputs": [{sample}], "{field}": {number}}}'))
        records = {"content-type": "application/vnd.spikeserve.events"}
        told(client.post(f"/models/pairs/predict?{field}={number}", content=bytes(8), headers=records))
    for sample in (f'{{"t": [{number}], "unit": [0]}}', f'{{"t": [0], "unit": [{number}]}}', f"[[{number}, 0]]"):
        told(client.post("/models/pairs/predict", content=f'{{"inputs": [{sample}]}}'))
    for header in ("x-request-timeout-ms", "inference-header-content-length"):
        told(client.post("/models/pairs/predict", content='{"inputs": [[[0, 0]]]}', headers={header: number}))
        told(client.post("/v2/models/pairs/infer", content=request(), headers={header: number}))
    names = ["time_steps", "seed", "timeout", "priority", "sequence_id", "sequence_start", "sequence_state", "stop"]
    for name in (*names, "binary_data_output"):
        told(client.post("/v2/models/pairs/infer", content=request(parameters=f'{{"{name}": {number}}}')))
        both = f'{{"sequence_id": 1, "sequence_start": true, "sequence_end": true, "{name}": {number}}}'
        told(client.post("/v2/models/pairs/infer", content=request(parameters=both)))
    told(client.post("/v2/models/pairs/infer", content=request(shape=f"[1, {number}, 2]")))
    told(client.post("/v2/models/pairs/infer", content=request(shape=f"[{number}, 1, 2]")))
    told(client.post("/v2/models/pairs/infer", content=request(data=f"[{number}, 0]")))
    told(client.post("/v2/models/pairs/infer", content=request(size=number)))
    told(client.post("/v2/models/pairs/infer", content=request(classes=number)))


def request(
    parameters: str = "{}", shape: str = "[1, 1, 2]", data: str = "[0, 0]", size: str = "", classes: str = ""
) -> str:
    """Return a request of the protocol v2 with these texts in it."""
    given = f'"parameters": {{"binary_data_size": {size}}}' if size else f'"data": {data}'
    tensor = f'{{"name": "inputs", "shape": {shape}, "datatype": "FP32", {given}}}'
    asked = (
        f', "outputs": [{{"name": "spike_counts", "parameters": {{"classification": {classes}}}}}]' if classes else ""
    )
    return f'{{"parameters": {parameters}, "inputs": [{tensor}]{asked}}}'


def state_of(client: TestClient) -> bytes:
    """Return the state after a window of the model 'pairs', of which unit 1 is half way to its next spike."""
    messages = [
        json.dumps({"type": "events", "t": [0, 0, 0, 2000], "unit": [0, 0, 1, 0]}),
        json.dumps({"type": "state"}),
    ]
    answer = client.post(
        "/models/pairs/stream?scores=decay", content="\n".join(messages), headers={"content-type": STREAM}
    )
    (state,) = [line["state"] for line in map(json.loads, answer.text.splitlines()) if line["type"] == "state"]
    return base64.b64decode(state)


@pytest.mark.parametrize("secret", [b"", b"a secret"])
def test_a_state_that_is_cut_longer_or_changed_is_refused_or_read(client: TestClient, secret: bytes) -> None:
    model, blobs = Inside(client.app).model("pairs"), Blobs(secret)
    whole = base64.b64decode(blobs.write(model, Blobs(b"").read(model, base64.b64encode(state_of(client)).decode())))
    cuts = [whole[:end] for end in range(len(whole))] + [whole + bytes(more) for more in (1, 8, 64)]
    for content in cuts:
        with pytest.raises(InvalidInput, match=r"^state: "):
            blobs.read(model, base64.b64encode(content).decode())
    for place in range(len(whole)):
        for changed in (0x00, 0x7F, 0x80, 0xFF):
            content = whole[:place] + bytes([changed]) + whole[place + 1 :]
            with suppress(InvalidInput):
                carried = blobs.read(model, base64.b64encode(content).decode())
                assert not secret or content == whole
                assert (carried.decayed >= 0).all()
                blobs.write(model, carried)  # what is read can be written again
