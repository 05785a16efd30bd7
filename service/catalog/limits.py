"""The limits of one request for a model: samples, time steps, values, its answer, and the delimiters of its JSON.

`service.inference.decoding.body` limits its bytes. The limits follow from the model and the settings, so that a request
is refused before any memory of its size is allocated. The size of an answer is an upper bound of the rendered bytes,
and of the arrays that they are rendered from.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from itertools import accumulate
from operator import mul

from pydantic_core import to_json

from spikeserve.models.coding.records import RECORD
from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec import Coding, Spec
from spikeserve.service.errors import TooLarge, shown
from spikeserve.service.settings import Settings

COUNT_BYTES = 21  # of a 64-bit integer as JSON, with its comma
NUMBER_BYTES = 25  # of a float32 as JSON, written as the double that it is, with its comma
ESCAPED_BYTES = 6  # of one character in JSON, such as \u0000; more than of one in UTF-8
TEXT_BYTES = 50  # of a value in "value:index:label", six decimals of the largest float32 included
RESULT_BYTES = 32  # per class: its count (8) and readout (4), twice while shards are joined, and their order (8)
RECORDED_BYTES = 8  # per recorded value, 4 bytes of its array, twice while shards are joined
FIELD_BYTES = 128  # the names and marks around one prediction, or one tensor
ENVELOPE_BYTES = 512  # the same around a whole answer


class AnswerSize:
    """Upper bounds, in bytes, of the parts of an answer of a model of `task`."""

    def __init__(self, task: Spec, name: str) -> None:
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
        # The last is a readout's, which does not spike.
        self.node_names = sum(node + FIELD_BYTES for node in nodes) + FIELD_BYTES
        self.nodes = len(nodes) + 1
        self.neurons = task.recordable

    def native(self, samples: int, time_steps: int, returned: Collection[str] = ()) -> int:
        """Return the size of the native answer; `returned` names its optional fields.

        A raster is taken to have one spike per neuron and step; neurons that fire more often are counted after the run.
        """
        size = self.sample
        if "spikes_per_node" in returned:
            size += self.spikes_per_node
        if "raster" in returned:
            size += self.node_names + time_steps * self.neurons * (RECORDED_BYTES + self.event(time_steps))
        if "membrane" in returned:
            size += self.node_names + time_steps * (self.neurons * (RECORDED_BYTES + NUMBER_BYTES) + 3 * self.nodes)
        return self.envelope + self.names + samples * size

    def tensors(self, rows: Collection[int], samples: int, answer_id: str) -> int:
        """Return the size of an answer of the protocol v2; `rows` are the bytes of a sample in each of its tensors."""
        around = self.envelope + ESCAPED_BYTES * len(answer_id) + FIELD_BYTES * len(rows)
        return around + samples * (self.result + sum(rows))

    def event(self, time_steps: int) -> int:
        """Return the bytes of one spike of a raster: its step and its neuron, each with a comma."""
        return len(str(time_steps)) + len(str(self.neurons)) + 2


SAMPLES = 1024  # the most in one request
RECORDED_VALUES = 1_000_000  # the most that `return` may record: rasters and membranes each
SPARE = 2**14  # delimiters that are allowed in addition to those of the samples
EVENT_FIELDS = 4  # t, x, y and p: the most values that one event has


class ModelLimits:
    """The limits of one request for a model of `task`, from the settings.

    `widest` is the number of values of the model's widest layer; `neurons` is the number of neurons whose rasters and
    membranes can be recorded.
    """

    def __init__(self, task: Spec, settings: Settings, name: str = "") -> None:
        self.samples = SAMPLES
        self.time_steps = settings.max_time_steps
        self.values = settings.max_values
        self.events = settings.max_body_bytes // RECORD.itemsize
        self.neuron_steps = 2 * settings.max_values
        self.recorded_values = RECORDED_VALUES
        self.answer_bytes = settings.answer_bytes
        self.answer = AnswerSize(task, name)
        self.widest = task.widest
        self.neurons = task.recordable
        self.trained_steps = task.time_steps
        self.sample_values = math.prod(task.input.shape)
        self.commas, self.brackets = self._delimiters(task)

    @property
    def max_request_samples(self) -> int:
        """The most samples of a request that runs the trained time steps, at least 1."""
        steps = self.trained_steps
        by_values = self.values // (steps * self.widest)
        by_neurons = self.neuron_steps // (steps * max(1, self.neurons))
        by_answer = (self.answer_bytes - self.answer.native(0, steps)) // self.answer.sample
        return max(1, min(self.samples, by_values, by_neurons, by_answer))

    def check_steps(self, steps: int, where: str) -> None:
        """Raise InvalidInput for more time steps than are allowed; `where` names the field that holds them."""
        if not 1 <= steps <= self.time_steps:
            raise InvalidInput(f"{where} is {shown(steps)}, expected 1 to {self.time_steps}")

    def check_size(self, samples: int, time_steps: int, recorded: Iterable[str] = ()) -> None:
        """Raise TooLarge or InvalidInput for more work than is allowed; `recorded` names what the engine records."""
        if samples > self.samples:
            raise TooLarge(f"inputs has {samples} samples, expected at most {self.samples} in one request")
        values = samples * time_steps * self.widest
        if values > self.values:
            raise TooLarge(
                f"inputs has {samples} samples, which at {time_steps} time_steps are {values} values in this model's "
                f"widest layer, expected at most {self.values}"
            )
        neuron_steps = samples * time_steps * self.neurons
        if neuron_steps > self.neuron_steps:
            raise TooLarge(
                f"inputs has {samples} samples, which at {time_steps} time_steps of this model's {self.neurons} "
                f"neurons are {neuron_steps} neuron steps, expected at most {self.neuron_steps}"
            )
        for each in recorded:
            if neuron_steps > self.recorded_values:
                raise InvalidInput(
                    f"return has '{each}', which for {samples} samples at {time_steps} time_steps is {neuron_steps} "
                    f"values, expected at most {self.recorded_values}"
                )

    def check_answer(self, samples: int, size: int) -> None:
        """Raise TooLarge for an answer that may take more than is allowed; `size` is the most that it takes."""
        if size > self.answer_bytes:
            raise TooLarge(
                f"inputs has {samples} samples, whose answer may take {size} bytes, expected at most "
                f"{self.answer_bytes} in one answer of this model"
            )

    def check_raster(self, spikes: int, size: int, samples: int, time_steps: int) -> None:
        """Raise InvalidInput for a raster of more spikes than may be recorded: a neuron may fire several a step.

        `size` is that of the answer with one spike per neuron and step.
        """
        if spikes > self.recorded_values:
            raise InvalidInput(
                f"return has 'raster', which for these inputs holds {spikes} spikes, expected at most "
                f"{self.recorded_values}"
            )
        more = (spikes - samples * time_steps * self.neurons) * self.answer.event(time_steps)
        self.check_answer(samples, size + max(0, more))

    def check_delimiters(self, body: bytes) -> None:
        """Raise TooLarge for a body with more delimiters than the largest allowed request has.

        A value or a list takes far more memory than its two or three bytes of JSON: a parsed body can take sixty times
        its bytes, so that a limit on bytes is not enough.
        """
        for what, count, most in (
            ("commas", body.count(b","), self.commas),
            ("lists and objects", body.count(b"[") + body.count(b"{"), self.brackets),
        ):
            if count > most:
                raise TooLarge(f"the body has {count} {what}, expected at most {most} in one request for this model")

    def _delimiters(self, task: Spec) -> tuple[int, int]:
        """Return the most commas and opening brackets of a request: one comma per value, one bracket per row.

        A sample with a value for each step has as many in every step. One of events is allowed as many as a raster in
        which every value is 1.
        """
        spikes = task.coding is Coding.SPIKES
        steps = min(self.samples * (self.time_steps if task.coding.per_step else 1), self.values // self.widest)
        shape = task.input.shape
        values = steps * math.prod(shape) * (EVENT_FIELDS if spikes else 1)
        rows = steps * sum(accumulate(shape[:-1], mul, initial=1))
        # A sample's object and the lists of its events, or the list of its steps.
        lists = self.samples * (1 + EVENT_FIELDS if spikes else int(task.coding.per_step))
        return values + SPARE, rows + lists + SPARE
