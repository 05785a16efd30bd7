"""The protocol of the engines: what a run takes and returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Flag, auto
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.coding import Inputs
from spikeserve.models.coding.inputs import Samples
from spikeserve.models.engines.readout import Counts
from spikeserve.models.engines.state import State, Steps
from spikeserve.models.engines.stop import Stop
from spikeserve.models.spec import Spec
from spikeserve.models.spec.network import FloatArray, Network

__all__ = ["Counts", "Ending", "Engine", "Record", "RunResult", "State", "Stop", "joined"]


NEVER, BY_COUNT, BY_LEAD, BY_SPIKE = range(4)


class Ending(NamedTuple):
    """How samples end early, for an engine that asks by itself.

    At each of the `looks` (looks,), after so many steps, ascending and up to the last step of the run, a sample ends
    BY_COUNT: no other class can win by `worth` spikes for each step that remains; BY_LEAD: the first class leads by
    `worth` for each of them in what is read, of a mean in its sum; or BY_SPIKE: a neuron that is read has fired.
    """

    looks: NDArray[np.int64]
    by: int
    worth: float


class Record(Flag):
    """What a run records in addition to its counts."""

    NONE = 0
    RASTER = auto()
    MEMBRANE = auto()


@dataclass(frozen=True)
class RunResult:
    """The result of one run, with the samples in their order in the batch.

    Over all steps since rest:
    `spike_counts` (batch, classes): output spikes, zero where the last layer does not fire.
    `readout` (batch, classes): what the answer is read from, see `models.spec.readouts`.

    Over the steps of this call:
    `synaptic_operations` (batch,): weights met by non-zero inputs, over all weighted connections; a connection whose
    input is the same at every step is computed, and so counted, once.
    `spikes_per_node` name to (batch,), for each spiking node.
    `rasters` name to (time_steps, batch, *shape) of spikes, 0 or 1 (more if a neuron fires several times a step), and
    `membranes` name to the same shape, after the reset: for each spiking node (and a readout's membrane) where `record`
    asked for them, otherwise empty.

    Of a run that stopped samples early (`models.engines.anytime`):
    `steps_used` (batch,): the steps that each sample took; the counts and the readout are those after them, and what
    was recorded is 0 after them.

    """

    spike_counts: Counts
    readout: FloatArray
    synaptic_operations: Counts
    spikes_per_node: Mapping[str, Counts]
    rasters: Mapping[str, NDArray[np.int32]] = field(default_factory=dict)
    membranes: Mapping[str, FloatArray] = field(default_factory=dict)
    steps_used: Steps | None = None

    def __getitem__(self, samples: Samples) -> RunResult:
        """Return the results of some of the samples, which an array of their places may give in any order."""
        return combined([self], lambda arrays, axis: arrays[0][(slice(None),) * axis + (samples,)])

    @property
    def class_index(self) -> Counts:
        """The class of each sample (batch,); ties go to the lowest index."""
        return self.readout.argmax(axis=1)


def combined(results: Sequence[RunResult], combine: Callable[[Sequence[NDArray[Any]], int], NDArray[Any]]) -> RunResult:
    """Combine results of one network, array by array: `combine` gets those of one field, and its axis of samples."""
    first, used = results[0], [each.steps_used for each in results if each.steps_used is not None]

    def by_name(name: str, axis: int = 0) -> dict[str, NDArray[Any]]:
        return {key: combine([getattr(each, name)[key] for each in results], axis) for key in getattr(first, name)}

    return RunResult(
        spike_counts=combine([each.spike_counts for each in results], 0),
        readout=combine([each.readout for each in results], 0),
        synaptic_operations=combine([each.synaptic_operations for each in results], 0),
        spikes_per_node=by_name("spikes_per_node"),
        rasters=by_name("rasters", 1),
        membranes=by_name("membranes", 1),
        steps_used=combine(used, 0) if used else None,
    )


def joined(results: Sequence[RunResult]) -> RunResult:
    """Concatenate the results of several runs, at least one, along the samples."""
    return results[0] if len(results) == 1 else combined(results, _concatenated)


def _concatenated(arrays: Sequence[NDArray[Any]], axis: int) -> NDArray[Any]:
    """Concatenate along the axis of samples; runs that stopped early get steps of 0, as many as the longest has."""
    if axis and (longest := max(map(len, arrays))):
        arrays = [np.pad(each, [(0, longest - len(each)), *[(0, 0)] * (each.ndim - 1)]) for each in arrays]
    return np.concatenate(arrays, axis)


class Engine(Protocol):
    """Runs one network. It keeps no state between calls: the state is passed in and returned."""

    @property
    def name(self) -> str:
        """The engine's name, as in settings and answers."""

    @property
    def batches(self) -> bool:
        """Whether a sample takes less time in a larger batch, so that a scheduler should wait for more requests."""

    @property
    def is_bounded(self) -> bool:
        """Whether a run ends once it has more operations than its `Stop` lets it have."""

    @property
    def network(self) -> Network:
        """The network that it runs."""

    @property
    def spec(self) -> Spec:
        """That network's spec."""

    def run(
        self, inputs: Inputs, state: State | None = None, *, record: Record = Record.NONE, stop: Stop | None = None
    ) -> tuple[RunResult, State]:
        """Run every sample, continuing from `state` or from rest; return the result and the state after the last step.

        The samples of a state may be of any ages, at rest too. Splitting a run into several calls changes no bit, and
        neither does what runs beside a sample. The counts and the readout are those of all steps since
        rest; operations, spikes per node and recorded arrays are those of this call's steps. An input that is the same
        at every step is computed, and so counted, once per call. Several threads may call this at the same time.
        Raises InvalidInput for a state that does not fit the network and the inputs, and Stopped soon after `stop` is
        requested: engines check it between nodes, steps or parts of the batch. Events give the bits of the dense array
        that they stand for.
        """

    def answer(self, inputs: Inputs, ending: Ending | None = None, *, stop: Stop | None = None) -> RunResult:
        """Run every sample from rest, to its last step or until it is `ending`, and return no state.

        It is what `run` returns, and may be quicker. Raises as `run` does.
        """

    def run_windows(
        self, inputs: Inputs, states: Sequence[State], windows: Sequence[int]
    ) -> tuple[RunResult, Counts, list[State]]:
        """Run windows of sessions: of `inputs` (all windows, …) the first windows[0] go on from states[0], and so on.

        Each state is of one sample. Return the result of all windows, the output spikes of each (windows, classes),
        and the states after the last ones. The given states are used up, also where memory is short. Raises
        InvalidInput as `run` does.
        """
