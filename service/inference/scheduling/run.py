"""One run of an engine: shards of several jobs, computed as one batch on any thread."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter, thread_time
from typing import NamedTuple, TypeAlias

from spikeserve.models.coding import Inputs, join_inputs
from spikeserve.models.engines import State, Stop
from spikeserve.models.errors import InvalidInput, SpikeserveError
from spikeserve.service.inference.scheduling.answer import Results
from spikeserve.service.inference.scheduling.job import Answer, Part, Shard, Terms
from spikeserve.service.inference.scheduling.query import RunOptions

Outcome: TypeAlias = Answer | Part | Exception


class RunOutcome(NamedTuple):
    """The outcome of each shard of a run, how many samples went through the engine, and how many seconds that took."""

    outcomes: list[tuple[Shard, Outcome]]
    samples: int = 0
    seconds: float = 0.0


def compute(shards: Sequence[Shard], stop: Stop | None = None) -> RunOutcome:
    """Run shards of equal terms as one batch. An invalid shard fails alone. Raises Stopped."""
    taken: list[Shard] = []
    inputs: list[Inputs] = []
    outcomes: list[tuple[Shard, Outcome]] = []
    for shard in shards:
        if shard.work.job.over:
            continue
        try:
            inputs.append(shard.work.inputs(shard.start, shard.stop))
            taken.append(shard)
        except SpikeserveError as error:
            outcomes.append((shard, error))
    if not taken:
        return RunOutcome(outcomes)
    batch, terms, after = join_inputs(inputs), taken[0].work.terms, None
    started, began = perf_counter(), thread_time()
    try:
        if terms.keeps_state:
            result, after = terms.model.engine.run(batch, _joined_states(taken), record=terms.record, stop=stop)
        else:
            result = terms.model.run(batch, terms.options.stop, terms.record, stop)
    except InvalidInput as error:  # such as of a neuron that fires too often
        if len(taken) == 1:
            return RunOutcome([*outcomes, (taken[0], error)])
        alone = [compute([shard], stop) for shard in taken]
        outcomes += [outcome for each in alone for outcome in each.outcomes]
        return RunOutcome(outcomes, sum(each.samples for each in alone), sum(each.seconds for each in alone))
    ended = perf_counter()
    if terms == Terms(terms.model, RunOptions(terms.options.time_steps)):
        operations = int(result.synaptic_operations.sum())
        terms.model.cost.took(thread_time() - began, operations, batch.batch * batch.time_steps)
    results, end = Results(result, terms.model.spec), 0
    for shard in taken:
        shard.work.job.times.ran(started, ended)
        start, end = end, end + shard.stop - shard.start
        # A copy, so that not all the batch is kept.
        state = after if after is None or len(taken) == 1 else after.copied(start, end)
        outcomes.append((shard, shard.work.outcome(results, slice(start, end), state)))
    return RunOutcome(outcomes, batch.batch, ended - started)


def _joined_states(shards: Sequence[Shard]) -> State | None:
    """Return the states that shards go on from as those of one batch; None where all begin at rest."""
    states = [shard.work.state for shard in shards]
    if all(state is None for state in states):
        return None
    network = shards[0].work.terms.model.network
    return State.joined([State.rest(network, 1) if state is None else state for state in states])
