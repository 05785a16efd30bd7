"""The contract of an external ONNX model: what its input and its output mean."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from math import prod
from typing import Annotated, Any, Literal, Self

from pydantic import StringConstraints, ValidationError, model_validator

from spikeserve.models.errors import InvalidInput, InvalidSpec
from spikeserve.models.spec import Coding, Readout, Scores, Task, describe_first_error
from spikeserve.models.spec.parameters import Shape

PROBABILITY_TOLERANCE = 0.01  # by which probabilities may add up to another sum than 1, as of float16
ValueName = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class AxisLayout(StrEnum):
    """The leading axes of the model's input; the axes of one sample follow them."""

    BATCH = "batch"
    TIME_BATCH = "time_batch"
    BATCH_TIME = "batch_time"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the axes, in order."""
        return _AXES[self]

    def axes(self, batch: int, time_steps: int, rest: Shape) -> Shape:
        """Return the shape of an array in this layout."""
        sizes = {"batch": batch, "time_steps": time_steps}
        return (*(sizes[name] for name in self.names), *rest)

    def shown(self, rest: Shape) -> str:
        """Write the shape with its axes' names, as `[batch, time_steps, 64]`."""
        return f"[{', '.join([*self.names, *map(str, rest)])}]"


_AXES = {
    AxisLayout.BATCH: ("batch",),
    AxisLayout.TIME_BATCH: ("time_steps", "batch"),
    AxisLayout.BATCH_TIME: ("batch", "time_steps"),
}


class OutputKind(StrEnum):
    """The meaning of the model's output."""

    SCORES = "scores"
    COUNTS = "counts"
    SPIKES_PER_STEP = "spikes_per_step"


class OnnxContract(Task):
    """The contract of an external ONNX model: names, layout and meaning of its input and output.

    `independent_rows` is its author's promise that a sample's output does not depend on the other samples of a batch.
    Without it the graph is only ever given one sample at a time.
    """

    input_name: ValueName
    input_layout: AxisLayout = AxisLayout.BATCH
    output_name: ValueName
    output_kind: OutputKind = OutputKind.SCORES
    any_time_steps: bool = False
    independent_rows: bool = False

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Self:
        """Validate the fields of a contract; raises InvalidSpec with one sentence on the first error."""
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise InvalidSpec(f"the contract is invalid: {describe_first_error(error)}") from error

    @model_validator(mode="after")
    def _can_be_kept(self) -> Self:
        self._check_coding()
        if self.input_layout is AxisLayout.BATCH and self.coding is not Coding.DIRECT:
            raise InvalidSpec(
                f"coding '{self.coding}' gives other values at each step, which the layout 'batch' has no "
                "axis for; expected 'time_batch' or 'batch_time'"
            )
        if self.input_layout is AxisLayout.BATCH and self.any_time_steps:
            raise InvalidSpec("any_time_steps needs an input with an axis for time, not the layout 'batch'")
        if self.output_kind is not OutputKind.SCORES and self.scores is not Scores.SOFTMAX:
            raise InvalidSpec(
                f"scores is '{self.scores}', but output_kind '{self.output_kind}' counts spikes; expected 'softmax', "
                "or output_kind 'scores'"
            )
        return self

    @property
    def readout(self) -> Readout | Literal[OutputKind.SCORES]:
        """The quantity that the class is read from."""
        return OutputKind.SCORES if self.output_kind is OutputKind.SCORES else Readout.SPIKE_COUNT

    @property
    def widest(self) -> int:
        """The number of values of one sample in the input or the output, whichever has more; the rest is not known."""
        return max(prod(self.input.shape), self.classes)

    @property
    def recordable(self) -> int:
        """0, since it is not known which of the graph's values are spikes."""
        return 0

    @property
    def layers(self) -> Mapping[str, int]:
        """Empty, since it is not known which of the graph's values are spikes."""
        return {}

    def check_steps(self, time_steps: int) -> None:
        """Raise InvalidInput if the contract fixes another number of steps."""
        if not self.any_time_steps and time_steps != self.time_steps:
            raise InvalidInput(f"time_steps is {time_steps}, but this ONNX model runs for {self.time_steps}")

    def input_shape(self, batch: int, time_steps: int) -> Shape:
        """Return the shape of the model's input."""
        return self.input_layout.axes(batch, time_steps, self.input.shape)

    @property
    def output_layout(self) -> AxisLayout:
        """The leading axes of the output; spikes per step have the input's layout, or time first if it has no time."""
        if self.output_kind is not OutputKind.SPIKES_PER_STEP:
            return AxisLayout.BATCH
        return AxisLayout.TIME_BATCH if self.input_layout is AxisLayout.BATCH else self.input_layout

    def output_shape(self, batch: int, time_steps: int) -> Shape:
        """Return the shape of the model's output."""
        return self.output_layout.axes(batch, time_steps, (self.classes,))
