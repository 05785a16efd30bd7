"""What the engines of dense arrays share: events come to them some steps at a time, so that no whole raster is made.

A run that is cut anywhere gives the bits of one that is not, which makes this exact; see `models.engines.state`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from spikeserve.models.coding import DenseInputs, EventInputs, Inputs
from spikeserve.models.engines.anytime import EndingRule, Slice, joined_steps, run_slices
from spikeserve.models.engines.base import Counts, Ending, Record, RunResult, Stop, joined
from spikeserve.models.engines.state import State, check_state, output_spikes
from spikeserve.models.spec import Spec
from spikeserve.models.spec.network import Network

BLOCK_BYTES = 2**24  # of the dense inputs that are there at once, unless one step of a batch takes more


class DenseEngine(ABC):
    """An engine of dense arrays, for `network`, whose calls may take so many `threads`."""

    name: str
    batches, is_bounded = True, False

    def __init__(self, network: Network, threads: int = 1) -> None:
        self.network, self.threads = network, threads
        self.spec: Spec = network.spec

    @abstractmethod
    def run_dense(
        self, inputs: DenseInputs, state: State | None, record: Record, stop: Stop | None
    ) -> tuple[RunResult, State]:
        """Run every sample on from `state`, which fits, or from rest."""

    def run(
        self, inputs: Inputs, state: State | None = None, *, record: Record = Record.NONE, stop: Stop | None = None
    ) -> tuple[RunResult, State]:
        """Run every sample on from `state`, or from rest; see `Engine.run`.

        Events are run in blocks of steps, of at most BLOCK_BYTES where a step takes no more.
        """
        check_state(state, self.network, inputs.batch, inputs.time_steps)
        if not isinstance(inputs, EventInputs):
            return self.run_dense(inputs, state, record, stop)
        fit = max(1, BLOCK_BYTES // max(1, 4 * inputs.batch * math.prod(inputs.shape)))
        slices: list[Slice] = []
        for first in range(0, inputs.time_steps, fit):
            end = min(first + fit, inputs.time_steps)
            result, state = self.run_dense(inputs.between(first, end).dense(), state, record, stop)
            slices.append(Slice(first, end, np.arange(inputs.batch), result))
        assert state is not None  # noqa: S101  (there is at least one step)
        return replace(joined_steps(slices), steps_used=None), state

    def answer(self, inputs: Inputs, ending: Ending | None = None, *, stop: Stop | None = None) -> RunResult:
        """Run every sample from rest, and return no state; see `Engine.answer`."""
        if ending is None:
            return self.run(inputs, stop=stop)[0]
        return run_slices(self, inputs, EndingRule(self.spec, ending), stop=stop)

    def run_windows(
        self, inputs: Inputs, states: Sequence[State], windows: Sequence[int]
    ) -> tuple[RunResult, Counts, list[State]]:
        """Run the first windows of all states in one run, then the second ones, and so on; see `Engine.run_windows`."""
        count, own, results, fired, places = np.array(windows), [*states], list[RunResult](), list[Counts](), []
        for window in range(count.max()):
            of = np.flatnonzero(count > window)
            places.append((count.cumsum() - count)[of] + window)
            before = State.joined([own[each] for each in of])
            result, after = self.run(inputs[places[-1]], before)
            results.append(result)
            fired.append(result.spike_counts - output_spikes(before, self.spec))
            for place, each in enumerate(of):
                own[each] = after.copied(place, place + 1)
        order = np.concatenate(places).argsort()
        return joined(results)[order], np.concatenate(fired)[order], own
