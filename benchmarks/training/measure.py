"""How long each contestant takes for a training step: losses and gradients are compared first, then all take turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.contestants.base import TrainingJob
from benchmarks.measure import Effort, take_turns
from benchmarks.measure import prepare as prepare_all
from benchmarks.training.base import Outcome, Rule
from benchmarks.training.cases import TrainingCase
from benchmarks.training.choose import CONTESTANTS
from benchmarks.training.reference import difference, expected
from benchmarks.workers import Worker
from spikeserve.models.spec.nodes import Spiking

# What the project promises of a step on the same weights: the loss absolutely, the gradients relative to their norm.
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 1e-4


@dataclass(frozen=True)
class Step:
    """One contestant's step on one case: its loss and gradients beside those of its rule, and its times if timed."""

    case: TrainingCase
    contestant: str
    threads: int
    loss: float
    expected_loss: float
    gradient_difference: float
    seconds: Sequence[float] = ()

    @property
    def step_ms(self) -> float:
        """The median time of a step."""
        return float(np.median(self.seconds)) * 1e3

    @property
    def disagreement(self) -> str | None:
        """A sentence where the loss or the gradients are not as they should be, or None."""
        where = f"{self.contestant} on {self.case.case.workload.name} at {self.case.case.input_activity} %"
        # Written so that NaN disagrees.
        if not abs(self.loss - self.expected_loss) <= LOSS_TOLERANCE:
            return f"{where}: the loss is {self.loss}, expected {self.expected_loss} by its rule"
        if not self.gradient_difference <= GRADIENT_TOLERANCE:
            found = f"{self.gradient_difference:.1e}"
            return f"{where}: the gradients differ by {found} of their norm, expected at most {GRADIENT_TOLERANCE}"
        return None

    def row(self) -> dict[str, Any]:
        """Return the figure as it stands in the JSON file; activities are percentages."""
        case = self.case.case
        low, high = np.percentile(self.seconds, [25, 75]) * 1e3
        return {
            "workload": case.workload.name,
            "activity": case.input_activity,
            "batch": case.inputs.batch,
            "contestant": self.contestant,
            "threads": self.threads,
            "step_ms": self.step_ms,
            "loss": self.loss,
            "expected_loss": self.expected_loss,
            "gradient_difference": self.gradient_difference,
            "rule": CONTESTANTS[self.contestant].rule.note or "ours",
            "quartiles_ms": [float(low), float(high)],
            "runs": len(self.seconds),
            "layer_activity": {name: round(100 * share, 2) for name, share in case.activity.items()},
        }


def hidden_activity(case: TrainingCase) -> float:
    """Return the spikes per neuron and step, over all layers but the last."""
    sizes = case.case.network.spec.output_shapes
    hidden = [node.name for node in case.case.network.spec.nodes if isinstance(node, Spiking)][:-1]
    weights = [float(np.prod(sizes[name])) for name in hidden]
    return float(np.average([case.case.activity[name] for name in hidden], weights=weights))


def measure(
    case: TrainingCase, worker: Worker, names: Sequence[str], effort: Effort | None
) -> tuple[list[Step], dict[str, str]]:
    """Compare the losses and gradients of all contestants, then time them in turns unless `effort` is None.

    Returns the figures, and why the contestants without one have none.
    """
    worker.load(case.case.network, case.case.inputs, case.targets)
    ready, absent = prepare_all([worker], names, Effort(rounds=0, least=0, seconds=0) if effort is None else effort)
    seconds = {} if effort is None else take_turns(ready, effort)
    job = TrainingJob(case.case.network, case.case.inputs, worker.threads, case.targets)
    wanted: dict[Rule, Outcome] = {}
    steps = []
    for (name, _), answer in ready.items():
        rule = CONTESTANTS[name].rule
        if rule not in wanted:
            wanted[rule] = expected(job, rule)
        steps.append(
            Step(
                case=case,
                contestant=name,
                threads=worker.threads,
                loss=answer.result.loss,
                expected_loss=wanted[rule].loss,
                gradient_difference=difference(answer.result.gradients, wanted[rule].gradients),
                seconds=seconds.get((name, worker), ()),
            )
        )
    return steps, absent
