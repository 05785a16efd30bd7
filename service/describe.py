"""A model as GET /models/{name} describes it."""

from __future__ import annotations

from collections.abc import Mapping

from service.registry import Slot
from service.schemas import ModelDescription
from service.served import ServedModel


def described(model: ServedModel, versions: Mapping[int, Slot]) -> ModelDescription:
    """Describe `model`, one of the `versions` that are served of it."""
    spec, manifest = model.spec, model.bundle.manifest
    return {
        "name": model.name,
        "version": model.version,
        "versions": [slot.status() for slot in versions.values()],
        "engine": model.engine.name,
        "created": manifest.created.isoformat(),
        "input": {"shape": list(spec.input.shape), "low": spec.input.low, "high": spec.input.high},
        "coding": spec.coding,
        "time_steps": spec.time_steps,
        "readout": spec.readout,
        "labels": list(spec.labels),
        "nodes": [
            {"name": node.name, "type": node.type, "shape": list(spec.output_shapes[node.name])} for node in spec.nodes
        ],
        "metrics": manifest.metrics,
        "card": model.bundle.card,
    }
