"""What only a message can say, right or wrong."""

from typing import Any

import numpy as np
import pytest
from grpc import StatusCode

from spikeserve.plugins.grpc import messages
from tests.plugins.grpc.rpc import Rpc, infer_request

TENSOR = messages.ModelInferRequest.InferInputTensor


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


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (changed(lambda r: r.raw_input_contents.append(b"")), "raw_input_contents has 2 elements, expected 1, of the"),
        (changed(lambda r: r.inputs[0].contents.fp32_contents.append(1)),
            "the message has inputs[0].contents and raw_input_contents, expected one of them"),
        (changed(lambda r: r.ClearField("raw_input_contents")),
            "inputs[0].contents.fp32_contents has 0 bytes, expected 8 for FP32 of shape 1×2"),
        (changed(lambda r: r.inputs[0].contents.int_contents.append(1), raw=False),
            "int_contents has values, expected them in inputs[0].contents.fp32_contents for FP32"),
        (changed(lambda r: r.raw_input_contents.__setitem__(0, b"\0" * 7)),
            "raw_input_contents[0] has 7 bytes, expected 8 for FP32 of shape 1×2"),
        (changed(lambda r: r.inputs[0].contents.int_contents.append(1), datatype="INT8", raw=False),
            "inputs[0].contents.int_contents holds 3 values, expected 2 for shape 1×2"),
        (changed(lambda r: r.inputs[0].contents.int_contents.__setitem__(0, 128), datatype="INT8", raw=False),
            "inputs[0].contents.int_contents holds 128, expected -128 to 127"),
        (changed(lambda r: setattr(r.inputs[0], "datatype", "FP16"), raw=False),
            "inputs[0].contents cannot hold FP16, expected its bytes in raw_input_contents"),
        (changed(lambda r: setattr(r.inputs[0], "datatype", "BYTES"), raw=False),
            "inputs[0].datatype is BYTES, expected FP32 or another of numbers"),
        (changed(lambda r: r.parameters["seed"].Clear()), "parameters.seed is null, expected an integer"),
        (changed(lambda r: r.ClearField("inputs")), "inputs holds 0 tensors, expected one, 'inputs'"),
        (changed(lambda r: r.inputs.append(r.inputs[0])), "inputs holds 2 tensors, expected one, 'inputs'"),
    ],
)  # fmt: skip
def test_what_only_a_message_can_say_wrong_is_invalid_argument(rpc: Rpc, request_: Any, sentence: str) -> None:
    error = rpc.refused("ModelInfer", request_)
    assert error.code() is StatusCode.INVALID_ARGUMENT
    assert error.details().startswith(sentence)
