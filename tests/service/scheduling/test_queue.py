"""What a run takes from a queue, whatever waits there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from spikeserve.service.catalog.cost import Cost
from spikeserve.service.inference.scheduling.batching import Policy
from spikeserve.service.inference.scheduling.job import Decoded, Terms
from spikeserve.service.inference.scheduling.query import Query, Returned, RunOptions
from spikeserve.service.inference.scheduling.queue import Queue

MODELS = [SimpleNamespace(shares_runs=shares, state_bytes=16) for shares in (True, False)]
RETURNED = [frozenset[Returned](), frozenset[Returned](), frozenset({Returned.RASTER})]
TERMS = st.builds(
    Terms,
    st.sampled_from(MODELS),
    st.builds(RunOptions, st.sampled_from([1, 3]), returned=st.sampled_from(RETURNED)),
    st.booleans(),
)


@st.composite
def jobs(draw: st.DrawFn) -> list[Decoded[Any]]:
    """Return jobs that wait, some of which have samples in runs already."""
    made, few = [], st.sampled_from(draw(st.lists(TERMS, min_size=1, max_size=2)))
    for terms, samples in draw(st.lists(st.tuples(few, st.integers(1, 9)), min_size=1, max_size=8)):
        query = Query(cast("Any", range(samples)), terms.options, draw(st.sampled_from([10, 2**20])))
        made.append(Decoded(cast("Any", None), terms, cast("Any", None), query))
        made[-1].started = draw(st.integers(0, samples - 1))
    return made


@given(jobs(), st.integers(1, 16), st.sampled_from([16, 64, 2**20]))
def test_a_run_keeps_its_limit_and_leaves_none_that_fit(
    waiting: list[Decoded[Any]], most: int, joined_bytes: int
) -> None:
    queue = Queue(Policy(most, 0.01, joined_bytes=joined_bytes), Cost(4e-4, 0, 0), len(waiting))
    for work in waiting:
        queue.add(work, 0.0)
    first = waiting[0]
    limit = queue.max_samples(first.terms)
    shards, full = queue._batch(first)
    samples = sum(stop - start for _, start, stop in shards)
    assert shards[0].work is first
    assert samples == min(limit, first.left) + sum(each.work.left for each in shards[1:])
    assert samples <= limit
    assert all(each.work.terms == first.terms for each in shards)
    assert len({id(each.work) for each in shards}) == len(shards)
    # Another job of these terms that fits was left only where one before it did not.
    assert full or all(
        each.terms != first.terms or each.left > limit or any(shard.work is each for shard in shards)
        for each in waiting
    )
