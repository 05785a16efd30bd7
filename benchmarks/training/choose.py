"""The contestants by name, in the order in which tables show them, each with the rule that its neurons follow.

Every PyTorch library has two settings, as it is and under torch.compile, of which the faster counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from benchmarks.contestants.base import Skipped, TrainingJob
from benchmarks.training.base import OURS, Outcome, Rule, Training


@dataclass(frozen=True)
class Contestant:
    """A library in a setting: its module, what must be installed for it, and its neurons' rule."""

    title: str
    module: str
    needs: tuple[str, ...] = ()
    rule: Rule = OURS
    is_compiled: bool = False

    @property
    def is_rival(self) -> bool:
        """Whether ours is compared with it: with the fastest of the PyTorch libraries."""
        return self in RIVALS


# Without the delay, snnTorch passes gradients through the reset, and fires by another rule where a membrane is still
# above its threshold after one.
SNNTORCH = Contestant("snnTorch", "snntorch", ("snntorch",), Rule(late_reset=True))
LIBRARIES = (
    SNNTORCH,
    Contestant("SpikingJelly", "spikingjelly", ("spikingjelly",)),
    Contestant("Norse", "norse", ("norse",)),
    Contestant("sinabs", "sinabs", ("sinabs",)),
)
COMPILED = tuple(replace(library, is_compiled=True) for library in LIBRARIES)
RIVALS = LIBRARIES + COMPILED
SPYX = Contestant("Spyx", "spyx", ("jax", "spyx"), Rule(late_reset=True, late_spike=True, detached=False))

CONTESTANTS: Mapping[str, Contestant] = {
    "ours": Contestant("ours", "ours"),
    **{library.module: library for library in LIBRARIES},
    **{f"{library.module}_compiled": library for library in COMPILED},
    "spyx": SPYX,
}


class Run:
    """A contestant that trains on one batch again and again."""

    def __init__(self, training: Training, job: TrainingJob) -> None:
        self.training = training
        self._batch: Any = training.load(job.inputs.steps, job.targets)

    def __call__(self) -> float:
        """Take a step and return its loss."""
        return self.training.step(self._batch)


def start(name: str, job: TrainingJob) -> Training:
    """Return a contestant with the job's weights; raises Skipped with the reason where it cannot run."""
    contestant = CONTESTANTS[name]
    for package in contestant.needs:
        if find_spec(package) is None:
            raise Skipped(f"the package {package} is not installed here")
    if contestant.is_compiled:
        _forget_networks_before(job)
        job = replace(job, is_compiled=True)
    if contestant in RIVALS:
        from benchmarks.contestants.torch_stack import training

        return training(job, import_module(f"benchmarks.contestants.{contestant.module}").LIBRARY)
    own: Training = import_module(f"benchmarks.training.{contestant.module}").prepare(job)
    return own


_compiled_last: list[TrainingJob] = []


def _forget_networks_before(job: TrainingJob) -> None:
    """Empty the caches of torch.compile, for which each further network is a recompilation, of which it allows few."""
    if not any(each is job for each in _compiled_last):
        import_module("torch").compiler.reset()
        _compiled_last[:] = [job]


def prepare(name: str, job: TrainingJob) -> Run:
    """Return a contestant on the job's batch; raises Skipped with the reason where it cannot run."""
    return Run(start(name, job), job)


def result(run: Run) -> Outcome:
    """Return the loss and the gradients of a step, which are compared before any is timed."""
    loss = run()
    return Outcome(loss, run.training.gradients())
