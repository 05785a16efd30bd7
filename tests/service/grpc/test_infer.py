"""Infer requests over gRPC get what those over HTTP get: answers, sentences and limits."""

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from grpc import StatusCode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spikeserve.service.grpc import messages
from spikeserve.service.inference.protocols.v2.tensors import DTYPES, Datatype
from tests.service.grpc.rpc import Rpc, infer_request, outputs
from tests.service.infer_requests import INFER, binary_request, native
from tests.service.infer_requests import outputs as http_outputs
from tests.service.infer_requests import request as http_request
from tests.serving import Process

TENSOR = messages.ModelInferRequest.InferInputTensor


@pytest.fixture(scope="module")
def client(service: Process) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=60) as client:
        yield client


def over_http(service: Process, body: Any, model: str = "toy") -> httpx.Response:
    return httpx.post(f"{service.url}/v2/models/{model}/infer", json=body, timeout=60)


FITTING = {  # by datatype, values that the toy takes: from 0 to 10
    **{name: st.integers(0, 10) for name in ("UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64")},
    "BOOL": st.booleans(),
    "FP32": st.floats(0, 10, width=32),
    "FP64": st.floats(0, 10),
    "FP16": st.floats(0, 10, width=16),
}


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_samples_and_options_get_the_same_by_every_way_in(rpc: Rpc, client: httpx.Client, data: Any) -> None:
    datatype = data.draw(st.sampled_from(sorted(FITTING)))
    samples = data.draw(st.integers(1, 5))
    values = data.draw(st.lists(FITTING[datatype], min_size=2 * samples, max_size=2 * samples))
    options = data.draw(
        st.sampled_from([{}, {"time_steps": 7}, {"time_steps": 50, "seed": 2**63 - 1}, {"stop": "decided"}])
    )
    array = np.array(values, DTYPES[Datatype(datatype)]).reshape(samples, 2)
    answer = native(client, "toy", array.astype(float).tolist(), **options)
    names = data.draw(st.lists(st.sampled_from(sorted(answer)), unique=True))
    expected = {name: answer[name] for name in names or answer}
    more = {"parameters": options, "outputs": [{"name": name} for name in names]}
    as_bytes = more | {"parameters": options | {"binary_data_output": True}}
    body, headers = binary_request(array, datatype, **more)
    assert http_outputs(client.post(INFER, content=body, headers=headers)) == expected
    for asked in (more, as_bytes):
        assert http_outputs(client.post(INFER, json=http_request(array, datatype, **asked))) == expected
    for raw in (True, False):
        if raw or datatype != "FP16":  # which no typed field holds
            request = infer_request(array, datatype=datatype, raw=raw, parameters=options)
            for name in names:
                request.outputs.add(name=name)
            assert outputs(rpc.call("ModelInfer", request)) == expected


@pytest.mark.parametrize("raw", [True, False])
def test_a_long_request_and_a_long_answer_are_those_of_http(service: Process, rpc: Rpc, raw: bool) -> None:
    # 1,000 samples of 64 values are 256 KB, which a codec thread decodes; the answers take more than 64 KiB.
    array = np.random.default_rng(5).random((1000, 64), np.float32)
    expected = http_outputs(over_http(service, http_request(array), "digits"))
    assert outputs(rpc.call("ModelInfer", infer_request(array, "digits", raw=raw))) == expected


def test_the_configuration_says_that_a_model_has_sequences(rpc: Rpc) -> None:
    config = rpc.call("ModelConfig", messages.ModelConfigRequest(name="pairs")).config
    assert config.sequence_batching.HasField("direct")
    assert config.sequence_batching.max_sequence_idle_microseconds == 60_000_000


def test_parameters_that_are_of_http_alone_are_ignored(rpc: Rpc) -> None:
    request = infer_request(np.array([[0.6, 2.0]]), raw=False, parameters={"binary_data_output": True})
    request.inputs[0].parameters["binary_data_size"].int64_param = 8
    assert not rpc.call("ModelInfer", request).raw_output_contents


def changed(change: Any, **more: Any) -> messages.ModelInferRequest:
    request = infer_request(np.array([[0.6, 2.0]]), **more)
    change(request)
    return request


SAME_SENTENCE = [  # of HTTP, for the same fault
    ({"shape": [1, 3], "data": [0, 1, 2]}, {}),
    ({"shape": [0, 2], "data": []}, {}),
    ({"shape": [-1, 2], "data": [0, 1]}, {}),
    ({"shape": [2**62, 2**62], "data": [0]}, {}),
    ({"shape": [1] * 9, "data": [0]}, {}),
    ({"name": "other"}, {}),
    ({"datatype": "FP31"}, {}),
    ({}, {"time_steps": 0}),
    ({}, {"time_steps": 10**6}),
    ({}, {"time_steps": "3"}),
    ({}, {"unknown": 1}),
    ({}, {"seed": -1}),
    ({}, {"stop": "never"}),
    ({}, {"sequence_start": True}),
    ({"data": [0.6, 11.0]}, {}),
    ({"shape": [2000, 2], "data": [0.0] * 4000}, {}),
]


