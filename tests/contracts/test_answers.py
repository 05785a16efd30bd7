"""Whichever way samples come in, they have the same answer, or are refused by the same sentence."""

import json
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from spikeserve.service.inference.decoding.numbers import LONG_ARRAY
from tests.contracts.answers import ANSWERS, REFUSALS, STATUSES, publish_all
from tests.contracts.ways import WAYS, Foreign, Question, Refusal, Served, Way, written_alike
from tests.plugins.grpc.conftest import _no_settings_from_outside as _no_settings_from_outside
from tests.plugins.grpc.rpc import Rpc, serving_grpc

ALWAYS = {"class_index", "label", "probabilities", "values", "spike_counts", "synaptic_operations"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """All models, behind every port."""
    root = tmp_path_factory.mktemp("repository")
    ready = publish_all(root)
    with (
        serving_grpc(root, "--versions", "all", ready=ready) as service,
        httpx.Client(base_url=service.url, timeout=60) as http,
        Rpc(service) as rpc,
        ExitStack() as stack,
    ):
        served = Served(service, root, http, rpc, stack)
        for way in WAYS.values():
            if isinstance(way, Foreign):
                served.program(way.client, way.kind)  # they start beside each other
        yield served


def ways_of(question: Question) -> dict[str, Way]:
    """Return the ways in that have words for a question."""
    words = question.words
    return {name: way for name, way in WAYS.items() if not way.unsaid.keys() & words}


@pytest.mark.parametrize("row", ANSWERS)
def test_every_way_in_gives_the_answer(served: Served, row: str) -> None:
    question, expected = ANSWERS[row]
    for name, way in ways_of(question).items():
        found = way.ask(question, served)
        assert len(found) == len(expected), name
        for prediction, wanted in zip(found, expected, strict=True):
            fields = {field: value for field, value in prediction.items() if field in wanted or field not in ALWAYS}
            approximate = {"probabilities": pytest.approx(fields.pop("probabilities", None), abs=1e-6)}
            assert fields | (approximate if "probabilities" in wanted else {}) == wanted, name


@pytest.mark.parametrize("row", REFUSALS)
def test_every_way_in_refuses_by_the_sentence(served: Served, row: str) -> None:
    question, sentence = REFUSALS[row]
    for name, way in ways_of(question).items():
        said = sentence if isinstance(sentence, str) else sentence.get(way.form, sentence.get("tensor", "nothing"))
        with pytest.raises(Refusal) as refused:
            raise AssertionError(f"{name} answered {way.ask(question, served)}")
        assert said in written_alike(refused.value.sentence), name
        assert refused.value.status == way.status(STATUSES.get(row, 422)), name


def test_what_a_way_in_has_no_words_for_is_asked_of_others() -> None:
    questions = [row[0] for row in ANSWERS.values()] + [row[0] for row in REFUSALS.values()]
    asked = [name for question in questions for name in ways_of(question)]
    assert min(map(asked.count, WAYS)) >= 10
    words = {word for question in questions for word in question.words}
    for name, way in WAYS.items():
        assert way.unsaid.keys() <= words, f"{name} has a reason for what nobody asks"
        assert all(len(reason.split()) > 3 for reason in way.unsaid.values()), name
    assert all(map(ways_of, questions))


decimals = st.builds(
    lambda sign, digits, point, exponent: sign + (digits[:point] or "0") + "." + (digits[point:] or "0") + exponent,
    st.sampled_from(["", "-"]),
    st.integers(1, 10**21).map(str),
    st.integers(0, 21),
    st.sampled_from(["", "e0", "E+5", "e-7", "e-30", "e20", "e-50"]),
)


finite = [st.floats(width=width, allow_nan=False, allow_infinity=False).map(repr) for width in (32, 64)]


@given(st.one_of(*finite, decimals))
@example("1" + "0" * 64)  # which 64 bits hold as 0
@example("92233720368547758080")
@example("0.92233720368547758080")
@example("9007199254740993")  # half way between two doubles
@example("0.35506439208984375")  # a double, to the last digit
@example("1e400")
def test_a_number_has_the_bits_that_a_parser_gives_it(served: Served, text: str) -> None:
    with np.errstate(over="ignore"):
        number = np.array(json.loads(text), np.float32) + np.float32(0)  # an offset, which makes 0 of -0
    short, long = (f'{{"inputs": [[{" " * pad}{text}, 0]]}}'.ljust(200) for pad in (0, LONG_ARRAY))
    for body in (short, short, short, long):  # a kernel reads the third one, and long arrays are read in slices
        answer = served.http.post("/models/exact/predict", content=body)
        if np.isfinite(number):
            assert answer.json()["predictions"][0]["values"][0] == number
        else:
            assert answer.status_code == 422


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["inputs", "time_steps", "seed", "return", "t", "unit", "?"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)
requests = st.fixed_dictionaries(
    {"inputs": st.lists(st.lists(st.integers(0, 10) | st.floats(0, 10), min_size=2, max_size=2), max_size=3)},
    optional={"time_steps": json_values, "seed": json_values, "return": json_values, "?": json_values},
)


@settings(suppress_health_check=list(HealthCheck))
@given(model=st.sampled_from(["toy", "spikes", "series"]), body=json_values | requests)
def test_whatever_is_posted_is_the_clients_mistake_or_answered(served: Served, model: str, body: object) -> None:
    answer = served.http.post(f"/models/{model}/predict", content=json.dumps(body))
    assert answer.status_code in {200, 400, 413, 422}
    if answer.status_code != 200:
        assert list(answer.json()) == ["error"]
        assert isinstance(answer.json()["error"], str)
