"""The queue of one version of a model: the jobs that wait, and the choice of those for the next run."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from itertools import chain

from spikeserve.models.engines import Stop
from spikeserve.service.catalog.cost import Cost
from spikeserve.service.inference.decoding.pieces import SHORT_BYTES
from spikeserve.service.inference.scheduling.batching import Policy
from spikeserve.service.inference.scheduling.job import Job, Shard, Terms, Work


@dataclass(frozen=True, eq=False)
class Run:
    """Work for a thread: run these shards, which have equal terms, as one batch."""

    shards: list[Shard]
    stop: Stop = field(default_factory=Stop)


class Price(IntEnum):
    """A job's class: SHORT if one run answers it and its answer is short, else LONG; see `Scheduler`."""

    SHORT = 0
    LONG = 1


class Queue:
    """The work that waits for a run, by price and oldest first, and the runs in progress.

    It is used on the event loop only.
    """

    def __init__(self, policy: Policy, cost: Cost, limit: int) -> None:
        self.policy = policy
        self.cost = cost
        self.limit = limit
        self.waiting: tuple[dict[Work, float], ...] = ({}, {})  # in order, and since when
        self.unstarted: set[Job] = set()  # the admitted jobs on which no work has started; `limit` bounds these
        self.running: set[Run] = set()  # the runs in progress

    @property
    def depth(self) -> int:
        """How many admitted jobs no work has started on."""
        return len(self.unstarted)

    def max_samples(self, terms: Terms) -> int:
        """Return how many samples a run of these terms may hold."""
        most = self.policy.max_samples(self.cost, terms.options.time_steps)
        return min(most, self.policy.max_states(terms.model.state_bytes)) if terms.keeps_state else most

    def price(self, work: Work) -> Price:
        """Return the class of some work."""
        short = work.samples <= self.max_samples(work.terms) and work.query.answer_bytes <= SHORT_BYTES
        return Price.SHORT if short else Price.LONG

    def add(self, work: Work, since: float) -> Price:
        """Append work that has waited since `since`; return its class."""
        price = self.price(work)
        self.waiting[price][work] = since
        return price

    def drop(self, work: Work) -> None:
        """Remove work, wherever it waits."""
        for waiting in self.waiting:
            waiting.pop(work, None)

    def stop_unwanted(self, run: Run) -> None:
        """Ask a run that goes on to stop if all its jobs are over."""
        if run in self.running and all(shard.work.job.over for shard in run.shards):
            run.stop.request()

    def take(self, price: Price, now: float) -> Run | None:
        """Return the next run of a class, or None if there is none yet.

        A run that begins with a job of one class may be filled with jobs of the other.
        """
        for first in self.waiting[price]:
            shards, is_full = self._batch(first)
            waits = self.policy.waits and not is_full and any(not run.stop.requested for run in self.running)
            return None if waits else self._run(shards, now)
        return None

    def _run(self, shards: list[Shard], now: float) -> Run:
        for work, _, stop in shards:
            self.drop(work)
            work.started = stop
            if work.left:
                self.add(work, now)  # at the end, so that a long request does not starve the others
        return Run(shards)

    def _batch(self, first: Work) -> tuple[list[Shard], bool]:
        """Return the shards of a run that begins with `first`, and whether the run is full."""
        limit = self.max_samples(first.terms)
        shards = [first.shard(limit)]
        room = limit - min(limit, first.left)
        if first.terms.options.returned:
            return shards, True
        for work in chain(*self.waiting):
            if room <= 0:
                break
            if work is first or work.terms != first.terms or work.left > limit:
                continue
            if work.left > room:
                return shards, True
            shards.append(work.shard(limit))
            room -= work.left
        return shards, room <= 0