@pytest.mark.parametrize(("tensor", "parameters"), SAME_SENTENCE)
def test_what_does_not_fit_gets_the_sentence_of_http(
    service: Process, rpc: Rpc, tensor: dict[str, Any], parameters: dict[str, Any]
) -> None:
    fields = {"name": "inputs", "shape": [1, 2], "datatype": "FP32", "data": [0.6, 2.0]} | tensor
    answer = over_http(service, {"inputs": [fields], "parameters": parameters})
    values = fields.pop("data")
    request = infer_request(np.zeros((1, 2)), raw=False, parameters=parameters)
    request.inputs[0].CopyFrom(TENSOR(**fields, contents={"fp32_contents": values}))
    error = rpc.refused("ModelInfer", request)
    code = {400: StatusCode.INVALID_ARGUMENT, 413: StatusCode.RESOURCE_EXHAUSTED}[answer.status_code]
    assert (error.code(), error.details()) == (code, answer.json()["error"])


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (changed(lambda r: r.raw_input_contents.append(b"")), "raw_input_contents has 2 elements, expected 1, of the"),
        (
            changed(lambda r: r.inputs[0].contents.fp32_contents.append(1)),
            "the message has inputs[0].contents and raw_input_contents, expected one of them",
        ),
        (
            changed(lambda r: r.ClearField("raw_input_contents")),
            "inputs[0].contents.fp32_contents has 0 bytes, expected 8 for FP32 of shape 1×2",
        ),
        (
            changed(lambda r: r.inputs[0].contents.int_contents.append(1), raw=False),
            "int_contents has values, expected them in inputs[0].contents.fp32_contents for FP32",
        ),
        (
            changed(lambda r: r.raw_input_contents.__setitem__(0, b"\0" * 7)),
            "raw_input_contents[0] has 7 bytes, expected 8 for FP32 of shape 1×2",
        ),
        (
            changed(lambda r: r.inputs[0].contents.int_contents.append(1), datatype="INT8", raw=False),
            "inputs[0].contents.int_contents holds 3 values, expected 2 for shape 1×2",
        ),
        (
            changed(lambda r: r.inputs[0].contents.int_contents.__setitem__(0, 128), datatype="INT8", raw=False),
            "inputs[0].contents.int_contents holds 128, expected -128 to 127",
        ),
        (
            changed(lambda r: setattr(r.inputs[0], "datatype", "FP16"), raw=False),
            "inputs[0].contents cannot hold FP16, expected its bytes in raw_input_contents",
        ),
        (
            changed(lambda r: setattr(r.inputs[0], "datatype", "BYTES"), raw=False),
            "inputs[0].datatype is BYTES, expected FP32 or another of numbers",
        ),
        (changed(lambda r: r.parameters["seed"].Clear()), "parameters.seed is null, expected an integer"),
        (changed(lambda r: r.ClearField("inputs")), "inputs holds 0 tensors, expected one, 'inputs'"),
        (changed(lambda r: r.inputs.append(r.inputs[0])), "inputs holds 2 tensors, expected one, 'inputs'"),
    ],
)
def test_what_only_a_message_can_say_wrong_is_invalid_argument(rpc: Rpc, request_: Any, sentence: str) -> None:
    error = rpc.refused("ModelInfer", request_)
    assert error.code() is StatusCode.INVALID_ARGUMENT
    assert error.details().startswith(sentence)


def test_an_unknown_model_or_version_is_not_found_with_the_sentence_of_http(service: Process, rpc: Rpc) -> None:
    for model, version, path in (("nobody", "", "nobody"), ("toy", "7", "toy/versions/7")):
        error = rpc.refused("ModelInfer", infer_request(np.zeros((1, 2)), model, model_version=version))
        told = httpx.post(f"{service.url}/v2/models/{path}/infer", json={}).json()["error"]
        assert (error.code(), error.details()) == (StatusCode.NOT_FOUND, told)


def test_a_request_is_logged_as_those_of_http_are(service: Process, rpc: Rpc) -> None:
    rpc.call("ModelInfer", infer_request(np.zeros((4, 2))), metadata=[("x-request-id", "mine")])
    while (entry := service.wait_for("request"))["request_id"] != "mine":
        pass
    assert entry.pop("ms") > 0
    assert entry.pop("timestamp")
    assert entry == {
        "request_id": "mine",
        "method": "POST",
        "route": "/inference.GRPCInferenceService/ModelInfer",
        "status": 200,
        "model": "toy",
        "version": 1,
        "samples": 4,
        "event": "request",
        "level": "info",
    }


def test_each_answer_has_the_id_of_its_request(rpc: Rpc) -> None:
    error = rpc.refused("ModelInfer", infer_request(np.zeros((1, 2)), "nobody"), metadata=[("x-request-id", "a-1")])
    assert dict(error.trailing_metadata())["x-request-id"] == "a-1"
    error = rpc.refused("ModelInfer", infer_request(np.zeros((1, 2)), "nobody"), metadata=[("x-request-id", "a 1")])
    assert len(dict(error.trailing_metadata())["x-request-id"]) == 32
