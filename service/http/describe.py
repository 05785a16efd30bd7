"""A model as GET /models/{name} describes it, and its examples: its golden samples, as the inputs of a request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from spikeserve.models.bundle import Bundle
from spikeserve.models.coding import encode
from spikeserve.models.coding.encode import uniform
from spikeserve.models.spec import Coding, Input, Spec
from spikeserve.models.spec.network import FloatArray
from spikeserve.models.spec.nodes import Node, Spiking
from spikeserve.models.spec.parameters import PER_NEURON
from spikeserve.service.catalog.catalog import VersionStatus
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.http.schemas import EventsExample, InputDescription, ModelDescription, NodeDescription

MOST_THRESHOLDS = 20_000  # of one layer whose neurons have their own, so that a description stays small


def described(model: LoadedModel, versions: list[VersionStatus]) -> ModelDescription:
    """Describe `model`; `versions` is the status of every version of it."""
    spec, manifest, calibration = model.spec, model.bundle.manifest, model.bundle.calibration
    once, per_step = model.dense
    return {
        "name": model.name,
        "version": model.version,
        "versions": versions,
        "engine": model.engine.name,
        "created": manifest.created.isoformat(),
        "input": _input(spec.input),
        "coding": spec.coding,
        "time_steps": spec.time_steps,
        "readout": spec.readout,
        "labels": list(spec.labels),
        "scores": spec.scores,
        "units": None if spec.units is None else list(spec.units),
        "nodes": _nodes(model),
        "dense_operations": {"once": once, "per_step": per_step},
        "expected_ms": round(1e3 * model.cost.expected(1, spec.time_steps), 4),
        "calibration": None if calibration is None else calibration.model_dump(),
        "metrics": manifest.metrics,
        "card": model.bundle.card,
    }


def _input(declared: Input) -> InputDescription:
    low, high = declared.low, declared.high
    of_low, of_high = (np.broadcast_to(end, declared.shape).ravel().tolist() for end in declared.range)
    return {
        "shape": list(declared.shape),
        "low": low if isinstance(low, float) else of_low,
        "high": high if isinstance(high, float) else of_high,
        "out_of_range": declared.out_of_range,
        "events": declared.events,
        "feature_names": None if declared.feature_names is None else list(declared.feature_names),
    }


def _nodes(model: LoadedModel) -> list[NodeDescription]:
    spec, bundle = model.spec, model.bundle
    bits = spec.weight_bits
    return [
        {
            "name": node.name,
            "type": node.type,
            "shape": list(spec.output_shapes[node.name]),
            "fires": isinstance(node, Spiking),
            "threshold": _threshold(node, bundle),
            "weight_bits": bits.get(f"{node.name}.weight", bits.get(f"{node.name}.recurrent.weight")),
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


MOST_EVENTS = 20_000  # or values, of one example, so that an answer stays small


def examples(model: LoadedModel) -> list[EventsExample] | list[list[float]] | list[list[list[float]]]:
    """Return golden samples, each an input for `predict`: as events for `spikes` coding, else as raw values.

    A bundle keeps golden samples as the network gets them. Of `rate` and `latency` coding the answer has raw values
    that are encoded as the same spikes. Left out are samples that cannot be told: values, or spikes, that no raw value
    gives; and spikes that are not sent as the greatest value of their range. So are samples of more than MOST_EVENTS
    events or values.
    """
    bundle, task = model.bundle, model.spec
    inputs, per_step = bundle.golden.inputs, task.coding.per_step
    if task.coding is Coding.SPIKES:
        return list(_events(inputs.steps, task.input))
    if (task.coding is Coding.DIRECT and not inputs.constant) or task.input.by_deviation:
        return []
    raw = _raw(inputs.steps, task)
    return (
        [each.reshape(len(each), -1).tolist() for each in raw] if per_step else [each.ravel().tolist() for each in raw]
    )


def _events(encoded: FloatArray, declared: Input) -> Iterator[EventsExample]:
    greatest = declared.normalise(np.broadcast_to(declared.range[1], declared.shape)).ravel()
    rasters = encoded.swapaxes(0, 1)
    for raster in rasters.reshape(*rasters.shape[:2], -1):
        t, unit = np.nonzero(raster)
        if len(t) <= MOST_EVENTS and (raster[t, unit] == greatest[unit]).all():
            yield {"t": t.tolist(), "unit": unit.tolist()}


def _raw(encoded: FloatArray, task: Spec) -> Iterator[FloatArray]:
    """Yield the raw values of each sample that has some; `encoded` is (time steps or 1, batch, *input shape)."""
    declared = task.input
    scale, offset = declared.factors
    low, high = declared.range
    for index in range(encoded.shape[1]):
        steps = encoded[:, index]
        value = _INVERSES[task.coding](steps)
        if value.size > MOST_EVENTS or not scale.all():
            continue
        exact = (value.astype(np.float64) - offset) / scale
        raw = np.clip(exact.astype(np.float32), low, high)
        for near in (np.nextafter(raw, low), np.nextafter(raw, high)):  # where a float32 rounded to the other side
            raw = np.where(declared.normalise(raw) == value, raw, np.clip(near, low, high))
        if (encode(raw[np.newaxis], task).steps[:, 0] == steps).all():
            yield raw


def _of_rate(spikes: FloatArray) -> FloatArray:
    """Return values that `rate` coding may have drawn spikes for: above each random number at whose step there is one.

    They are above no other number. An input without a spike is 0, one with all of them 1.
    """
    drawn, spiked = uniform(0, len(spikes), spikes.shape[1:]), spikes > 0
    between = (np.where(spiked, drawn, 0).max(axis=0) + np.where(spiked, 1, drawn).min(axis=0)) / 2
    return np.where(spiked.all(axis=0), 1, np.where(spiked.any(axis=0), between, 0)).astype(np.float32)


def _of_latency(spikes: FloatArray) -> FloatArray:
    """Return 1 - step / (time_steps - 1), but at the last step a quarter of what it is one step earlier, not 0."""
    last = max(1, len(spikes) - 1)
    step = spikes.argmax(axis=0)
    value = np.where(step == len(spikes) - 1, 1 / (4 * last), 1 - step / last) if len(spikes) > 1 else 1.0
    return np.where(spikes.any(axis=0), value, 0).astype(np.float32)


# Normalised values that are encoded as these steps (time_steps, *input shape), if any are.
_INVERSES: Mapping[Coding, Callable[[FloatArray], FloatArray]] = {
    Coding.DIRECT: lambda steps: steps[0],
    Coding.CURRENT: lambda steps: steps,
    Coding.RATE: _of_rate,
    Coding.LATENCY: _of_latency,
}
