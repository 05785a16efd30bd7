"""The `event` engine: inference whose cost is the spikes, not the weights. The default on the CPU.

A call splits its samples into chunks, as many at once as it has threads. A chunk is one call of `node_kernels.begin`,
which runs the network layer by layer; what no kernel does, such as a sum of two signals, Python does in between.
Threads that are free meanwhile (all but one where there is one sample) share the work of its large layers: each takes a
tile of a layer's neurons after the other, see `cores` and `tiles`.

Memory: each thread holds one chunk, of at most `CHUNK_BYTES` or what one sample needs if that is more: `time_steps`
times the sum over nodes of 12 bytes for each of their neurons, padded, and over pools of 8 bytes for each of their
inputs and each window over it; what the tiles of one layer find is there twice. Beside it are, for each thread, a
layer's currents and inputs of some steps, at most 4 * `currents.BLOCK` bytes and two tiles of steps each, and seven
rows of its neurons. The answer, with what `record` asks for, and the state (see `carried.CarriedArrays`) come on top.
Between calls a thread keeps `chunk.ARENA` bytes and the room of its largest layer, which hold anything.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress

from spikeserve.models.coding import DenseInputs, Inputs
from spikeserve.models.engines.base import Record, RunResult, State, joined
from spikeserve.models.engines.event.carried import Carried, CarriedArrays
from spikeserve.models.engines.event.chunk import Chunk
from spikeserve.models.engines.event.cores import Cores, shared
from spikeserve.models.engines.event.early import run_early
from spikeserve.models.engines.event.plan import Plan
from spikeserve.models.engines.event.warm import compile_kernels
from spikeserve.models.engines.repeated import RepeatedInputs
from spikeserve.models.engines.state import check_ages, check_arrays, check_steps, steps_since_rest
from spikeserve.models.engines.stop import Stop
from spikeserve.models.spec import Spec
from spikeserve.models.spec.network import Network

CHUNK_BYTES = 2**25


class EventEngine:
    """Runs a network by its events, on up to `threads` threads per call.

    All engines of a process with the same number share their threads, and use no more of them at once: the samples of a
    batch, or the parts of a large layer, are divided among those that are free. `cores` are others to take them from.
    """

    name = "event"

    def __init__(self, network: Network, threads: int = 1, cores: Cores | None = None) -> None:
        compile_kernels()
        self.network = network
        self.plan = Plan.of(network)
        self.cores = cores or shared(threads)

    @property
    def spec(self) -> Spec:
        """The network that it runs."""
        return self.network.spec

    def run(
        self,
        inputs: Inputs,
        state: State | None = None,
        *,
        record: Record = Record.NONE,
        stop: Stop | None = None,
    ) -> tuple[RunResult, State]:
        """Run every sample on from `state`, or from rest; see `Runner.run`.

        The arrays of the returned state are converted when they are looked up; see `CarriedArrays`. Raises InvalidInput
        for a state or a number of steps that does not fit, and where a neuron fires more often in a step than can be
        counted.
        """
        if state is not None:
            check_ages(state, inputs.batch)
            state = self._own(state, inputs.batch)
        check_steps(state, self.network, inputs.time_steps)
        steps = steps_since_rest(state, inputs.batch, inputs.time_steps)
        with self.cores:
            if inputs.batch <= 1:
                whole = slice(0, inputs.batch)
                known = isinstance(inputs, RepeatedInputs) and bool(inputs.kept)
                chunk = Chunk(self.network, self.plan, inputs, whole, state, record, stop, self.cores, known=known)
                result, after = chunk.run()
                return result, State(steps, CarriedArrays(after))
            done = self._chunks(inputs, state, record, stop)
        parts = [done[start] for start in sorted(done)]
        after = [carried for _, of_part in parts for carried in of_part]
        return joined([result for result, _ in parts]), State(steps, CarriedArrays(after))

    def run_early(
        self, inputs: Inputs, checks: Sequence[int], worth: float, *, ties: bool, stop: Stop | None = None
    ) -> RunResult | None:
        """Run each sample from rest until it is sure, for `anytime`; see `early.run_early`."""
        if not isinstance(inputs, DenseInputs):
            return None
        check_steps(None, self.network, inputs.time_steps)
        return run_early(self.plan, inputs, checks, worth, stop, self.cores, ties=ties)

    def _own(self, state: State, batch: int) -> State:
        """Return a state whose arrays each chunk can take its samples of, made ready once for all chunks.

        Arrays that this engine returned stay as they lie, which saves a short run most of its time. Raises InvalidInput
        for others that do not fit.
        """
        arrays = state.arrays
        if isinstance(arrays, CarriedArrays) and arrays.layout is self.plan.carried and arrays.samples == batch:
            parts = arrays.parts
            return state if len(parts) in (1, batch) else State(state.steps, CarriedArrays((Carried.joined(parts),)))
        converted = State(state.steps, dict(arrays))
        check_arrays(converted, self.network, batch)
        return converted

    def _chunks(
        self, inputs: Inputs, state: State | None, record: Record, stop: Stop | None
    ) -> dict[int, tuple[RunResult, Sequence[Carried]]]:
        """Run all parts of a batch on the engine's threads, and return what was found by each part's first sample."""
        waiting = deque(self._parts(inputs))
        done: dict[int, tuple[RunResult, Sequence[Carried]]] = {}
        known = isinstance(inputs, RepeatedInputs) and bool(inputs.kept)  # before any of them runs

        def run_parts() -> None:
            with suppress(IndexError):  # none is left
                while True:
                    part = waiting.popleft()
                    # A chunk's arrays go before the next one's come.
                    alone = part.stop - part.start == inputs.batch
                    before = state if state is None or alone else state[part]
                    of_part = Chunk(
                        self.network, self.plan, inputs, part, before, record, stop, self.cores, known=known
                    )
                    done[part.start] = of_part.run()

        work = self.plan.work_per_step * inputs.time_steps * inputs.batch
        self.cores.share(self.cores.helpers(work, len(waiting)), run_parts)
        return done

    def _parts(self, inputs: Inputs) -> Iterator[slice]:
        fit = max(1, CHUNK_BYTES // (self.plan.bytes_per_step * inputs.time_steps))
        rounds = -(-inputs.batch // (fit * self.cores.count))  # so that every thread gets the same number of chunks
        size = -(-inputs.batch // (rounds * self.cores.count))
        for start in range(0, inputs.batch, size):
            yield slice(start, min(start + size, inputs.batch))
