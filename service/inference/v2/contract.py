"""What a model takes and gives, as tensors: for its metadata, its configuration and each request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from models.bundle.external import AnyTask
from models.engines import RunResult
from models.spec import Coding, Readout, Spec, Task
from service.catalog.served import ServedModel
from service.inference.inputs import Reader
from service.inference.v2.schemas import ModelConfig, ModelMetadata, TensorMetadata
from service.inference.v2.tensors import Array, Datatype

PLATFORM = "spikeserve"
INPUT = "inputs"
VARIES = -1


@dataclass(frozen=True)
class Output:
    """An output, (batch, width): one column for each class or one alone, and how it follows from a run."""

    name: str
    datatype: Datatype
    per_class: bool
    of: Callable[[RunResult, Task], Array]

    def width(self, spec: Task) -> int:
        """How many columns it has."""
        return spec.classes if self.per_class else 1


def _labels(result: RunResult, spec: Task) -> Array:
    return np.array([spec.labels[index] for index in result.class_index.tolist()], object)[:, np.newaxis]


_OUTPUTS = (
    Output("spike_counts", Datatype.INT64, True, lambda result, _: result.spike_counts),
    Output("probabilities", Datatype.FP32, True, lambda result, _: result.probabilities),
    Output("class_index", Datatype.INT64, False, lambda result, _: result.class_index[:, np.newaxis]),
    Output("label", Datatype.BYTES, False, _labels),
)
_OPERATIONS = Output(
    "synaptic_operations", Datatype.INT64, False, lambda run, _: np.asarray(run.synaptic_operations)[:, np.newaxis]
)
_READOUT = Output("readout", Datatype.FP32, True, lambda result, _: result.readout)


def outputs_of(spec: AnyTask) -> Mapping[str, Output]:
    """Return a model's outputs by name.

    The operations of a model of others are not known; the readout is an output where it is not the spike counts.
    """
    outputs = (*_OUTPUTS, _OPERATIONS) if isinstance(spec, Spec) else _OUTPUTS
    outputs = outputs if spec.readout is Readout.SPIKE_COUNT else (*outputs, _READOUT)
    return {output.name: output for output in outputs}


def sample_shape(spec: Task) -> tuple[int, ...]:
    """Return the shape of one sample; -1 is how many time steps a raster has."""
    return (VARIES, *spec.input.shape) if spec.coding is Coding.SPIKES else spec.input.shape


def metadata(model: ServedModel, versions: list[str]) -> ModelMetadata:
    """Describe `model`; `versions` are those that answer."""
    spec = model.spec
    outputs: list[TensorMetadata] = [
        {"name": output.name, "datatype": output.datatype, "shape": [VARIES, output.width(spec)]}
        for output in outputs_of(spec).values()
    ]
    return {
        "name": model.name,
        "versions": versions,
        "platform": PLATFORM,
        "inputs": [{"name": INPUT, "datatype": Datatype.FP32, "shape": [VARIES, *sample_shape(spec)]}],
        "outputs": outputs,
    }


def config(model: ServedModel) -> ModelConfig:
    """Return the model's configuration, in the words of Triton's."""
    spec = model.spec
    values = {"time_steps": spec.time_steps, "coding": spec.coding, "readout": spec.readout}
    return {
        "name": model.name,
        "platform": PLATFORM,
        "backend": PLATFORM,
        "max_batch_size": most_samples(model.reader),
        "input": [{"name": INPUT, "data_type": f"TYPE_{Datatype.FP32}", "dims": list(sample_shape(spec))}],
        "output": [
            {"name": output.name, "data_type": _config_type(output.datatype), "dims": [output.width(spec)]}
            for output in outputs_of(spec).values()
        ],
        "parameters": {name: {"string_value": str(value)} for name, value in values.items()},
    }


def _config_type(datatype: Datatype) -> str:
    return "TYPE_STRING" if datatype is Datatype.BYTES else f"TYPE_{datatype}"


def most_samples(reader: Reader) -> int:
    """Return how many samples a request of the trained time steps may have, at least one."""
    limits, steps = reader.limits, reader.spec.time_steps
    by_values = limits.values // (steps * reader.widest)
    by_neurons = limits.neuron_steps // (steps * max(1, reader.neurons))  # a graph of others has none that are known
    return max(1, min(limits.samples, by_values, by_neurons))
