"""The `event` engine: inference whose cost is the spikes, not the weights. The default on the CPU.

A call splits its samples into parts, as many at once as it has threads; see `cores`. A part is one call of
`node_kernels.begin`, which runs the network layer by layer.

Memory: each thread holds what one part finds, at most `CHUNK_BYTES` or what one sample needs if that is more:
`time_steps` times the sum over nodes of 12 bytes for each of their neurons, padded, and over pools of 8 bytes for each
of their inputs and each window over it. Beside it are, for each thread, a layer's currents and inputs of some steps, at
most 4 * `currents.BLOCK` bytes and two tiles of steps each, and seven rows of its neurons; or of a convolution the
lines of outputs that a line of its image reaches. The answer, with what
`record` asks for, and the state (see `carried.CarriedArrays`) come on top. Between calls a thread keeps `call.ARENA`
bytes and the room of its largest layer, which hold anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from functools import cache
from typing import Any

import numpy as np

from spikeserve.models.coding import DenseInputs, Inputs
from spikeserve.models.engines.base import Counts, Ending, Record, RunResult, State
from spikeserve.models.engines.compiling import compiling
from spikeserve.models.engines.event.call import Call
from spikeserve.models.engines.event.carried import CarriedArrays
from spikeserve.models.engines.event.compiled import CompiledFunction, FunctionPointer, engine_kernels
from spikeserve.models.engines.event.cores import Cores, shared
from spikeserve.models.engines.event.node_kernels import go_on
from spikeserve.models.engines.event.plan import Plan
from spikeserve.models.engines.event.table import NODE, RUN
from spikeserve.models.engines.state import check_ages, check_arrays, check_steps, steps_since_rest
from spikeserve.models.engines.stop import Stop
from spikeserve.models.spec import Spec
from spikeserve.models.spec.network import Network

SMALL = {  # what `compile_kernels` runs
    "input": {"shape": [1]},
    "time_steps": 2,
    "labels": ["only"],
    "nodes": [{"type": "Linear", "name": "fc", "in_features": 1, "out_features": 1}, {"type": "IF", "name": "out"}],
}


class EventEngine:
    """Runs a network by its events, on up to `threads` threads per call.

    All engines of a process with the same number share their threads, and use no more of them at once: the samples of a
    batch are divided among those that are free. `cores` are others to take them from.
    """

    name = "event"
    batches, is_bounded = False, True

    def __init__(self, network: Network, threads: int = 1, cores: Cores | None = None) -> None:
        compile_kernels()
        self.network = network
        self.spec: Spec = network.spec
        self.plan = Plan(network)
        self.cores = cores or shared(threads)
        self.in_place = not self.plan.rows["several"].any()  # whether a run from a state fails for want of memory alone

    def answer(self, inputs: Inputs, ending: Ending | None = None, *, stop: Stop | None = None) -> RunResult:
        """Run every sample from rest, and return no state; see `Engine.answer`."""
        self.plan.spec.check_steps(inputs.time_steps)
        return Call(self.plan, self.cores, inputs, ending=ending, stop=stop).run()

    def run_windows(
        self, inputs: Inputs, states: Sequence[State], windows: Sequence[int]
    ) -> tuple[RunResult, Counts, list[State]]:
        """Run the windows of sessions in one call; see `Engine.run_windows`."""
        own = [self._own(each) for each in states]
        before: Any = State.joined(own)
        check_ages(before, len(windows))
        steps = [age + inputs.time_steps * count for age, count in zip(before.steps.tolist(), windows, strict=True)]
        self.plan.spec.check_steps(max(steps))
        call, parts = Call(self.plan, self.cores, inputs, before, windows=windows), before.arrays.parts
        for each in own:
            each.arrays.parts = ()  # in case the run fails
        result = call.run()
        fired = result.spike_counts.copy()
        fired[1:] -= result.spike_counts[:-1]
        fired[call.first] = result.spike_counts[call.first] - before.arrays.counts
        after = zip(own, parts, steps, call.counts[call.last], call.reads[call.last], strict=True)
        for each, part, age, counts, reads in after:
            each.arrays.parts, each.arrays.counts[0], each.arrays.reads[0], each.steps[0] = (part,), counts, reads, age
        return result, fired, own

    def _own(self, state: State) -> Any:
        """Return a state of one sample that may be changed in place. Raises InvalidInput for one that does not fit."""
        arrays = state.arrays
        if self.in_place and isinstance(arrays, CarriedArrays) and arrays.fits(self.plan.carried, 1):
            return state
        self._check_fits(state, 1)
        return State(state.steps.copy(), CarriedArrays.of(self.plan.carried, state))

    def run(
        self, inputs: Inputs, state: State | None = None, *, record: Record = Record.NONE, stop: Stop | None = None
    ) -> tuple[RunResult, State]:
        """Run every sample on from `state`, or from rest; see `Engine.run`.

        The arrays of the returned state are converted when they are looked up; see `CarriedArrays`. Raises InvalidInput
        for a state or a number of steps that does not fit, and where a neuron fires more often in a step than can be
        counted.
        """
        if state is not None:
            self._check_fits(state, inputs.batch)
        check_steps(state, self.network, inputs.time_steps)
        call = Call(self.plan, self.cores, inputs, state, record, stop=stop)
        result = call.run()
        return result, State(steps_since_rest(state, inputs.batch, inputs.time_steps), call.after())

    def _check_fits(self, state: State, batch: int) -> None:
        """Raise InvalidInput for a state that is not one of so many samples of the network."""
        check_ages(state, batch)
        arrays = state.arrays
        if not (isinstance(arrays, CarriedArrays) and arrays.fits(self.plan.carried, batch)):
            check_arrays(state, self.network, batch)


@cache
def compile_kernels() -> None:
    """Make every kernel ready; it takes some 20 s the first time on a machine, and then some tenths of one."""
    with nullcontext() if are_cached() else compiling():
        compile_addressed(reversed(engine_kernels))  # a second process begins with the first
        spec = Spec.read(SMALL)
        network = Network(spec, {name: np.ones(shape, np.float32) for name, shape in spec.tensor_shapes.items()})
        inputs = DenseInputs(np.ones((1, 1, 1), np.float32), spec.time_steps)
        Call(Plan(network), Cores(1), inputs, record=Record.RASTER).run()
        go_on.code_for((np.zeros(1, NODE), np.zeros(1, RUN)))


def compile_addressed(kernels: Iterable[CompiledFunction]) -> None:
    """Compile those that have an address, or fetch what another process has compiled."""
    for kernel in kernels:
        if isinstance(kernel, FunctionPointer):
            assert kernel.address  # noqa: S101  (which compiles it)


def are_cached() -> bool:
    """Return whether every kernel has been compiled for this machine's processor."""
    return all(kernel.is_cached for kernel in engine_kernels)
