"""What the protocol and Triton say of models: metadata, configuration, and the index of the repository."""

from __future__ import annotations

import json

from spikeserve.models.spec import Spec
from spikeserve.service.catalog.catalog import Catalog, Version, VersionState
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.inference.protocols.v2.schemas import IndexEntry, ModelConfig, ModelMetadata
from spikeserve.service.inference.protocols.v2.tensors import INPUT, VARIES, Datatype, outputs_of, sample_shape

PLATFORM = "spikeserve"
EXTENSIONS = [
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "sequence",
]
STATES = {VersionState.LOADING: "LOADING", VersionState.READY: "READY", VersionState.FAILED: "UNAVAILABLE"}


def index(catalog: Catalog, *, ready: bool) -> list[IndexEntry]:
    """List every version with its state, and the models that were unloaded; only those that are `ready` if asked."""
    entries = [_entry(version) for versions in catalog.models.values() for version in versions.values()]
    unloaded = STATES[VersionState.FAILED]
    entries += [{"name": name, "state": unloaded, "reason": "unloaded"} for name in sorted(catalog.unloaded)]
    return [entry for entry in entries if entry["state"] == STATES[VersionState.READY] or not ready]


def metadata(model: LoadedModel, catalog: Catalog) -> ModelMetadata:
    """Describe the tensors of `model`, and name its versions that are ready; raises ModelNotFound."""
    spec, versions = model.spec, catalog.versions_of(model.name).values()
    return {
        "name": model.name,
        "versions": [str(each.version) for each in versions if each.state is VersionState.READY],
        "platform": PLATFORM,
        "inputs": [{"name": INPUT, "datatype": Datatype.FP32, "shape": [VARIES, *sample_shape(spec)]}],
        "outputs": [
            {"name": output.name, "datatype": output.datatype, "shape": [VARIES, output.width(spec)]}
            for output in outputs_of(spec).values()
        ],
    }


def config(model: LoadedModel, idle_seconds: float) -> ModelConfig:
    """Return the model's configuration, with the field names of Triton's; a sequence may be idle for so long."""
    spec = model.spec
    config: ModelConfig = {
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
    if not spec.read_whole:
        idle = round(idle_seconds * 1e6)
        config["sequence_batching"] = {"max_sequence_idle_microseconds": idle, "direct": {}}
    return config


def _parameters(spec: Spec) -> dict[str, str]:
    """Return a model's configuration without its tensors; lists are JSON."""
    values = {"time_steps": spec.time_steps, "coding": spec.coding, "readout": spec.readout, "scores": spec.scores}
    lists = {} if spec.scores.has_classes else {"names": spec.labels, "units": spec.units}
    told = {name: json.dumps(each, ensure_ascii=False) for name, each in lists.items()}
    return {name: str(value) for name, value in values.items()} | told


def _config_type(datatype: Datatype) -> str:
    return "TYPE_STRING" if datatype is Datatype.BYTES else f"TYPE_{datatype}"


def _entry(version: Version) -> IndexEntry:
    reason = "" if version.state is VersionState.READY else version.why_not_ready
    return {"name": version.name, "version": str(version.version), "state": STATES[version.state], "reason": reason}
