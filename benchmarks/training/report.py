"""What a person sees: the steps with their ratios, and how far losses and gradients agree, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from benchmarks.tables import geometric_mean, markdown, verdict
from benchmarks.training.choose import CONTESTANTS
from benchmarks.training.learning import GOAL, Learned
from benchmarks.training.measure import Step, hidden_activity
from benchmarks.workloads import Workload

TITLES = tuple(dict.fromkeys(contestant.title for contestant in CONTESTANTS.values()))
OURS, SPYX = CONTESTANTS["ours"].title, CONTESTANTS["spyx"].title


MEAN_TARGET, SPYX_TARGET = 4.5, 3.0  # of the geometric mean of all, over the PyTorch libraries and over Spyx


def target(workload: Workload, activity: object) -> float:
    """Return how many times as fast ours is to be as the fastest of the PyTorch libraries."""
    if any(node.get("recurrent") for node in workload.nodes):
        return 5.0
    return 3.5 if workload.name == "mlp" and activity != 15 else 2.0


def steps_table(steps: Sequence[Step]) -> str:
    """Return every case's medians in milliseconds, and how many times as fast ours is as the fastest rival and Spyx."""
    titles = [title for title in TITLES if any(CONTESTANTS[step.contestant].title == title for step in steps)]
    rows, ratios, over_spyx, compiled = [], [], list[float](), False
    for _, group in groupby(steps, key=lambda step: id(step.case)):
        fastest: dict[str, Step] = {}  # each library in its better setting
        for step in sorted(group, key=lambda step: step.step_ms):
            fastest.setdefault(CONTESTANTS[step.contestant].title, step)
        case = next(iter(fastest.values())).case
        workload = case.case.workload
        cells = ["", "", ""]
        rivals = [step for step in fastest.values() if CONTESTANTS[step.contestant].is_rival]
        if rivals and OURS in fastest:
            ratio, wanted = rivals[0].step_ms / fastest[OURS].step_ms, target(workload, case.case.input_activity)
            ratios.append(ratio)
            cells = [
                f"{ratio:.2f} {CONTESTANTS[rivals[0].contestant].title}",
                f"≥ {wanted:g} {verdict(ratio, wanted)}",
                "",
            ]
        if SPYX in fastest and OURS in fastest:
            over_spyx.append(fastest[SPYX].step_ms / fastest[OURS].step_ms)
            cells[2] = f"{over_spyx[-1]:.2f}"
        compiled = compiled or any(CONTESTANTS[step.contestant].is_compiled for step in fastest.values())
        rows.append(
            [
                f"{workload.name}, {workload.title}, {workload.time_steps} steps",
                str(case.case.inputs.batch),
                f"{case.case.activity['input']:.1%}",
                f"{hidden_activity(case):.1%}",
                *(_time(fastest[title]) if title in fastest else "–" for title in titles),
                *cells,
            ]
        )
    table = markdown(["workload", "batch", "input", "hidden", *titles, "× the fastest", "target", "× Spyx"], rows)
    notes = ["", "c: under torch.compile, where that was faster."] if compiled else []
    for whom, found, wanted in (("the fastest", ratios, MEAN_TARGET), (SPYX, over_spyx, SPYX_TARGET)):
        if found:
            mean = geometric_mean(found)
            notes += ["", f"Geometric mean over {whom}: {mean:.2f}, target ≥ {wanted:g} {verdict(mean, wanted)}."]
    return "\n".join([table, *notes])


def _time(step: Step) -> str:
    return f"{step.step_ms:.1f}{' c' if CONTESTANTS[step.contestant].is_compiled else ''}"


def agreement_table(steps: Sequence[Step]) -> str:
    """Return each library's rule, and its largest differences from the loss and the gradients of that rule."""
    rows = []
    for title in TITLES:
        own = [step for step in steps if CONTESTANTS[step.contestant].title == title]
        if own:
            rows.append(
                [
                    title,
                    CONTESTANTS[own[0].contestant].rule.note or "ours",
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
