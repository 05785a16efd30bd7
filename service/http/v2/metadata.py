"""A model's metadata and configuration, as the protocol and Triton describe them."""

from __future__ import annotations

import json

from models.bundle.external import AnyTask
from service.catalog.loaded import LoadedModel
from service.http.v2.schemas import ModelConfig, ModelMetadata, TensorMetadata
from service.inference.v2.outputs import INPUT, VARIES, outputs_of, sample_shape
from service.inference.v2.tensors import Datatype

PLATFORM = "spikeserve"


def metadata(model: LoadedModel, versions: list[str]) -> ModelMetadata:
    """Describe the tensors of `model`; `versions` are the ready ones."""
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


def config(model: LoadedModel) -> ModelConfig:
    """Return the model's configuration, with the field names of Triton's."""
    spec = model.spec
    return {
        "name": model.name,
        "platform": PLATFORM,
        "backend": PLATFORM,
        "max_batch_size": model.limits.max_request_samples,
        "input": [{"name": INPUT, "data_type": f"TYPE_{Datatype.FP32}", "dims": list(sample_shape(spec))}],
        "output": [
            {"name": output.name, "data_type": _config_type(output.datatype), "dims": [output.width(spec)]}
            for output in outputs_of(spec).values()
        ],
        "parameters": {name: {"string_value": value} for name, value in _parameters(spec).items()},
    }


def _parameters(spec: AnyTask) -> dict[str, str]:
    """Return what a model's configuration says beside its tensors; lists are JSON."""
    values = {"time_steps": spec.time_steps, "coding": spec.coding, "readout": spec.readout, "scores": spec.scores}
    parameters = {name: str(value) for name, value in values.items()}
    if not spec.scores.has_classes:
        parameters |= {
            "names": json.dumps(spec.labels, ensure_ascii=False),
            "units": json.dumps(spec.units, ensure_ascii=False),
        }
    return parameters


def _config_type(datatype: Datatype) -> str:
    return "TYPE_STRING" if datatype is Datatype.BYTES else f"TYPE_{datatype}"
