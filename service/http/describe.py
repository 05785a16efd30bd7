"""A model as GET /models/{name} describes it."""

from __future__ import annotations

import numpy as np

from models.bundle.external import AnyTask
from models.spec import Input, Spec
from service.catalog.loaded import LoadedModel
from service.catalog.version import VersionStatus
from service.http.schemas import InputDescription, ModelDescription, NodeDescription


def described(model: LoadedModel, versions: list[VersionStatus]) -> ModelDescription:
    """Describe `model`; `versions` is the status of every version of it."""
    spec, manifest = model.spec, model.bundle.manifest
    return {
        "name": model.name,
        "version": model.version,
        "versions": versions,
        "engine": model.engine.name,
        "created": manifest.created.isoformat(),
        "input": _input(spec.input),
        "coding": spec.coding,
        "time_steps": spec.time_steps,
        "any_time_steps": isinstance(spec, Spec) or spec.any_time_steps,
        "readout": spec.readout,
        "labels": list(spec.labels),
        "scores": spec.scores,
        "units": None if spec.units is None else list(spec.units),
        "nodes": _nodes(spec),
        "calibration": _calibration(model),
        "metrics": manifest.metrics,
        "card": model.bundle.card,
    }


def _calibration(model: LoadedModel) -> dict[str, float] | None:
    calibration = model.bundle.calibration
    return None if calibration is None else calibration.model_dump()


def _input(declared: Input) -> InputDescription:
    low, high = declared.low, declared.high
    of_low, of_high = (np.broadcast_to(end, declared.shape).ravel().tolist() for end in declared.range)
    return {
        "shape": list(declared.shape),
        "low": low if isinstance(low, float) else of_low,
        "high": high if isinstance(high, float) else of_high,
        "out_of_range": declared.out_of_range,
        "events": declared.events,
    }


def _nodes(spec: AnyTask) -> list[NodeDescription]:
    """Return the network's nodes; those of an external ONNX model are not known."""
    if not isinstance(spec, Spec):
        return []
    return [{"name": node.name, "type": node.type, "shape": list(spec.output_shapes[node.name])} for node in spec.nodes]
