"""The contestants by name, in the order in which tables show them, each with the rule that its neurons follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from benchmarks.contestants.base import Skipped
from benchmarks.training.base import OURS, Job, Outcome, Rule, Training


@dataclass(frozen=True)
class Contestant:
    """A library: what must be installed for it, and its neurons' rule. Its file here has its name."""

    title: str
    needs: tuple[str, ...]
    rule: Rule = OURS
    is_rival: bool = True  # the fastest of these is what ours is compared with


CONTESTANTS: Mapping[str, Contestant] = {
    "ours": Contestant("ours", (), is_rival=False),
    # Without the delay, snnTorch passes gradients through the reset and fires by another rule where a membrane is still
    # above its threshold after one.
    "snntorch": Contestant("snnTorch", ("snntorch",), Rule(late_reset=True)),
    "spikingjelly": Contestant("SpikingJelly", ("spikingjelly",)),
    "norse": Contestant("Norse", ("norse",)),
    "sinabs": Contestant("sinabs", ("sinabs",)),
    "spyx": Contestant("Spyx", ("jax", "spyx"), Rule(late_reset=True, late_spike=True, detached=False), is_rival=False),
}


class Run:
    """A contestant that trains on one batch again and again."""

    def __init__(self, training: Training, job: Job) -> None:
        self.training = training
        self._batch: Any = training.load(job.inputs.steps, job.targets)

    def __call__(self) -> float:
        """Take a step and return its loss."""
        return self.training.step(self._batch)


def start(name: str, job: Job) -> Training:
    """Return a contestant with the job's weights; raises Skipped with the reason where it cannot run."""
    for package in CONTESTANTS[name].needs:
        if find_spec(package) is None:
            raise Skipped(f"the package {package} is not installed here")
    training: Training = import_module(f"benchmarks.training.{name}").prepare(job)
    return training


def prepare(name: str, job: Job) -> Run:
    """Return a contestant on the job's batch; raises Skipped with the reason where it cannot run."""
    return Run(start(name, job), job)


def result(run: Run) -> Outcome:
    """Return the loss and the gradients of a step, which are compared before any is timed."""
    loss = run()
    return Outcome(loss, run.training.gradients())
