"""The tick: ordinary requests that came in one iteration of the event loop are read, run and answered together.

A batch of sixteen costs a small network a tenth for each sample of what one alone costs, and code that runs for many
requests in a row stays in the processor's caches. Nothing waits for what is not there yet: a request that came alone is
answered at once, and any other at the end of its iteration.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from numpy.typing import NDArray

from spikeserve.models.coding import encode_within
from spikeserve.models.engines.anytime import StopRule
from spikeserve.models.spec import Coding
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.inference.ordinary.frames import Endpoint, Frame, Span
from spikeserve.service.inference.protocols.native.render import predictions
from spikeserve.service.telemetry.access import AccessLog, Ended
from spikeserve.service.telemetry.metrics import Metrics
from spikeserve.service.telemetry.record import AnswerRecord, Times

if TYPE_CHECKING:
    from spikeserve.service.catalog.rows import RowReader

MAX_REQUESTS = 64  # that are answered in one iteration of the event loop
NO_SPIKES: Mapping[str, int] = {}


class Ordinary(Protocol):
    """An ordinary request whose body has arrived; times are by perf_counter."""

    endpoint: Endpoint
    request_id: bytes
    body: bytes
    withdrawn: bool  # whether it was sent the full way meanwhile, since its client has left
    started: float  # when its headers were complete
    arrived: float  # when its body was

    def answer(self, content: bytes) -> None:
        """Send the answer."""
        ...

    def decline(self) -> None:
        """Send it the full way instead."""
        ...


class Iteration(Protocol):
    """What is known of the event loop's iteration that goes on: how many files were ready."""

    files: int


class Placed(NamedTuple):
    """A request whose samples are rows of a batch, from `start` on."""

    request: Ordinary
    frame: Frame
    start: int
    samples: int


class Group(NamedTuple):
    """What requests have in common that run as one batch; `seed` is 0 where the coding draws nothing."""

    model: LoadedModel
    reader: RowReader
    time_steps: int
    seed: int
    stop: StopRule | None


class Tick:
    """Collects ordinary requests, and answers them. Only the event loop uses it."""

    def __init__(self, metrics: Metrics, iteration: Iteration) -> None:
        self.metrics = metrics
        self.iteration = iteration
        self.access = AccessLog(metrics)
        self.waiting: list[Ordinary] = []
        self.is_due = False  # whether the event loop will call `answer_all`

    def add(self, request: Ordinary, *, alone: bool) -> None:
        """Answer a request: at once where it came `alone` and nothing else was ready, else with others."""
        self.waiting.append(request)
        if alone and self.iteration.files <= 1 and not self.is_due:
            self.answer_all()
        elif not self.is_due:
            self.is_due = True
            asyncio.get_running_loop().call_soon(self.answer_all)

    def answer_all(self) -> None:
        """Answer requests that wait, in few batches; what exceeds MAX_REQUESTS waits for the next iteration."""
        waiting, self.waiting = self.waiting[:MAX_REQUESTS], self.waiting[MAX_REQUESTS:]
        self.is_due = bool(self.waiting)
        if self.is_due:
            asyncio.get_running_loop().call_soon(self.answer_all)
        groups: dict[Group, list[tuple[Ordinary, Frame, Span]]] = {}
        for request in waiting:
            if request.withdrawn:
                continue
            found = request.endpoint.find(request.body)
            if found is None:
                request.decline()
                continue
            frame, span = found
            model = request.endpoint.model
            seed = frame.seed if model.spec.coding is Coding.RATE else 0
            group = Group(model, request.endpoint.reader, frame.time_steps, seed, frame.stop)
            groups.setdefault(group, []).append((request, frame, span))
        for group, members in groups.items():
            try:
                self._read(group, members)
            except Exception:  # the full way answers those that are not answered yet, and logs what is wrong
                for request, *_ in members:
                    request.decline()

    def _read(self, group: Group, members: Sequence[tuple[Ordinary, Frame, Span]]) -> None:
        """Read the requests of a group into rows, and run these whenever a batch is full."""
        reader, most = group.reader, members[0][1].batch
        batch: list[Placed] = []
        began, end = perf_counter(), 0
        for request, frame, span in members:
            samples = reader.read(request.body, *span, reader.rows[end:most])
            if samples < 0 and batch:  # maybe there were too few rows
                self._run(group, batch, end, began)
                batch, began, end = [], perf_counter(), 0
                samples = reader.read(request.body, *span, reader.rows)
            if samples < 0 or samples > frame.most or frame.samples not in (None, samples):
                request.decline()
                continue
            batch.append(Placed(request, frame, end, samples))
            end += samples
        if batch:
            self._run(group, batch, end, began)

    def _run(self, group: Group, batch: Sequence[Placed], end: int, began: float) -> None:
        """Run rows up to `end`, read since `began`, as one batch and answer its requests; if it fails, all decline."""
        model, spec, steps = group.model, group.model.spec, group.time_steps
        times = Times(began, encode_began=perf_counter())
        times.decode_seconds = times.encode_began - began
        try:
            inputs = encode_within(group.reader.rows[:end].reshape(end, *spec.input.shape), spec, steps, group.seed)
            times.encode_ended = times.run_began = perf_counter()
            result = model.run(inputs, group.stop)
            times.run_ended = perf_counter()
            made: Sequence[Any] = predictions(result, spec, frozenset())
            contents = [frame.write(made[start : start + samples]) for _, frame, start, samples in batch]
        except Exception:  # the full way answers, and logs what is wrong
            for request, *_ in batch:
                request.decline()
            return
        written = (perf_counter() - times.run_ended) / len(batch)
        operations, used = _listed(result.synaptic_operations), _listed(result.steps_used)
        answers: list[AnswerRecord] = []
        ended: dict[str, list[Ended]] = {}
        for (request, _, start, samples), content in zip(batch, contents, strict=True):
            request.answer(content)
            own, endpoint = slice(start, start + samples), request.endpoint
            answer = AnswerRecord(
                samples,
                steps,
                samples * steps if used is None else sum(used[own]),
                NO_SPIKES,  # they are counted for the whole batch
                None if operations is None else sum(operations[own]),
                times,
            )
            answers.append(answer)
            if endpoint.statistics is not None:
                endpoint.statistics.count_success(model, answer, times.decode_seconds, written, request.arrived)
            labels = {**endpoint.labels, "samples": samples}
            seconds = perf_counter() - request.started
            ended.setdefault(endpoint.route, []).append(Ended(request.request_id, seconds, labels))
        self.metrics.models.count_run(model, end, times.run_ended - times.run_began)
        spikes = {name: int(of_each.sum()) for name, of_each in result.spikes_per_node.items()}
        self.metrics.models.count_answers(model, answers, spikes, is_trial=False)
        for route, requests in ended.items():
            self.access.finish_all(requests, "POST", route, int(HTTPStatus.OK))


def _listed(numbers: NDArray[Any] | None) -> list[int] | None:
    return None if numbers is None else numbers.tolist()
