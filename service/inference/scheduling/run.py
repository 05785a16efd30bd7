"""One run of an engine: shards of several requests, computed as one batch on any thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NamedTuple

from spikeserve.models.coding import Inputs, join_inputs
from spikeserve.models.engines import RunResult, State, Stop
from spikeserve.models.errors import InvalidInput, SpikeserveError
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.inference.scheduling.job import Answer, AnyJob
from spikeserve.service.inference.scheduling.slices import Sliced


@dataclass(frozen=True)
class Shard:
    """The samples of a job from `start` to `stop`: all of them, unless the job is split."""

    job: AnyJob
    start: int
    stop: int

    def inputs(self, whole: Inputs) -> Inputs:
        """Return this shard's part of the job's inputs, `whole`."""
        return whole if self.start == 0 and self.stop == whole.batch else whole[self.start : self.stop]


class Outcome(NamedTuple):
    """The outcome of a run for one job: an answer, the whole result of a long one, a slice's, an error, or none yet."""

    job: AnyJob
    answer: Answer[Any] | RunResult | Sliced | None = None
    error: Exception | None = None


class Computed(NamedTuple):
    """The outcomes of a run, how many samples went through the engine, and how many seconds that took."""

    outcomes: list[Outcome]
    samples: int = 0
    seconds: float = 0.0


def compute(model: LoadedModel, shards: Sequence[Shard], stop: Stop | None = None) -> Computed:
    """Run shards of equal time steps and one rule as one batch. An invalid shard fails alone. Raises Stopped."""
    taken: list[Shard] = []
    inputs: list[Inputs] = []
    outcomes: list[Outcome] = []
    for shard in shards:
        job = shard.job
        if job.over:
            continue
        try:
            if (whole := job.run_inputs()) is not None:
                inputs.append(shard.inputs(whole))
                taken.append(shard)
        except SpikeserveError as error:
            outcomes.append(Outcome(job, error=error))
    if not taken:
        return Computed(outcomes)
    batch = join_inputs(inputs)
    started = perf_counter()
    try:
        if taken[0].job.keeps_state:
            before = _joined_states(model, taken)
            result, after = model.engine.run(batch, before, record=taken[0].job.record, stop=stop)
        else:
            job, after = taken[0].job, None
            run = model.run_reported if job.reports else model.run
            result = run(batch, job.stop, job.record, stop)
    except InvalidInput as error:  # raised by an external ONNX model that cannot answer one of the samples
        if len(taken) == 1:
            return Computed([*outcomes, Outcome(taken[0].job, error=error)])
        alone = [compute(model, [shard], stop) for shard in taken]
        outcomes += [outcome for each in alone for outcome in each.outcomes]
        return Computed(outcomes, sum(each.samples for each in alone), sum(each.seconds for each in alone))
    ended = perf_counter()
    end = 0
    for shard in taken:
        shard.job.times.ran(started, ended)
        start, end = end, end + shard.stop - shard.start
        own = result if len(taken) == 1 else result[start:end]
        if after is not None:
            shard.job.after = after if len(taken) == 1 else after.copied(start, end)  # not all the batch is kept
        outcomes.append(Outcome(shard.job, shard.job.complete(shard.start, own)))
    return Computed(outcomes, batch.batch, ended - started)


def _joined_states(model: LoadedModel, shards: Sequence[Shard]) -> State | None:
    """Return the states that slices go on from as those of one batch; None where all begin at rest."""
    states = [shard.job.state for shard in shards]
    if all(state is None for state in states):
        return None
    network = model.network
    return State.joined([State.rest(network, 1) if state is None else state for state in states])


def failed(shards: Sequence[Shard], error: Exception) -> Computed:
    """Return the outcome of a run in which every shard failed with `error`."""
    return Computed([Outcome(shard.job, error=error) for shard in shards])
