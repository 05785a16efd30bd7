"""The end of an entry: its answer or its error is sent, and it is logged, counted and traced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from time import perf_counter
from typing import NamedTuple

from starlette.requests import ClientDisconnect

from spikeserve.models.errors import InvalidInput
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.errors import ServiceError, Unexpected
from spikeserve.service.inference.scheduling.answer import Content, Renderer, Results
from spikeserve.service.inference.scheduling.entry import Entry
from spikeserve.service.inference.scheduling.job import Answer
from spikeserve.service.telemetry.access import CLIENT_GONE, STATUS, AccessLog
from spikeserve.service.telemetry.metrics import Metrics
from spikeserve.service.telemetry.record import TIMING, AnswerRecord, BatchedAnswer, BatchRecord, RequestRecord, Times
from spikeserve.service.telemetry.tracing import Tracing


class Member(NamedTuple):
    """An entry of a batch: what renders its answer, and which rows of the batch are its samples."""

    entry: Entry
    render: Renderer
    own: slice


class Finish:
    """Ends entries, on the event loop."""

    def __init__(self, metrics: Metrics, tracing: Tracing | None) -> None:
        self.metrics = metrics
        self.tracing = tracing
        self.access = AccessLog(metrics)

    def refuse(self, entry: Entry, error: Exception) -> None:
        """Answer an entry with an error; one that no client can cause is logged whole and answered 500."""
        endpoint, record = entry.endpoint, self._record(entry)
        self.metrics.queues.count_end(endpoint.model.name, error)
        match error:
            case ClientDisconnect():
                status = CLIENT_GONE
            case InvalidInput():
                status = endpoint.invalid
            case ServiceError():
                status = error.status
            case _:
                request_id, record.error = entry.request_id.decode(), type(error).__qualname__
                self.access.log.error("request_failed", exc_info=error, request_id=request_id, **record.labels)
                error = Unexpected(entry.request_id)
                status = error.status
        entry.refuse(error, status)
        self._end(entry, record, status)

    def answer(self, entry: Entry, answer: Answer, sent: Callable[[], object]) -> None:
        """Answer an entry that ran on a thread; `sent` is called once all is sent."""
        record = self._record(entry)
        record.labels["samples"], record.answer = answer.record.samples, answer.record
        self._send(entry, answer.content, answer.record.times, sent)
        self._end(entry, record, STATUS)

    def answer_batch(
        self, model: LoadedModel, steps: int, times: Times, results: Results, batch: Sequence[Member]
    ) -> None:
        """Answer entries that ran as one batch on the event loop."""
        result = results.result
        contents = [render(results, own) for _, render, own in batch]
        for (entry, *_), content in zip(batch, contents, strict=True):
            self._send(entry, content, times)
        operations = result.synaptic_operations.tolist()
        used = None if result.steps_used is None else result.steps_used.tolist()
        answers = [
            BatchedAnswer(
                entry.endpoint,
                entry.request_id,
                entry.started,
                own.stop - own.start,
                (own.stop - own.start) * steps if used is None else sum(used[own]),
                sum(operations[own]),
                entry.trace,
            )
            for entry, _, own in batch
        ]
        self.access.finish_batch(BatchRecord(model, steps, times, perf_counter(), result.spikes_per_node, answers))
        if self.tracing is None:
            return
        for (entry, *_), each in zip(batch, answers, strict=True):
            if each.trace and each.trace.sampled:
                record = RequestRecord(each.request_id, dict(each.endpoint.labels))
                record.answer = AnswerRecord(each.samples, steps, each.steps, {}, each.synaptic_operations, times)
                self._trace(entry, record, STATUS)

    def _send(self, entry: Entry, content: Content, times: Times, sent: Callable[[], object] | None = None) -> None:
        lines = entry.endpoint.extras.lines
        if entry.endpoint.extras.timing:
            took = replace(times, arrived=entry.arrived).timing(perf_counter())
            lines = b"%s: %s\r\n%s" % (TIMING, took, lines)
        entry.answer(content._replace(lines=lines) if lines else content, sent)

    def _record(self, entry: Entry) -> RequestRecord:
        traced: dict[str, str | int] = {"trace_id": entry.trace.id} if entry.trace else {}
        return RequestRecord(entry.request_id, {**traced, **entry.endpoint.labels})

    def _end(self, entry: Entry, record: RequestRecord, status: int) -> None:
        """Log and count an entry, and end its span."""
        entry.log(self.access, record, status)
        self._trace(entry, record, status)

    def _trace(self, entry: Entry, record: RequestRecord, status: int) -> None:
        if self.tracing and entry.trace and entry.trace.sampled:
            entry.end_span(self.tracing, record, status)
