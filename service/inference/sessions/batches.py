"""Windows that are closed in one iteration of the event loop, of any sessions, run as one call at its end.

Those of one session run one after the other in it. Where one file alone was ready, they run at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import perf_counter
from typing import Any, NamedTuple, TypeAlias

from spikeserve.models.coding import Inputs, join_inputs
from spikeserve.models.engines import State
from spikeserve.models.engines.readout import Counts
from spikeserve.models.engines.state import EngineArrays
from spikeserve.models.spec.network import FloatArray
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.inference.scheduling.scheduler import Scheduler

MAX_WINDOWS = 16  # of one session in a run: others wait for it a millisecond, and more save little
MAX_NUMBERS = 2**13  # in the lines of these
# The most that a window's steps are expected to take on the event loop, of a real sample: most of a sensor's windows
# have fewer events than that, and a thread would add a tenth of a millisecond to each.
SECONDS = 1e-3


class Results(NamedTuple):
    """What windows of one session gave, a row for each: `counts` and `readout` since rest; the state after the last."""

    counts: Counts
    readout: FloatArray
    operations: Counts
    state: State | None


# Windows of one session that wait for the end of the iteration, the state that they go on from, and who is answered: a
# Future[Results], or what has its `done`, `set_result` and `set_exception`.
Waiting: TypeAlias = tuple[Sequence[Inputs], State, Any]


class Batches:
    """Runs the windows of all sessions. Only the event loop uses it."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        # By the model, the steps of a window, and whether it has begun.
        self.waiting: dict[tuple[LoadedModel, int, bool], list[Waiting]] = {}

    def most(self, model: LoadedModel, steps: int) -> int:
        """Return how many windows of so many steps `run` may be given at once."""
        if not self._is_small(model, steps):
            return 1
        return max(1, min(MAX_WINDOWS, MAX_NUMBERS // model.network.spec.classes, self._room(model, steps)))

    async def run(self, model: LoadedModel, windows: Sequence[Inputs], state: State | None) -> Results:
        """Run windows of as many steps, one after the other from `state` on; None is rest.

        Where a run may be long, the first of them alone waits in the model's queue. Raises InvalidInput,
        DeadlineExceeded and ShuttingDown.
        """
        steps = windows[0].time_steps
        if not self._is_small(model, steps):
            result, _, after = await self.scheduler.run_window(model, windows[0], state)
            return Results(result.spike_counts, result.readout, result.synaptic_operations, after)
        answer = asyncio.get_running_loop().create_future()
        self.add(model, windows, state, answer)
        return await answer

    def add(self, model: LoadedModel, windows: Sequence[Inputs], state: State | None, answer: Any) -> None:
        """Run windows as `run` does, of which a run is short, at the end of the iteration.

        It is at once where one file was ready, in this iteration or the one in which a message came and woke a task.
        """
        begun, is_due = state or State.rest(model.network, 1), bool(self.waiting)
        now = self.scheduler.interpreter.iteration
        # To run without a look at each of the arrays.
        key = model, windows[0].time_steps, isinstance(begun.arrays, EngineArrays)
        self.waiting.setdefault(key, []).append((windows, begun, answer))
        if not is_due and max(now.files, now.files_before) <= 1:
            self._run_all()
        elif not is_due:
            asyncio.get_running_loop().call_soon(self._run_all)

    def _is_small(self, model: LoadedModel, steps: int) -> bool:
        return hasattr(model.engine, "run_windows") and model.cost.is_small(1, steps, SECONDS)

    def _room(self, model: LoadedModel, steps: int) -> int:
        return self.scheduler.queue(model).policy.max_samples(model.cost, steps)

    def _run_all(self) -> None:
        """Run what waits, in few calls."""
        waiting, self.waiting = self.waiting, {}
        for (model, steps, _), sessions in waiting.items():
            alive = [each for each in sessions if not each[-1].done()]  # whose sessions have not ended
            most = max([len(windows) for windows, *_ in alive], default=1)
            size = max(1, self._room(model, steps) // most)
            for first in range(0, len(alive), size):
                self._run(model, alive[first : first + size])

    def _run(self, model: LoadedModel, sessions: Sequence[Waiting]) -> None:
        """Run sessions in one call; if it fails, each alone."""
        engine: Any = model.engine
        inputs = join_inputs([window for windows, *_ in sessions for window in windows])
        state, began = State.joined([state for _, state, _ in sessions]), perf_counter()
        try:
            result, after = engine.run_windows(inputs, state, [len(windows) for windows, *_ in sessions])
        except Exception as error:
            if len(sessions) == 1:
                sessions[0][-1].set_exception(error)
                return
            for session in sessions:
                self._run(model, [session])
            return
        self.scheduler.metrics.models.count_run(model, inputs.batch, perf_counter() - began)
        end = 0
        for number, (windows, _, answer) in enumerate(sessions):
            own = slice(end, end := end + len(windows))
            operations = result.synaptic_operations[own]
            alone = after if len(sessions) == 1 else after.copied(number, number + 1)
            try:
                answer.set_result(Results(result.spike_counts[own], result.readout[own], operations, alone))
            except Exception as error:
                answer.set_exception(error)
