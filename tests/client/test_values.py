"""Sessions of values: each window is that of one run, whatever the parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spikeserve import Client, InvalidEvents, SessionState, Summary
from spikeserve.models.coding import encode
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec import Coding
from tests.networks import toy

VALUES = np.array([[0.75, 1.0], [0.5, 0.0], [0.25, 2.0], [1.0, 0.0], [0.0, 0.5], [0.75, 0.75]], np.float32)


def counted(values: np.ndarray[Any, Any]) -> list[int]:
    """Return the spikes of one run over a value for each step."""
    result, _ = ReferenceEngine(toy(Coding.CURRENT, len(values))).run(
        encode(values[None], toy(Coding.CURRENT, len(values)).spec)
    )
    return [int(each) for each in result.spike_counts[0]]


def test_a_value_for_each_step_gives_the_windows_of_one_run(client: Client) -> None:
    with client.session(model="mine", window_steps=2) as session:
        session.send(VALUES[:3])
        first = list(session)
        session.send(VALUES[3])  # one entry
        session.send(VALUES[4:].tolist())
        rest = session.end()
    windows = [*first, *rest]
    assert [(each.window, each.t, each.steps, each.events) for each in windows] == [
        (0, 2, 2, 0),
        (1, 4, 2, 0),
        (2, 6, 2, 0),
    ]
    assert [each.spike_counts for each in windows] == [counted(VALUES[:end]) for end in (2, 4, 6)]
    assert (len(first), session.summary) == (1, Summary(windows=3, events=0, late=0))


@pytest.mark.parametrize(("model", "steps"), [("mine", 2), ("direct", 3)])
def test_a_state_goes_on_from_the_next_value(client: Client, model: str, steps: int) -> None:
    whole = [each.spike_counts for each in client.stream(VALUES, model=model, window_steps=steps)]
    with client.session(model=model, window_steps=steps) as session:
        session.send(VALUES[:2])
        state = SessionState.from_json(session.state().to_json())
    behind = state.t if model == "mine" else state.window
    assert behind == 2
    found = [each.spike_counts for each in client.stream(VALUES[2:], state=state)]
    assert found == whole[state.window :]


@pytest.mark.parametrize(
    ("model", "given", "sentence"),
    [
        (
            "mine",
            [1.0, 2.0, 3.0],
            r"values have shape \(3,\), expected \(2,\) for each step, and those after another",
        ),
        ("direct", np.zeros((4, 3)), r"values have shape \(4, 3\), expected \(2,\) for each window"),
        ("mine", ["a", "b"], "values are no array of numbers: could not convert string to float"),
        ("pairs", [0.0, 1.0], "the model has spikes coding, expected current, direct or rate for values"),
    ],
)
def test_values_that_do_not_fit_are_refused_unsent(client: Client, model: str, given: Any, sentence: str) -> None:
    with client.session(model=model) as session, pytest.raises(InvalidEvents, match=sentence):
        session.send(given)


def test_values_and_events_do_not_mix(client: Client) -> None:
    with client.session(model="mine") as session:
        session.send(VALUES[:1])
        with pytest.raises(InvalidEvents, match="the session was sent values before, expected values"):
            session.send({"t": [0], "unit": [0]})
        with pytest.raises(InvalidEvents, match="t is 5, but the session was sent values, whose number is its time"):
            session.advance(5)
