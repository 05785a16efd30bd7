"""A function called in a process of its own: what comes back, what it inherits, and how it may end."""

import os
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from spikeserve.models.errors import InvalidInput, InvalidSpec
from spikeserve.models.isolated import Limits, NoAnswer, call
from spikeserve.models.spec import Spec

ENOUGH = Limits(60.0, 2**32)


def same(value: Any) -> Any:
    return value


def printed(text: str) -> str:
    os.write(1, text.encode())
    return text


def called(function: Any, *arguments: Any, limits: Limits = ENOUGH) -> Any:
    return call(function, *arguments, limits=limits, refused=InvalidInput)


def test_values_of_every_kind_come_back_as_they_went() -> None:
    given: Mapping[str, Any] = {
        "plain": [None, True, 3, -0.5, "größe\n"],
        "array": np.arange(6, dtype=">u2").reshape(2, 3),
        "scalar": np.float32(0.1),
        "text": np.array([["a", "b"]], object),
        "bytes": b"\x00\n\xff",
        "inner": {"array": {}, "fields": []},
    }
    found = called(same, given)
    assert list(found) == list(given)
    for name, value in given.items():
        np.testing.assert_array_equal(found[name], value)
        assert type(found[name]) is type(value)
    assert (found["array"].dtype, found["text"].dtype) == (np.dtype(">u2"), np.dtype(object))


def test_no_key_of_the_environment_reaches_it_and_what_it_prints_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIKESERVE_API_KEYS", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert called(os.getenv, "SPIKESERVE_API_KEYS") is None
    assert called(os.getenv, "AWS_SECRET_ACCESS_KEY") is None
    assert called(printed, '{"fields": {"returned": "another"}}\n') == '{"fields": {"returned": "another"}}\n'


def test_a_refusal_and_every_other_end_is_an_exception_of_its_own() -> None:
    with pytest.raises(InvalidSpec) as here:
        Spec.read("{}")
    with pytest.raises(InvalidInput) as there:
        called(read_spec, "{}")
    assert str(there.value) == str(here.value)
    with pytest.raises(NoAnswer, match="exit status 1: ValueError: invalid literal"):
        called(as_number, "many")
    with pytest.raises(NoAnswer, match="no answer that can be read"):
        called(os._exit, 0)
    with pytest.raises(TimeoutError):
        called(same, None, limits=Limits(0.001, 2**32))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to a bound on its memory")
def test_it_cannot_take_more_memory_than_its_limit() -> None:
    with pytest.raises(MemoryError):
        called(zeros, 2**31, limits=Limits(60.0, 2**31))


def read_spec(text: str) -> None:
    Spec.read(text)


def as_number(text: str) -> int:
    return int(text)


def zeros(count: int) -> int:
    return len(bytearray(count))
