"""What an ONNX file asks for is found wherever it lies, and bytes that are no model get a sentence, never a crash."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from onnx import helper

from spikeserve.models.bundle.repository import PRETRAINED
from spikeserve.models.engines.onnx import fields as onnx_fields
from spikeserve.models.engines.onnx.fields import MAX_DEPTH, check
from spikeserve.models.errors import InvalidBundle
from tests.onnx_graphs import OPSETS, model_of, own, scores, with_external_data
from tests.onnx_places import OUTSIDE, PLACES, TENSOR, branch, in_graph

SERIALISED = [scores().SerializeToString(), own().SerializeToString()]


def tagged(number: int, content: bytes) -> bytes:
    """Return a protobuf field with a length, of a number below 16 and fewer than 128 bytes."""
    assert number < 16
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


def test_what_ships_passes() -> None:
    for path in PRETRAINED.glob("*/*/model.onnx"):
        check(path.read_bytes())


@pytest.mark.parametrize("place", PLACES)
def test_a_tensor_in_another_file_is_refused_wherever_it_lies(place: str) -> None:
    with pytest.raises(InvalidBundle, match="keeps the tensor 'weight' in another file"):
        check(PLACES[place].SerializeToString())


@pytest.mark.parametrize("field", ["data_location", "external_data"])
def test_one_of_the_two_fields_is_enough(field: str) -> None:
    half = with_external_data(TENSOR)
    half.ClearField(field)
    with pytest.raises(InvalidBundle, match="in another file"):
        check(in_graph(initializer=half).SerializeToString())


def test_a_part_that_is_said_twice_is_read_twice_as_protobuf_merges_them() -> None:
    hidden = onnx.ModelProto()
    hidden.graph.initializer.append(OUTSIDE)
    for merged in (hidden.SerializeToString() + SERIALISED[0], SERIALISED[0] + hidden.SerializeToString()):
        assert any(tensor.external_data for tensor in onnx.load_from_string(merged).graph.initializer)
        with pytest.raises(InvalidBundle, match="in another file"):
            check(merged)


def test_operators_of_others_are_refused_unless_the_model_defines_them() -> None:
    model = in_graph(helper.make_node("Leaky", ["x"], ["y"], domain="snn.org"))
    with pytest.raises(InvalidBundle, match=r"uses the operator 'Leaky' of the domain 'snn\.org'"):
        check(model.SerializeToString())
    node = helper.make_node("Relu", ["a"], ["b"])
    model.functions.append(helper.make_function("snn.org", "Leaky", ["a"], ["b"], [node], OPSETS))
    check(model.SerializeToString())


def test_an_operator_of_others_in_a_branch_is_refused() -> None:
    model = in_graph(branch(helper.make_node("Leaky", ["x"], ["y"], domain="com.microsoft")))
    with pytest.raises(InvalidBundle, match=r"of the domain 'com\.microsoft'"):
        check(model.SerializeToString())


def test_graphs_in_graphs_have_an_end() -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    for _ in range(MAX_DEPTH // 3 + 1):
        node = branch(node)
        del node.attribute[1]
    with pytest.raises(InvalidBundle, match="more than 64 messages deep"):
        check(in_graph(node).SerializeToString())


def test_a_model_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_fields, "MAX_BYTES", 100)
    with pytest.raises(InvalidBundle, match="bytes, expected at most 100"):
        check(SERIALISED[0])


def test_a_model_of_too_many_fields_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_fields, "MAX_FIELDS", 10)
    with pytest.raises(InvalidBundle, match="has more than 10 fields"):
        check(SERIALISED[0])


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "holds no operator"),
        (b"PK\x03\x04", "is not an ONNX model"),
        (b"\x80" * 11, "it ends within a field"),
        (b"\x08" + b"\xff" * 10 + b"\x01", "it ends within a field"),
        (b"\x3a\xff\xff\xff\xff\x0f", "it ends within a field"),
        (b"\x3b", "a field has wire type 3"),
        (b"\x02\x00", "a field has no number"),
        (b"\xba\x80\x80\x80\x10\x00", "a field has no number"),
        (b"\xba\x80\x80\x80\x80\x00\x00", "a field has no number"),  # a tag of more bytes than any needs
        (b"\x3a", "it ends within a field"),
        (tagged(7, b"\x0d\x00"), "it ends within a field"),
    ],
)
def test_bytes_that_are_no_model_get_a_sentence(data: bytes, sentence: str) -> None:
    with pytest.raises(InvalidBundle, match=sentence):
        check(data)


def survives(data: bytes) -> bool:
    """Return whether `check` passes; anything but a pass or its sentence is a failure of the test."""
    sentence = ""
    try:
        check(data)
    except InvalidBundle as error:
        sentence = str(error)
    assert not sentence or sentence.startswith("model.onnx: ")
    return not sentence


@given(st.binary(max_size=200))
def test_any_bytes_pass_or_get_a_sentence(data: bytes) -> None:
    survives(data)


@given(st.sampled_from(SERIALISED), st.floats(0, 1, exclude_max=True))
@example(SERIALISED[0], 0.0)
def test_a_model_that_is_cut_off_passes_or_gets_a_sentence(model: bytes, part: float) -> None:
    survives(model[: int(part * len(model))])


@given(st.sampled_from([PLACES[place].SerializeToString() for place in PLACES] + SERIALISED), st.data())
def test_whatever_bits_flip_no_tensor_of_another_file_slips_through(model: bytes, data: st.DataObject) -> None:
    changed = bytearray(model)
    for place in data.draw(st.lists(st.integers(0, 8 * len(model) - 1), min_size=1, max_size=4)):
        changed[place // 8] ^= 1 << place % 8
    if not survives(bytes(changed)):
        return
    try:
        parsed = onnx.load_from_string(bytes(changed))
    except Exception:  # the onnx package has no one class for it
        return
    assert not outside(parsed)


def outside(message: Any) -> bool:
    """Return whether a message of the onnx package holds, anywhere, a tensor of another file."""
    if isinstance(message, onnx.TensorProto):
        return bool(message.external_data) or message.data_location != 0
    below = [value for field, value in message.ListFields() if field.message_type is not None]
    each = [part for value in below for part in ([value] if hasattr(value, "ListFields") else value)]
    return any(outside(part) for part in each)


def test_the_helper_finds_what_the_walk_must_refuse() -> None:
    assert not outside(scores())
    assert all(outside(model) for model in PLACES.values())
    assert not outside(model_of([], [], [], [TENSOR]))
