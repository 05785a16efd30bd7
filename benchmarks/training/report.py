"""What a person sees: the steps with their ratios, and how far losses and gradients agree, as Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from benchmarks.training.choose import CONTESTANTS
from benchmarks.training.learning import GOAL, Learned
from benchmarks.training.measure import Step, hidden_activity
from benchmarks.training.workloads import MEAN_TARGET, target


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Return a table whose first `left` columns are words and whose others are figures."""
    rule = ["---" if column < left else "---:" for column in range(len(headings))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (headings, rule, *rows))


def steps_table(steps: Sequence[Step]) -> str:
    """Return every case's medians in milliseconds, and how many times as fast ours is as the fastest rival."""
    shown = [name for name in CONTESTANTS if any(step.contestant == name for step in steps)]
    rows, ratios = [], []
    for _, group in groupby(steps, key=lambda step: id(step.case)):
        times = {step.contestant: step for step in group}
        case = next(iter(times.values())).case
        workload, activity = case.case.workload, case.case.input_activity
        rivals = {name: step.step_ms for name, step in times.items() if CONTESTANTS[name].is_rival}
        cells = ["", ""]
        if rivals and "ours" in times:
            fastest = min(rivals, key=lambda name: rivals[name])
            ratio, wanted = rivals[fastest] / times["ours"].step_ms, target(workload, activity)
            ratios.append(ratio)
            cells = [f"{ratio:.2f} {CONTESTANTS[fastest].title}", f"≥ {wanted:g} {_verdict(ratio, wanted)}"]
        rows.append(
            [
                f"{workload.name}, {workload.title}, {workload.time_steps} steps",
                str(case.case.inputs.batch),
                f"{case.case.activity['input']:.1%}",
                f"{hidden_activity(case):.1%}",
                *(f"{times[name].step_ms:.1f}" if name in times else "–" for name in shown),
                *cells,
            ]
        )
    titles = [CONTESTANTS[name].title for name in shown]
    table = markdown(["workload", "batch", "input", "hidden", *titles, "× the fastest", "target"], rows)
    if not ratios:
        return table
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    return f"{table}\n\nGeometric mean: {mean:.2f}, target ≥ {MEAN_TARGET:g} {_verdict(mean, MEAN_TARGET)}."


def _verdict(ratio: float, wanted: float) -> str:
    return "met" if ratio >= wanted else "short"


def agreement_table(steps: Sequence[Step]) -> str:
    """Return each contestant's rule, and its largest differences from the loss and the gradients of that rule."""
    rows = []
    for name, contestant in CONTESTANTS.items():
        own = [step for step in steps if step.contestant == name]
        if own:
            rows.append(
                [
                    contestant.title,
                    contestant.rule.note or "ours",
                    f"{max(abs(step.loss - step.expected_loss) for step in own):.1e}",
                    f"{max(step.gradient_difference for step in own):.1e}",
                ]
            )
    return markdown(["contestant", "neuron's rule", "loss differs by", "gradients differ by"], rows, left=2)


def learning_table(learned: Sequence[Learned]) -> str:
    """Return how many epochs each contestant took to the goal, and how good it was in the end."""
    rows = [
        [
            CONTESTANTS[each.contestant].title,
            ", ".join("–" if epochs is None else str(epochs) for epochs in each.epochs_to_goal),
            f"{each.mean_accuracy:.1%}",
        ]
        for each in learned
    ]
    return markdown(["contestant", f"epochs to {GOAL:.0%}, by seed", "accuracy after the last, mean"], rows)
