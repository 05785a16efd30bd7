"""A message is parted without a change of what it says, and what it may cost is known before it is parsed.

Our messages are the protocol's: names, numbers and types are those of the stubs that KServe and Triton ship.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from hypothesis import given
from hypothesis import strategies as st

from spikeserve.models.errors import SpikeserveError
from spikeserve.plugins.grpc import messages
from spikeserve.plugins.grpc.contents import PIECE_BYTES, from_contents
from spikeserve.plugins.grpc.messages import InferTensorContents, ModelInferRequest
from spikeserve.plugins.grpc.wire import MAX_FIELDS, MAX_REST_BYTES, delimited, part
from spikeserve.service.inference.protocols.v2.tensors import Datatype
from tests.plugins.grpc.descriptors import described_file
from tests.serving import ROOT

INT64 = InferTensorContents.INT64_CONTENTS_FIELD_NUMBER
TENSOR = ModelInferRequest.InferInputTensor
texts = st.text(max_size=20)
CONTENTS: st.SearchStrategy[Any] = st.builds(
    InferTensorContents,
    bool_contents=st.lists(st.booleans(), max_size=20),
    int_contents=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=20),
    int64_contents=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20),
    uint64_contents=st.lists(st.integers(0, 2**64 - 1), max_size=20),
    fp32_contents=st.lists(st.floats(width=32, allow_nan=False), max_size=20),
)
TENSORS = st.builds(TENSOR, name=texts, datatype=texts, shape=st.lists(st.integers(-5, 2**40)), contents=CONTENTS)
REQUESTS: st.SearchStrategy[Any] = st.builds(
    ModelInferRequest,
    model_name=texts,
    model_version=texts,
    id=texts,
    inputs=st.lists(TENSORS, max_size=3),
    raw_input_contents=st.lists(st.binary(max_size=200), max_size=3),
)


@given(REQUESTS)
def test_the_parts_of_a_message_are_the_whole(request: Any) -> None:
    parted = part(request.SerializeToString())
    assert [bytes(blob) for blob in parted.raw] == list(request.raw_input_contents)
    merged = InferTensorContents()
    for number, blobs in parted.contents.items():
        for blob in blobs:
            merged.MergeFromString(delimited(number, bytes(blob)))
    expected = InferTensorContents()
    for tensor in request.inputs:
        expected.MergeFrom(tensor.contents)
        tensor.ClearField("contents")
    request.ClearField("raw_input_contents")
    assert merged == expected
    assert parted.message == request


def test_values_that_are_not_packed_are_read_as_protobuf_reads_them() -> None:
    # Two of int64_contents (3, wire type 0): 1 and 300, which is ac 02; and of fp32_contents (6, wire type 5) 1.0.
    contents = b"\x18\x01\x18\xac\x02\x35\x00\x00\x80\x3f"
    parted = part(delimited(5, delimited(5, contents)))
    assert {number: [bytes(each) for each in found] for number, found in parted.contents.items()} == {
        3: [b"\x01", b"\xac\x02"],
        6: [b"\x00\x00\x80\x3f"],
    }


@pytest.mark.parametrize("before", range(10))
def test_numbers_of_ten_bytes_are_read_wherever_a_piece_of_them_ends(before: int) -> None:
    values = [1] * before + [-1] * (2 * PIECE_BYTES // 10)
    blob = InferTensorContents(int64_contents=values).SerializeToString()
    _, start = varint_at(blob, 1)
    contents = {INT64: [memoryview(blob)[start:]]}
    assert from_contents(contents, Datatype.INT64, (len(values),), "contents").tolist() == values


def varint_at(data: bytes, at: int) -> tuple[int, int]:
    """Return the number of variable length that begins there, and where it ends."""
    end = next(place for place in range(at, len(data)) if data[place] < 128) + 1
    return sum((byte & 127) << 7 * index for index, byte in enumerate(data[at:end])), end


# Bytes that another parser might read differently are refused too. A number of ten bytes is the longest.
TEN = delimited(5, delimited(5, b"\x18" + b"\xff" * 10 + b"\x01"))
MALFORMED = {
    "it ends within a field": [
        *(
            b"\x80" * 11,
            b"\x08" + b"\xff" * 10 + b"\x01",
            b"\x3a\xff\xff\xff\xff\x0f",
            b"\x0d\x00",
            b"\x0a",
            b"\x0a\x05abc",
        ),
        *(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\xff" * 20, TEN),
    ],
    "a field has wire type 3": [b"\x3b", b"\x0b\x0c"],
    "a field has no number": [b"\x02\x00", b"\xba\x80\x80\x80\x10\x00", b"\xba\x80\x80\x80\x80\x00\x00"],
}


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        *(
            (data, f"the message is not a ModelInferRequest: {fault}")
            for fault, contents in MALFORMED.items()
            for data in contents
        ),
        (b"\x0a\x01\xff", "the message is not a ModelInferRequest: a field is malformed, or is not UTF-8"),
        (b"\x2a\x00" * (MAX_FIELDS + 1), "the message has more than 256 fields, expected fewer; send values packed or"),
        (delimited(5, delimited(5, b"\x18\x01" * MAX_FIELDS)), f"the message has more than {MAX_FIELDS} fields"),
        (delimited(3, b"x" * MAX_REST_BYTES), f"the message has {MAX_REST_BYTES + 4} bytes beside its parameters"),
    ],
)
def test_what_is_malformed_or_would_cost_much_is_refused(data: bytes, sentence: str) -> None:
    with pytest.raises(SpikeserveError) as refused:
        part(data)
    assert str(refused.value).startswith(sentence)


def test_a_long_parameter_is_taken_and_so_are_as_many_fields_as_are_allowed() -> None:
    request = ModelInferRequest()
    request.parameters["sequence_state"].string_param = "A" * 2 * MAX_REST_BYTES
    assert part(request.SerializeToString()).message == request
    assert len(part(b"\x2a\x00" * MAX_FIELDS).message.inputs) == MAX_FIELDS


def described(module: str) -> dict[str, Any]:
    """Return the fields of each message of a module, and the methods of its service."""
    command = [sys.executable, "-m", "tests.plugins.grpc.descriptors", module]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    if not done.stdout:
        pytest.skip(f"{module} is not installed here: it is of the extra 'clients'")
    return json.loads(done.stdout)


def ours() -> dict[str, Any]:
    """Return the same of our own messages."""
    return described_file(messages.ModelInferRequest.DESCRIPTOR.file)


SOME_FIELDS = {"inference.ModelConfig"}  # of which the service fills a part


def test_messages_are_those_that_triton_ships() -> None:
    mine, theirs = ours(), described("tritonclient.grpc.service_pb2")
    shared = mine["messages"].keys() & theirs["messages"].keys()
    assert len(shared) == len(mine["messages"]) - 7  # the seven of the configuration are of another file
    for name in (
        shared - SOME_FIELDS - {"inference.RepositoryModelLoadResponse", "inference.RepositoryModelUnloadResponse"}
    ):
        assert mine["messages"][name] == theirs["messages"][name], name
    for name in shared & SOME_FIELDS:
        assert all(field in theirs["messages"][name] for field in mine["messages"][name]), name
    methods = mine["methods"]["inference.GRPCInferenceService"]
    assert methods.items() <= theirs["methods"]["inference.GRPCInferenceService"].items()


def test_the_configuration_has_fields_of_those_that_triton_ships() -> None:
    mine, theirs = ours()["messages"], described("tritonclient.grpc.model_config_pb2")["messages"]
    for name in ("ModelConfig", "ModelInput", "ModelOutput", "ModelParameter", "ModelSequenceBatching"):
        fields = mine[f"inference.{name}"]
        assert fields, name
        assert all(field in theirs[f"inference.{name}"] for field in fields), name


def test_what_is_compiled_is_what_the_proto_files_say(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed: the extra 'dev' has it")
    environment = os.environ | {"PYTHON": sys.executable}
    subprocess.run([ROOT / "scripts/messages", tmp_path], env=environment, check=True, timeout=120)
    for name in ("messages", "health"):
        made, kept = (
            FileDescriptorSet.FromString((folder / f"{name}.binpb").read_bytes())
            for folder in (tmp_path, ROOT / "plugins/grpc")
        )
        assert made == kept, name
        types = (ROOT / f"plugins/grpc/{name}.pyi").read_text()
        assert [each.name for each in made.file[0].message_type if f"class {each.name}(" not in types] == []
