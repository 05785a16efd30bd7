"""Anytime answers: a run in slices of steps, in which each sample ends as soon as a rule says that its class is found.

    decided     no remaining step can change the class, whatever the spikes: what every later answer would be
    confident   the class leads by more than the remaining steps were found to make up for, on a model's validation
                samples

Both compare the lead of the first class, in what the answer is read from, with the steps that remain. For `decided` a
step is worth the most spikes that an output neuron can fire in it. For `confident` it is worth the `threshold` of a
`Calibration`, a number between that and 0. To end a sample by the gap of its two highest outputs is the cutoff of Wu,
Yi and Huang, "Optimising Event-Driven Spiking Neural Network with Regularisation and Cutoff" (2023); they compare the
gap with one number for each step, where this one falls as the remaining steps do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from spikeserve.models.coding import Inputs
from spikeserve.models.engines import base
from spikeserve.models.engines.base import Counts, Ending, Engine, Record, RunResult, State, Stop
from spikeserve.models.engines.fan_out import constant_operations
from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec import Readout, Spec
from spikeserve.models.spec.nodes import Spiking
from spikeserve.models.spec.parameters import MAX_STEPS, FrozenModel

PARTS = 8  # the second slice of a run that is to be decided is such a part of it: a look costs the overhead of a run

MEANS = (Readout.MEAN, Readout.MEAN_MEMBRANE)
OF_COUNTS = (Readout.SPIKE_COUNT, Readout.SUM, Readout.MEAN)

Flags = NDArray[np.bool_]
StepCount = Annotated[int, Field(ge=1, le=MAX_STEPS)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class StopRule(StrEnum):
    """When a sample may end before its last step."""

    DECIDED = "decided"
    CONFIDENT = "confident"


class Calibration(FrozenModel):
    """What `confident` of one model does, and what it was measured to save and to lose on validation samples.

    A run of `time_steps` steps is looked at after `first` steps, after `then` more, and so on, see `checks`. A sample
    ends where its lead is at least `threshold` for each remaining step. Of `samples` validation samples, whole runs
    answered `accuracy` right, and `lost` of all were right in a whole run and wrong when they ended early; `target` is
    the share that was allowed, and no more of `training_samples` training samples were lost. `changed` of the
    validation samples got another class, right or wrong. They took `mean_steps` on average.
    """

    threshold: Annotated[float, Field(ge=0.0)]
    first: StepCount
    then: StepCount
    time_steps: StepCount
    samples: Annotated[int, Field(ge=1)]
    training_samples: Annotated[int, Field(ge=0)] = 0
    accuracy: Share
    target: Share
    lost: Share
    changed: Share
    mean_steps: Annotated[float, Field(ge=1.0, le=MAX_STEPS)]

    @property
    def checks(self) -> tuple[int, ...]:
        """After how many steps samples may end, ascending; the last is the end of the run."""
        return checks(self.first, self.then, self.time_steps)


def checks(first: int, next_steps: int, time_steps: int) -> tuple[int, ...]:
    """Return after how many steps a run is looked at: after `first`, after the next ones, and at its end.

    Each slice after the second is twice as long as the one before: most samples end early, and those that are left in a
    batch are so few that a slice costs little more than the overhead of a run.
    """
    looks, upto = [], first
    while upto < time_steps:
        looks.append(upto)
        upto, next_steps = upto + next_steps, 2 * next_steps
    return (*looks, time_steps)


@lru_cache
def _looks(first: int, next_steps: int, time_steps: int) -> NDArray[np.int64]:
    return np.array(checks(first, next_steps, time_steps))


def most_spikes(spec: Spec) -> int | None:
    """Return how many spikes a step can add at most to a class of what is read; None where there is no such bound.

    There is one where spikes are counted, also as their sum or mean, and a neuron fires at most once a step. A membrane
    has no bound that would help: if all its inputs fired for a few steps, they could add more than it holds.
    """
    read = spec.readout_node
    fires_once = isinstance(read, Spiking) and not read.several
    return 1 if fires_once and spec.readout in OF_COUNTS else None


def lead(readout: NDArray[Any], taken: int, spec: Spec) -> NDArray[np.float64]:
    """Return how far the first class is before the second, (batch,), for a readout (batch, classes) of `taken` steps.

    A mean's is that of its sum, to which each step adds alike.
    """
    if readout.shape[1] == 1:
        return np.full(len(readout), np.inf)
    highest = np.partition(readout.astype(np.float64), -2, axis=1)
    ahead: NDArray[np.float64] = highest[:, -1] - highest[:, -2]
    return ahead * taken if spec.readout in MEANS else ahead


class Rule(Protocol):
    """A rule of stopping for runs of some number of steps."""

    @property
    def checks(self) -> Sequence[int]:
        """After how many steps it is asked, ascending; the last is the end of the run, where it is not."""

    def ended(self, result: RunResult, taken: int) -> Flags:
        """Return which samples end after `taken` steps, (batch,), by their last slice's result."""


