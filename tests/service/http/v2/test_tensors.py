"""Tensors between JSON, bytes and NumPy: what goes out comes back, whatever the datatype and shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from spikeserve.service.inference.protocols.v2.parsing import InvalidRequest
from spikeserve.service.inference.protocols.v2.tensors import (
    DTYPES,
    Datatype,
    from_bytes,
    from_json,
    to_bytes,
    to_float32,
)

finite = {"allow_nan": False, "allow_infinity": False}
tensors = st.sampled_from(list(DTYPES)).flatmap(
    lambda datatype: st.tuples(
        st.just(datatype),
        arrays.arrays(
            DTYPES[datatype],
            arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4),
            elements=finite if DTYPES[datatype].kind == "f" else None,
        ),
    )
)


@given(tensors)
def test_nested_flat_and_bytes_are_the_same_tensor(tensor: tuple[Datatype, Any]) -> None:
    datatype, array = tensor
    for read in (
        from_json(array.tolist(), datatype, array.shape, "data") if array.size else array,
        from_json(array.ravel().tolist(), datatype, array.shape, "data"),
        from_bytes(memoryview(b"".join(to_bytes(array, datatype))), datatype, array.shape, "data"),
    ):
        assert read.dtype == array.dtype
        assert read.shape == array.shape
        assert read.tobytes() == array.tobytes()


@given(tensors)
def test_float32_holds_it_exactly_or_it_is_refused(tensor: tuple[Datatype, Any]) -> None:
    datatype, array = tensor
    if datatype is Datatype.FP64:
        return  # rounded, as any number in JSON is
    try:
        single = to_float32(array, "data")
    except InvalidRequest:
        assert max(map(abs, map(int, array.ravel()))) > 2**24
    else:
        assert single.dtype == np.float32
        assert [
            value == exact for value, exact in zip(single.ravel().tolist(), array.ravel().tolist(), strict=True)
        ] == [True] * array.size


@pytest.mark.parametrize("sign", [1, -1])
def test_the_last_integer_that_float32_holds_with_all_before_it_is_taken_and_the_next_is_refused(sign: int) -> None:
    last = np.array([sign * 2**24])
    assert to_float32(last, "data").tolist() == [sign * 2.0**24]
    with pytest.raises(InvalidRequest, match=rf"data holds {sign * (2**24 + 1)}, expected integers within ±16777216"):
        to_float32(last + sign, "data")


@pytest.mark.parametrize("datatype", [datatype for datatype, dtype in DTYPES.items() if dtype.kind in "ui"])
def test_the_least_and_greatest_integers_of_a_datatype_are_its_own_and_no_others(datatype: Datatype) -> None:
    limits = np.iinfo(DTYPES[datatype])
    least, greatest = int(limits.min), int(limits.max)
    assert from_json([least, greatest], datatype, (2,), "data").tolist() == [least, greatest]
    for beyond in (least - 1, greatest + 1):
        with pytest.raises(InvalidRequest, match=rf"data holds {beyond}, expected {least} to {greatest}"):
            from_json([0, beyond], datatype, (2,), "data")


def test_text_has_its_length_before_it() -> None:
    texts = np.array([["a", "é"], ["", "xyz"]], object)
    assert b"".join(to_bytes(texts, Datatype.BYTES)) == b"\1\0\0\0a\2\0\0\0\xc3\xa9\0\0\0\0\3\0\0\0xyz"


def test_a_shape_whose_product_overflows_is_no_more_than_a_number() -> None:
    with pytest.raises(InvalidRequest, match="expected 85070591730234615847396907784232501249 for shape"):
        from_json([1.0], Datatype.FP32, (2**63 - 1, 2**63 - 1), "data")
