"""A model as GET /models/{name} describes it."""

from __future__ import annotations

import numpy as np

from spikeserve.models.bundle import Bundle
from spikeserve.models.bundle.external import AnyTask
from spikeserve.models.engines.fan_out import dense_operations
from spikeserve.models.spec import Input, Spec
from spikeserve.models.spec.nodes import Node, Spiking
from spikeserve.models.spec.parameters import PER_NEURON
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.catalog.version import VersionStatus
from spikeserve.service.http.schemas import DenseOperations, InputDescription, ModelDescription, NodeDescription

MOST_THRESHOLDS = 20_000  # of one layer whose neurons have their own, so that a description stays small


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
        "nodes": _nodes(model),
        "dense_operations": _dense(spec),
        "calibration": _calibration(model),
        "metrics": manifest.metrics,
        "card": model.bundle.card,
    }


def _dense(spec: AnyTask) -> DenseOperations | None:
    if not isinstance(spec, Spec):
        return None
    once, per_step = dense_operations(spec)
    return {"once": once, "per_step": per_step}


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


def _nodes(model: LoadedModel) -> list[NodeDescription]:
    """Return the network's nodes; those of an external ONNX model are not known."""
    spec, bundle = model.spec, model.bundle
    if not isinstance(spec, Spec) or not isinstance(bundle, Bundle):
        return []
    return [
        {
            "name": node.name,
            "type": node.type,
            "shape": list(spec.output_shapes[node.name]),
            "fires": isinstance(node, Spiking),
            "threshold": _threshold(node, bundle),
        }
        for node in spec.nodes
    ]


def _threshold(node: Node, bundle: Bundle) -> float | list[float] | None:
    threshold = node.values().get("threshold") if isinstance(node, Spiking) else None
    if threshold is None:
        return None
    if threshold != PER_NEURON:
        return float(threshold)
    own = bundle.network.tensors[f"{node.name}.threshold"]
    return own.ravel().tolist() if own.size <= MOST_THRESHOLDS else None
