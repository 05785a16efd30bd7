"""The size of an answer: the most bytes that it can take, known from the model and the request before anything runs.

It is an upper bound of the rendered bytes, and of the arrays that they are rendered from.
"""

from __future__ import annotations

from collections.abc import Collection

from pydantic_core import to_json

from spikeserve.models.complexity import ESTIMATES
from spikeserve.models.spec import Task

COUNT_BYTES = 21  # of a 64-bit integer as JSON, with its comma
NUMBER_BYTES = 25  # of a float32 as JSON, written as the double that it is, with its comma
TEXT_BYTES = 50  # of a value in "value:index:label", six decimals of the largest float32 included
RESULT_BYTES = 32  # per class: its count (8) and readout (4), twice while shards are joined, and their order (8)
RECORDED_BYTES = 8  # per recorded value, 4 bytes of its array, twice while shards are joined
FIELD_BYTES = 128  # the names and marks around one prediction, or one tensor
REPORT_BYTES = 2 * FIELD_BYTES + (5 + len(ESTIMATES)) * 64  # of a report: the names of its numbers, and the numbers
ENVELOPE_BYTES = 512  # the same around a whole answer


class AnswerSize:
    """Upper bounds, in bytes, of the parts of an answer of a model of `task`."""

    def __init__(self, task: Task, name: str) -> None:
        texts = [len(to_json(label)) + 1 for label in task.labels]
        units = [len(to_json(unit)) + 1 for unit in task.units or ()]
        nodes = [len(to_json(node)) for node in task.layers]
        self.classes = task.classes
        self.label = max(texts, default=0) if task.scores.has_classes else 0
        self.result = RESULT_BYTES * self.classes
        self.envelope = ENVELOPE_BYTES + len(to_json(name))
        self.names = 0 if task.scores.has_classes else sum(texts) + sum(units)
        self.sample = FIELD_BYTES + self.result + self.classes * (COUNT_BYTES + NUMBER_BYTES) + self.label
        self.spikes_per_node = sum(node + COUNT_BYTES + 1 for node in nodes)
        self.node_names = (
            sum(node + FIELD_BYTES for node in nodes) + FIELD_BYTES
        )  # and a readout's, which does not spike
        self.nodes = len(nodes) + 1
        self.neurons = task.recordable

    def native(self, samples: int, time_steps: int, returned: Collection[str] = ()) -> int:
        """Return the size of the native answer; `returned` names its optional fields.

        A raster is taken to have one spike per neuron and step; neurons that fire more often are counted after the run.
        """
        size = self.sample
        if "spikes_per_node" in returned:
            size += self.spikes_per_node
        if "report" in returned:
            size += REPORT_BYTES
        if "raster" in returned:
            size += self.node_names + time_steps * self.neurons * (RECORDED_BYTES + self.event(time_steps))
        if "membrane" in returned:
            values = time_steps * self.neurons * (RECORDED_BYTES + NUMBER_BYTES)
            size += self.node_names + values + 3 * time_steps * self.nodes
        return self.envelope + self.names + samples * size

    def event(self, time_steps: int) -> int:
        """Return the bytes of one spike of a raster: its step and its neuron, each with a comma."""
        return len(str(time_steps)) + len(str(self.neurons)) + 2
