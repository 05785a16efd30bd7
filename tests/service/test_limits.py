"""The work that one request may ask for is bounded, and what is over a bound is named before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.service.conftest import serving


@pytest.mark.parametrize(
    ("limits", "body", "sentence"),
    [
        ({"max_samples": 2}, {"inputs": [[0, 1]] * 3}, "inputs has 3 samples, expected at most 2 in one request"),
        (
            {"max_values": 11},
            {"inputs": [[0, 1]] * 2},
            "inputs has 2 samples, which at 3 time_steps are 12 values in this model's widest layer, "
            "expected at most 11",
        ),
        (
            # Two samples, three steps, two neurons.
            {"max_neuron_steps": 11},
            {"inputs": [[0, 1]] * 2},
            "inputs has 2 samples, which at 3 time_steps of this model's 2 neurons are 12 neuron steps, "
            "expected at most 11",
        ),
    ],
)
def test_more_work_than_is_allowed_is_413(
    repository: Path, limits: dict[str, Any], body: dict[str, Any], sentence: str
) -> None:
    with serving(repository, **limits) as client:
        answer = client.post("/predict", json=body)
        assert client.post("/predict", json={"inputs": [[0, 1]]}).status_code == 200
    assert answer.status_code == 413
    assert answer.json() == {"error": sentence}


def test_json_is_read_only_so_deep(repository: Path) -> None:
    # Read by recursion, which stops at 200, long before the stack does.
    deep = b'{"inputs": ' + b"[" * 1_000_000
    with serving(repository) as client:
        answer = client.post("/predict", content=deep)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("the body is not JSON: recursion limit exceeded")
