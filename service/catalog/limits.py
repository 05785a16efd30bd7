"""The limits of one request for a model: samples, time steps, values, its answer, and the delimiters of its JSON.

`service.inference.decoding.body` limits its bytes. The limits follow from the model and the settings, so that a request
is refused before any memory of its size is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import accumulate
from operator import mul

from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec import Coding, Spec, Task
from spikeserve.service.catalog.answer_size import AnswerSize
from spikeserve.service.errors import TooLarge, shown
from spikeserve.service.settings import Settings

SPARE = 2**14  # delimiters that are allowed in addition to those of the samples
EVENT_FIELDS = 4  # t, x, y and p: the most values that one event has


class ModelLimits:
    """The limits of one request for a model of `task`, from the settings.

    `widest` is the number of values of the model's widest layer; `neurons` is the number of neurons whose rasters and
    membranes can be recorded.
    """

    def __init__(self, task: Task, settings: Settings, name: str = "") -> None:
        self.samples = settings.max_samples
        self.time_steps = settings.max_time_steps
        self.values = settings.max_values
        self.events = settings.max_events
        self.neuron_steps = settings.max_neuron_steps
        self.recorded_values = settings.max_recorded_values
        self.answer_bytes = min(settings.max_answer_bytes, settings.max_pending_bytes)
        self.answer = AnswerSize(task, name)
        self.widest = task.widest
        self.neurons = task.recordable
        self.known = isinstance(task, Spec)  # whether it is known which values are spikes and membranes
        self.trained_steps = task.time_steps
        self.sample_values = math.prod(task.input.shape)
        self.commas, self.brackets = self._delimiters(task)

    @property
    def max_request_samples(self) -> int:
        """The most samples of a request that runs the trained time steps, at least 1."""
        steps = self.trained_steps
        by_values = self.values // (steps * self.widest)
        by_neurons = self.neuron_steps // (steps * max(1, self.neurons))  # an external ONNX model has none
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
            self._check_known(each)
            if neuron_steps > self.recorded_values:
                raise InvalidInput(
                    f"return has '{each}', which for {samples} samples at {time_steps} time_steps is {neuron_steps} "
                    f"values, expected at most {self.recorded_values}"
                )

    def check_report(self, time_steps: int) -> None:
        """Raise InvalidInput where a report of one sample would record more than is allowed, or nothing is known.

        A report records the spikes and membranes of some samples at a time, and keeps numbers alone.
        """
        self._check_known("report")
        values = time_steps * self.neurons
        if values > self.recorded_values:
            raise InvalidInput(
                f"return has 'report', which for one sample at {time_steps} time_steps records {values} values, "
                f"expected at most {self.recorded_values}"
            )

    def _check_known(self, asked: str) -> None:
        """Raise InvalidInput for what only a model whose neurons are known can return."""
        if not self.known:
            raise InvalidInput(
                f"return has '{asked}', but this model is only an ONNX graph, whose neurons are not known"
            )

    def check_answer(self, samples: int, size: int) -> None:
        """Raise TooLarge for an answer that may take more than max_answer_bytes; `size` is the most that it takes."""
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
        for what, found, most in (
            ("commas", body.count(b","), self.commas),
            ("lists and objects", body.count(b"[") + body.count(b"{"), self.brackets),
        ):
            if found > most:
                raise TooLarge(f"the body has {found} {what}, expected at most {most} in one request for this model")

    def _delimiters(self, task: Task) -> tuple[int, int]:
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
