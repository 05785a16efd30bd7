"""The queue of one version of a model: the jobs that wait, and which of them the next run takes."""

from __future__ import annotations

from asyncio import TimerHandle
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import chain

from spikeserve.models.engines import Stop
from spikeserve.service.catalog.cost import Cost
from spikeserve.service.inference.decoding.pieces import SHORT_BYTES
from spikeserve.service.inference.scheduling.batching import Policy
from spikeserve.service.inference.scheduling.job import AnyJob
from spikeserve.service.inference.scheduling.run import Shard

REPORT_RUNS = 12  # runs that a run with reports takes as long as, at most, as measured: docs/report.md


@dataclass(frozen=True)
class Encode:
    """Work for a thread: encode a job that has more samples than one run holds."""

    job: AnyJob


@dataclass(frozen=True, eq=False)
class Run:
    """Work for a thread: run these shards as one batch; they have equal time steps and one rule of stopping."""

    shards: list[Shard]
    stop: Stop = field(default_factory=Stop)

    def stop_if_unwanted(self) -> None:
        """Ask the run to stop if all its jobs are over."""
        if all(shard.job.over for shard in self.shards):
            self.stop.request()


class Price(IntEnum):
    """A job's class: SHORT if one run answers it and its answer is short, else LONG; see `Scheduler`."""

    SHORT = 0
    LONG = 1


class Queue:
    """The decoded jobs that wait, by price and oldest first, and the runs in progress.

    Only the event loop touches it.
    """

    def __init__(self, policy: Policy, cost: Cost, limit: int) -> None:
        self.policy = policy
        self.cost = cost
        self.limit = limit
        self.waiting: tuple[dict[AnyJob, None], ...] = ({}, {})  # ordered sets, since any job may leave at any time
        self.unstarted: set[AnyJob] = set()  # the admitted jobs on which no work has started; `limit` bounds these
        self.running: set[Run] = set()  # the runs in progress
        self.timer: TimerHandle | None = None  # starts a run that waits for more requests, without them

    @property
    def depth(self) -> int:
        """How many admitted jobs no work has started on."""
        return len(self.unstarted)

    def max_samples(self, job: AnyJob) -> int:
        """Return how many samples a run of the job's time steps may hold; fewer where it makes a report of each."""
        most = self.policy.max_samples(self.cost, job.time_steps * (REPORT_RUNS if job.reports else 1))
        return min(most, self.policy.max_states(job.model.state_bytes)) if job.keeps_state else most

    def price(self, job: AnyJob) -> Price:
        """Return the class of a decoded job."""
        short = job.samples <= self.max_samples(job) and job.answer_size <= SHORT_BYTES
        return Price.SHORT if short else Price.LONG

    def add(self, job: AnyJob, since: float) -> Price:
        """Append a decoded job that has waited since `since`; return its class."""
        job.since = since
        price = self.price(job)
        self.waiting[price][job] = None
        return price

    def drop(self, job: AnyJob) -> None:
        """Remove a job, wherever it waits."""
        for waiting in self.waiting:
            waiting.pop(job, None)
        if not any(self.waiting):
            self.stop_timer()

    def stop_timer(self) -> None:
        """Have no run started by the time alone."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def take(self, price: Price, now: float, *, may_encode: bool) -> Encode | Run | float | None:
        """Return the next work of a class, or for how many seconds to wait for more requests, or None if there is none.

        A run that begins with a job of one class may be filled with jobs of the other.
        """
        line = self.waiting[price]
        for first in line:
            if first.inputs is None and first.samples > self.max_samples(first):
                if may_encode:
                    del line[first]
                    return Encode(first)
                continue
            shards, full = self._batch(first)
            delay = self.policy.delay(idle=not self.running, full=full, waited=now - first.since)
            return delay if delay > 0 else self._run(shards, now)
        return None

    def _run(self, shards: list[Shard], now: float) -> Run:
        for shard in shards:
            self.drop(shard.job)
            shard.job.started = shard.stop
            if shard.stop < shard.job.samples:
                self.add(shard.job, now)  # at the end, so that a long request does not starve the others
        return Run(shards)

    def _batch(self, first: AnyJob) -> tuple[list[Shard], bool]:
        """Return the shards of a run that begins with `first`, and whether the run is full."""
        limit = self.max_samples(first)
        shards = [Shard(first, first.started, min(first.samples, first.started + limit))]
        room = limit - (shards[0].stop - shards[0].start)
        for job in chain(*self.waiting):
            if room <= 0:
                break
            if job is first or not job.may_share_a_run(first):
                continue
            if job.inputs is None and job.samples > limit:
                continue  # it is to be encoded first
            left = job.samples - job.started
            if left > room:
                return shards, True
            shards.append(Shard(job, job.started, job.samples))
            room -= left
        return shards, room <= 0 or first.needs_own_run
