"""`python -m benchmarks.soak` as it is typed, and how its figures are judged."""

import json
import random
from pathlib import Path

import pytest

from benchmarks.soak.__main__ import main, table
from benchmarks.soak.figures import Figure
from benchmarks.soak.hostile import hostile, mutated
from benchmarks.soak.networks import SMALL
from benchmarks.soak.questions import is_exact, questions


@pytest.mark.deep
def test_a_quick_run_meets_targets_and_writes_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(quick=True, phase=["hostile"], output=tmp_path / "figures.json")  # which exits where a target is missed
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert {figure["phase"] for figure in figures} == {"hostile requests"}
    judged = {figure["name"]: figure["value"] for figure in figures if figure["met"] is not None}
    assert judged.pop("requests") == 1000
    assert judged.pop("requests made of the document") > 50
    assert set(judged.values()) == {0}
    assert "missed" not in capsys.readouterr().out


def test_a_phase_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(SystemExit, match="error: --phase is 'sleep', expected one of hostile, bodies, mixed, overload"):
        main(phase=["sleep"])


@pytest.mark.parametrize(
    ("figure", "met", "target"),
    [
        (Figure("p", "n", 20, at_most=20), True, "≤ 20"),
        (Figure("p", "n", 20.5, at_most=20), False, "≤ 20"),
        (Figure("p", "n", 1, at_most=0), False, "0"),
        (Figure("p", "n", 9, at_least=9), True, "≥ 9"),
        (Figure("p", "n", 8, at_least=9), False, "≥ 9"),
        (Figure("p", "n", 8), None, ""),
    ],
)
def test_a_figure_is_judged_by_its_bound_if_it_has_one(figure: Figure, met: bool | None, target: str) -> None:
    assert figure.met is met
    assert figure.target == target
    assert table([figure]).row_count == 1


def test_a_question_is_answered_exactly_or_not() -> None:
    question = questions(SMALL, 2)[1]
    right = {"predictions": [{"spike_counts": list(counts)} for counts in question.counts]}
    assert is_exact(question, json.dumps(right).encode())
    right["predictions"][1]["spike_counts"][0] += 1
    assert not is_exact(question, json.dumps(right).encode())


def test_what_is_sent_is_the_same_each_time_and_each_kind_has_its_name() -> None:
    sound = {"inputs": [[1, 2]]}
    first, second = (mutated(json.dumps(sound).encode(), random.Random(1)) for _ in range(2))  # noqa: S311
    assert first == second
    names = [each.name for each in hostile(sound)]
    assert len(names) == len(set(names)) > 70
