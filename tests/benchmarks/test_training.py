"""The benchmark of training steps: every library takes the step that its neurons' rule says, and the tables add up.

The two baselines of sequences, by the same in plain NumPy, and the table of a small file.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import series
from benchmarks.contestants import torch_stack
from benchmarks.contestants.base import NO_LEARNING, Skipped, TrainingJob
from benchmarks.training import report
from benchmarks.training.__main__ import main
from benchmarks.training.cases import TrainingCase, build
from benchmarks.training.choose import CONTESTANTS, prepare, result, start
from benchmarks.training.measure import GRADIENT_TOLERANCE, LOSS_TOLERANCE, Step
from benchmarks.training.reference import difference, expected
from benchmarks.workloads import FLATTEN, LIF, RECURRENT_LIF, TRAINED, Workload, conv, linear, pool

pytestmark = pytest.mark.deep
PROMISED = {"workload", "activity", "batch", "contestant", "threads", "step_ms", "loss", "gradient_difference"}
EVERYTHING = Workload(
    name="everything",
    title="what workloads are made of, small",
    input=(2, 10, 10),
    nodes=(
        *(conv(2, 4, 3, stride=2, padding=1), LIF, pool("Max", 2), FLATTEN),
        *(linear(16, 16), RECURRENT_LIF, linear(16, 8), LIF),
    ),
    time_steps=20,
    activities=(20,),
    reset="subtract",
    recurrent_gain=0.25,
)
UNCOMPILED = [name for name, contestant in CONTESTANTS.items() if not contestant.is_compiled]


@pytest.fixture(scope="module")
def case() -> TrainingCase:
    return build(EVERYTHING, 20, 4)


def job_of(case: TrainingCase, learning_rate: float = NO_LEARNING) -> TrainingJob:
    return TrainingJob(case.case.network, case.case.inputs, 1, case.targets, learning_rate)


@pytest.mark.filterwarnings("ignore")  # of other people's libraries
@pytest.mark.parametrize("name", UNCOMPILED)
def test_a_contestant_has_its_rules_loss_and_gradients_and_learns_at_a_rate(case: TrainingCase, name: str) -> None:
    wanted = expected(job_of(case), CONTESTANTS[name].rule)
    try:
        run, moving = prepare(name, job_of(case)), start(name, job_of(case, 0.01))
    except Skipped as reason:
        pytest.skip(str(reason))
    found = result(run)
    assert found.loss == pytest.approx(wanted.loss, abs=LOSS_TOLERANCE)
    assert set(found.gradients) == set(case.case.network.tensors)
    assert difference(found.gradients, wanted.gradients) <= GRADIENT_TOLERANCE
    assert run() == found.loss
    batch = moving.load(case.case.inputs.steps, case.targets)
    losses = [moving.step(batch) for _ in range(20)]
    assert losses[-1] < losses[0]


@pytest.mark.filterwarnings("ignore")  # of other people's libraries
@pytest.mark.parametrize("name", ["snntorch", "spikingjelly", "norse", "sinabs"])
def test_what_is_compiled_of_a_long_network_takes_the_same_step(
    case: TrainingCase, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)  # which takes minutes and changes no rule
    monkeypatch.setattr(torch_stack, "MOST_UNROLLED", case.case.inputs.time_steps - 1)
    if name == "sinabs":
        with pytest.raises(Skipped, match="its layers loop over time inside"):
            prepare("sinabs_compiled", job_of(case))
        return
    gradients = expected(job_of(case), CONTESTANTS[name].rule).gradients
    assert difference(result(prepare(f"{name}_compiled", job_of(case))).gradients, gradients) <= GRADIENT_TOLERANCE


def test_a_rule_that_differs_gives_another_loss(case: TrainingCase) -> None:
    # Otherwise the comparison by rule would compare nothing.
    rules = {contestant.rule for contestant in CONTESTANTS.values()}
    assert len({expected(job_of(case), rule).loss for rule in rules}) == len(rules) == 3


def steps(case: TrainingCase, **milliseconds: float) -> list[Step]:
    return [Step(case, name, 2, 1.0, 1.0, 0.0, [ms / 1e3]) for name, ms in milliseconds.items()]


def test_ratios_are_to_the_fastest_library_in_its_better_setting_and_their_mean_is_geometric() -> None:
    # Norse compiled takes 8 ms, four times ours, and Spyx, with ratios of its own, a quarter; in the second case 27 of
    # Norse is nine times ours. The geometric mean of 4 and 9 is 6.
    mlp = build(TRAINED[0], 5, 1)
    measured = steps(mlp, ours=2.0, norse=30.0, norse_compiled=8.0, sinabs=9.0, spyx=0.5)
    measured += steps(mlp.first(1), ours=3.0, norse=27.0)
    lines = report.steps_table(measured).splitlines()
    assert lines[0].split(" | ")[4:] == ["ours", "Norse", "sinabs", "Spyx", "× the fastest", "target", "× Spyx |"]
    assert lines[2].split(" | ")[4:] == ["2.0", "8.0 c", "9.0", "0.5", "4.00 Norse", "≥ 3.5 met", "0.25 |"]
    assert lines[3].split(" | ")[4:] == ["3.0", "27.0", "–", "–", "9.00 Norse", "≥ 3.5 met", " |"]
    assert lines[-3] == "Geometric mean over the fastest: 6.00, target ≥ 4.5 met."
    assert lines[-1] == "Geometric mean over Spyx: 0.25, target ≥ 3 short."


def test_a_quick_run_writes_a_row_for_each_contestant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / "figures.json"
    main(output=figures, quick=True, only=["braille", "ours", "norse"], batch=[2], threads=1)
    assert "| braille, 12-128R-7 LIF, 256 steps | 2 |" in capsys.readouterr().out
    rows = json.loads(figures.read_text())
    assert [row["contestant"] for row in rows] == ["ours", "norse"]
    for row in rows:
        assert row.keys() >= PROMISED
        assert (row["workload"], row["activity"], row["batch"], row["threads"]) == ("braille", 22, 2, 1)
        assert row["step_ms"] > 0
        assert row["loss"] == pytest.approx(row["expected_loss"], abs=LOSS_TOLERANCE)


def test_a_name_that_is_neither_workload_nor_contestant_is_refused_with_those_that_are() -> None:
    with pytest.raises(SystemExit, match=r"^error: --only is 'mnist', expected one of mlp, conv"):
        main(only=["mnist"])


def test_each_method_is_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    x = np.sin(np.arange(24) * (0.4 + 0.5 * y[:, np.newaxis])) + rng.normal(0, 0.1, (60, 24))
    np.savez(tmp_path / "waves.npz", x=x[..., np.newaxis], y=y)
    monkeypatch.setattr("sys.argv", ["series", str(tmp_path / "waves.npz"), "--methods", "kernels", "warping"])
    series.main()
    assert re.search(r"\| waves \| 100\.0 % \| [\d.]+ \| 100\.0 % \| [\d.]+ \|$", capsys.readouterr().out.strip())