class EndingRule(NamedTuple):
    """A rule that an engine may ask by itself."""

    spec: Spec
    ending: Ending

    @property
    def checks(self) -> tuple[int, ...]:
        """Its looks."""
        return tuple(self.ending.looks.tolist())

    def ended(self, result: RunResult, taken: int) -> Flags:
        """Return which samples end after `taken` steps."""
        _, by, worth = self.ending
        remaining, readout, counts = self.checks[-1] - taken, result.readout, result.spike_counts
        if by == base.BY_SPIKE:
            fired: Flags = readout.max(axis=1) > 0
            return fired
        if by == base.BY_LEAD:
            return lead(readout, taken, self.spec) >= worth * remaining
        if by == base.NEVER:
            return np.zeros(len(readout), np.bool_)
        samples, first = np.arange(len(counts)), counts.argmax(axis=1)
        possible = counts + int(worth) * remaining
        possible[samples, first] = -1
        rival = possible.argmax(axis=1)  # the lowest index of those that could get the most
        ahead = counts[samples, first] - possible[samples, rival]
        ends: Flags = (ahead > 0) | ((ahead == 0) & (first < rival))
        return ends


def decided(spec: Spec, time_steps: int) -> EndingRule:
    """Make the rule that ends samples whose class no remaining step can change.

    A count of n spikes stays below one of m if n plus the most of the remaining steps is less than m, or equal where
    m's class has the lower index, which wins ties. It is asked from the half of the run on, up to which no lead can be
    more than what remains. Of first spikes, the earliest is not overtaken. Other readouts run to their end.
    """
    part, most = -(-time_steps // PARTS), most_spikes(spec)
    if spec.readout is Readout.FIRST_SPIKE:
        looks, by = _looks(part, part, time_steps), base.BY_SPIKE
    elif most is None:
        looks, by = _looks(time_steps, part, time_steps), base.NEVER
    else:
        looks, by = _looks(min(time_steps // 2 + 1, time_steps), part, time_steps), base.BY_COUNT
    return EndingRule(spec, Ending(looks, by, most or 0.0))


def confident(spec: Spec, calibration: Calibration) -> EndingRule:
    """Make the rule that ends samples by a model's calibration."""
    looks = _looks(calibration.first, calibration.then, calibration.time_steps)
    return EndingRule(spec, Ending(looks, base.BY_LEAD, calibration.threshold))


def check_rule(
    rule: StopRule, spec: Spec, calibration: Calibration | None, time_steps: int, where: str = "stop"
) -> None:
    """Raise InvalidInput if samples of a model cannot end by a rule in runs of so many steps.

    `where` is the name of the field that asks for the rule.
    """
    if spec.scores.has_classes and rule is StopRule.DECIDED:
        return
    asked = f"{where} is '{rule}', but"
    if not spec.scores.has_classes:
        raise InvalidInput(f"{asked} the model gives values and no classes")
    if calibration is None:
        raise InvalidInput(f"{asked} the model has no calibration for it, expected 'decided', or no stop")
    if time_steps != calibration.time_steps:
        raise InvalidInput(
            f"{asked} time_steps is {time_steps}, and the model is calibrated for {calibration.time_steps}"
        )


def run_anytime(
    engine: Engine,
    inputs: Inputs,
    rule: StopRule,
    calibration: Calibration | None = None,
    record: Record = Record.NONE,
    stop: Stop | None = None,
) -> RunResult:
    """Run every sample from rest until it ends by a rule, and return the results in the order of the samples.

    Each is that of a run of its `steps_used` first steps, to the bit. Raises InvalidInput as `check_rule` does, and the
    errors of the engine.
    """
    spec = engine.spec
    check_rule(rule, spec, calibration, inputs.time_steps)
    if rule is StopRule.CONFIDENT and calibration is not None:
        return run_until(engine, inputs, confident(spec, calibration), record, stop)
    return run_until(engine, inputs, decided(spec, inputs.time_steps), record, stop)


def run_until(
    engine: Engine, inputs: Inputs, rule: Rule, record: Record = Record.NONE, stop: Stop | None = None
) -> RunResult:
    """Run samples from rest until each has ended by `rule`; see `run_anytime`."""
    if isinstance(rule, EndingRule) and not record:
        return engine.answer(inputs, rule.ending, stop=stop)
    return run_slices(engine, inputs, rule, record, stop)


def run_slices(
    engine: Engine, inputs: Inputs, rule: Rule, record: Record = Record.NONE, stop: Stop | None = None
) -> RunResult:
    """Run samples from rest in slices until each has ended by `rule`."""
    waiting = inputs
    places: NDArray[np.intp] = np.arange(inputs.batch)  # in the batch, of the samples that have not ended
    state: State | None = None
    slices: list[Slice] = []
    taken = 0
    for upto in rule.checks:
        result, state = engine.run(waiting.between(0, upto - taken), state, record=record, stop=stop)
        slices.append(Slice(taken, upto, places, result))
        if upto == inputs.time_steps:
            break
        left = np.flatnonzero(~rule.ended(result, upto))
        if not left.size:
            break
        waiting = waiting.between(upto - taken, waiting.time_steps)
        if left.size < places.size:
            waiting, places, state = waiting[left], places[left], state[left]
        taken = upto
    constant = constant_operations(engine.network, inputs.dense().steps) if inputs.constant and slices[1:] else None
    return joined_steps(slices, constant)


class Slice(NamedTuple):
    """The steps from `begin` to `end` of the samples at `places` in the batch, and their result."""

    begin: int
    end: int
    places: NDArray[np.intp]
    result: RunResult


def joined_steps(slices: Sequence[Slice], constant: Counts | None = None) -> RunResult:
    """Return the result of all samples, all of which are in the first slice.

    `constant` (batch,) are the operations that each slice has counted again, None if there are none.
    """
    first, *later = slices
    used = np.full(len(first.places), first.end, np.int64)
    if not later:
        return replace(first.result, steps_used=used)
    whole = first.result
    counts, readout = whole.spike_counts.copy(), whole.readout.copy()  # which may be a state's too
    operations = whole.synaptic_operations.copy()
    spikes = {name: fired.copy() for name, fired in whole.spikes_per_node.items()}
    for _, end, places, result in later:
        counts[places], readout[places], used[places] = result.spike_counts, result.readout, end
        operations[places] += result.synaptic_operations - (0 if constant is None else constant[places])
        for name, fired in result.spikes_per_node.items():
            spikes[name][places] += fired
    rasters = {name: _recorded(slices, name, "rasters") for name in whole.rasters}
    membranes = {name: _recorded(slices, name, "membranes") for name in whole.membranes}
    return RunResult(counts, readout, operations, spikes, rasters, membranes, used)


def _recorded(slices: Sequence[Slice], name: str, kind: Literal["rasters", "membranes"]) -> NDArray[Any]:
    """Return the recording of a node, with zeros where a sample took no step."""
    recorded = [getattr(each.result, kind)[name] for each in slices]
    whole = np.zeros((slices[-1].end, *recorded[0].shape[1:]), recorded[0].dtype)
    for each, steps in zip(slices, recorded, strict=True):
        whole[each.begin : each.end, each.places] = steps
    return whole
