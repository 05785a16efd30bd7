"""Infer requests over gRPC get what those over HTTP get: answers, sentences and limits."""

from typing import Any

import httpx
import numpy as np
import pytest
from grpc import StatusCode

from spikeserve.plugins.grpc import messages
from tests.plugins.grpc.rpc import Rpc, infer_request, outputs
from tests.service.infer_requests import outputs as http_outputs
from tests.service.infer_requests import request as http_request
from tests.serving import Process

TENSOR = messages.ModelInferRequest.InferInputTensor


def over_http(service: Process, body: Any, model: str = "toy") -> httpx.Response:
    return httpx.post(f"{service.url}/v2/models/{model}/infer", json=body, timeout=60)


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
