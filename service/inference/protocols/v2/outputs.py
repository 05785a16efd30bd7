"""A model's input and output tensors, and how each output is computed from a run's result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from spikeserve.models.bundle.external import AnyTask
from spikeserve.models.engines import RunResult
from spikeserve.models.spec import Readout, Spec, Task
from spikeserve.service.inference.protocols.v2.tensors import Array, Datatype

INPUT = "inputs"
VARIES = -1


@dataclass(frozen=True)
class Output:
    """An output (batch, width), of one column per class or one column, and the function that computes it from a run."""

    name: str
    datatype: Datatype
    per_class: bool
    of: Callable[[RunResult, Task], Array]

    def width(self, spec: Task) -> int:
        """Return the number of its columns."""
        return spec.classes if self.per_class else 1


def _labels(result: RunResult, spec: Task) -> Array:
    return np.array([spec.labels[index] for index in result.class_index.tolist()], object)[:, np.newaxis]


_COUNTS = Output("spike_counts", Datatype.INT64, True, lambda result, _: result.spike_counts)
_OF_CLASSES = (
    _COUNTS,
    Output("probabilities", Datatype.FP32, True, lambda result, spec: spec.scores.probabilities(result.readout)),
    Output("class_index", Datatype.INT64, False, lambda result, _: result.class_index[:, np.newaxis]),
    Output("label", Datatype.BYTES, False, _labels),
)
_OPERATIONS = Output(
    "synaptic_operations", Datatype.INT64, False, lambda run, _: np.asarray(run.synaptic_operations)[:, np.newaxis]
)
STEPS_USED = Output("steps_used", Datatype.INT64, False, lambda result, _: np.asarray(result.steps_used)[:, np.newaxis])
_OF_VALUES = (Output("values", Datatype.FP32, True, lambda result, _: result.readout), _COUNTS)
_READOUT = Output("readout", Datatype.FP32, True, lambda result, _: result.readout)


def outputs_of(spec: AnyTask) -> Mapping[str, Output]:
    """Return a model's outputs by name.

    An external ONNX model has no synaptic_operations; `readout` is an output only where it is no other one, and
    `steps_used` where samples can end before their last step.
    """
    outputs = _OF_CLASSES if spec.scores.has_classes else _OF_VALUES
    outputs = (*outputs, _OPERATIONS) if isinstance(spec, Spec) else outputs
    if spec.scores.has_classes and spec.readout is not Readout.SPIKE_COUNT:
        outputs = (*outputs, _READOUT)
    if spec.scores.has_classes and isinstance(spec, Spec):
        outputs = (*outputs, STEPS_USED)
    return {output.name: output for output in outputs}


def sample_shape(spec: Task) -> tuple[int, ...]:
    """Return the shape of one sample; -1 stands for the time steps of one that has a value for each step."""
    return (VARIES, *spec.input.shape) if spec.coding.per_step else spec.input.shape
