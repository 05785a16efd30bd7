"""Windows that are closed in one iteration of the event loop, of any sessions, run as one call at its end.

In a call, windows of one session run in order. If only one file was ready, they run at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from pydantic_core import to_json

from spikeserve.models.coding import Inputs, join_inputs
from spikeserve.models.engines import RunResult, State
from spikeserve.models.engines.readout import Counts
from spikeserve.models.engines.state import output_spikes
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.inference.scheduling.scheduler import Scheduler

if TYPE_CHECKING:
    from spikeserve.service.inference.sessions.session import Session

MAX_WINDOWS = 16  # of one session in a run: others wait for it a millisecond, and more save little
MAX_NUMBERS = 2**13  # in the lines of these


class Results(NamedTuple):
    """The results of windows of one session.

    A row has a window's output spikes (classes,) and its operations; since rest, the class and what that is read from;
    and as text its output spikes and all since rest. `state` is that after the last.
    """

    rows: list[tuple[Counts, int, int, list[float], bytes, bytes]]
    state: State | None


# A session, its windows that wait for the end of the iteration, the state that they go on from, and who is answered: a
# Future[Results], or what has its `done`, `set_exception`, and a `set_result` that returns what writes the answer.
Waiting: TypeAlias = tuple["Session", Sequence[Any], State, Any]


class Batches:
    """Runs the windows of all sessions, on the event loop."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.waiting: dict[tuple[LoadedModel, int, object], list[Waiting]] = {}  # by equal terms

    def most(self, model: LoadedModel, steps: int) -> int:
        """Return the most windows of `steps` steps that `run` may get at once."""
        if not self._is_small(model, steps):
            return 1
        return max(1, min(MAX_WINDOWS, MAX_NUMBERS // model.network.spec.classes, self._room(model, steps)))

    async def run(self, session: Session, windows: Sequence[Any]) -> Results:
        """Run windows of a session, one after the other from its state on.

        Where a run may be long, the first of them alone waits in the model's queue. Raises InvalidInput,
        DeadlineExceeded and ShuttingDown.
        """
        model, state = session.model, session.at.state
        if not self._is_small(model, session.windows.steps):
            result, after = await self.scheduler.run_window(model, session.inputs(windows)[0], state)
            fired = result.spike_counts - output_spikes(state, session.spec)
            return next(_results(result, fired, [after], [1]))
        answer = asyncio.get_running_loop().create_future()
        self.add(session, windows, state and state[np.zeros(1, np.intp)], answer)  # a copy, to go back to
        return await answer

    def add(self, session: Session, windows: Sequence[Any], state: State | None, answer: Any) -> None:
        """Run windows as `run` does, of which a run is short, at the end of the iteration; `state` is used up.

        It is at once where one file was ready, in this iteration or the one in which a message came and woke a task.
        """
        is_due, now, model = bool(self.waiting), self.scheduler.interpreter.iteration, session.model
        key = model, windows[0].steps, session.windows.definition
        self.waiting.setdefault(key, []).append((session, windows, state or State.rest(model.network, 1), answer))
        if not is_due and max(now.files, now.files_before) <= 1:
            self._run_all()
        elif not is_due:
            asyncio.get_running_loop().call_soon(self._run_all)

    def _is_small(self, model: LoadedModel, steps: int) -> bool:
        return model.engine.is_bounded and model.cost.may_run_windows(model.dense, steps)

    def _room(self, model: LoadedModel, steps: int) -> int:
        return self.scheduler.queue(model).policy.max_samples(model.cost, steps)

    def _run_all(self) -> None:
        """Run what waits, in few calls."""
        waiting, self.waiting = self.waiting, {}
        for (model, steps, _), sessions in waiting.items():
            alive = [each for each in sessions if not each[-1].done()]  # whose sessions have not ended
            size = max(1, self._room(model, steps) // max([len(windows) for _, windows, *_ in alive], default=1))
            for first in range(0, len(alive), size):
                self._run(model, alive[first : first + size])

    def _run(self, model: LoadedModel, sessions: Sequence[Waiting]) -> None:
        """Run sessions in one call; if it fails, each alone."""
        windows, began = [len(windows) for _, windows, *_ in sessions], perf_counter()
        try:
            result, fired, after = model.engine.run_windows(_inputs(sessions), [each[2] for each in sessions], windows)
        except Exception as error:
            if len(sessions) == 1:
                sessions[0][-1].set_exception(error)
                return
            for session in sessions:
                self._run(model, [session])
            return
        self.scheduler.metrics.models.count_run(model, sum(windows), perf_counter() - began)
        to_call = list[Any]()
        for (*_, answer), results in zip(sessions, _results(result, fired, after, windows), strict=True):
            try:
                to_call.append(answer.set_result(results))
            except Exception as error:
                answer.set_exception(error)
        for each in filter(None, to_call):
            each()


def _inputs(sessions: Sequence[Waiting]) -> Inputs:
    """Return the inputs of all windows. Raises InvalidInput."""
    every, coder = [each for _, windows, *_ in sessions for each in windows], sessions[0][0].coder
    inputs: Inputs | None = None
    if binner := getattr(every[0], "binner", None):
        inputs = binner.inputs(coder, [each.content for each in every], [each.start for each in every], every[0].steps)
    return inputs or join_inputs([each for session, windows, *_ in sessions for each in session.inputs(windows)])


def _results(result: RunResult, fired: Counts, states: Sequence[Any], windows: Sequence[int]) -> Iterator[Results]:
    """Yield the results of each session, from a run of this number of `windows` of each."""
    numbers = [each.tolist() for each in (result.synaptic_operations, result.class_index, result.readout)]
    texts = [to_json(each.tolist())[2:-2].split(b"],[") for each in (fired, result.spike_counts)]
    rows, end = list(zip(fired, *numbers, *texts, strict=True)), 0
    for count, state in zip(windows, states, strict=True):
        yield Results(rows[end : (end := end + count)], state)
