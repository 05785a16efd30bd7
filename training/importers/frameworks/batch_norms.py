"""Batch norms in evaluation: folded into the connection before them, or a factor and an offset of each channel.

A network may have one of its own for each step (BNTT, https://arxiv.org/abs/2010.01729), and its forward then takes
another module at each step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spikeserve.models.spec.nodes import Weighted
from spikeserve.training.importers import connections
from spikeserve.training.importers.frameworks.layer import Layer, Rule

KINDS = (nn.BatchNorm1d, nn.BatchNorm2d)


class ByStep(nn.Module):
    """Batch norms of which each is for one step."""

    def __init__(self, norms: Sequence[nn.Module]) -> None:
        super().__init__()
        self.norms = nn.ModuleList(norms)

    def forward(self, steps: Tensor) -> Tensor:
        """Return each step of (time_steps, batch, *shape), of at most as many steps as there are, under its own."""
        return torch.stack([norm(step) for norm, step in zip(self.norms, steps, strict=False)])


def extended(norms: nn.Module | None, step: int, norm: nn.Module | None) -> ByStep | None:
    """Return the batch norms of the steps before `step` with that of `step` too, None where they are not such."""
    each = [*(norms.norms if isinstance(norms, ByStep) else [norms]), norm]
    known = [norm for norm in each if isinstance(norm, KINDS) and type(norm) in KINDS]
    return ByStep(known) if len(known) == len(each) == step + 1 else None


def batch_norm(layer: Layer) -> None:
    """Fold a batch norm in evaluation into the connection before it, in float64, rounded once to float32.

    Where no connection comes right before it, or others take what that gives, it becomes a Scale.
    """
    module, builder = layer.module, layer.builder
    if _uses_statistics_of_its_batch(layer, module):
        return
    place = next((place for place, node in enumerate(builder.nodes) if [node.name] == builder.sources), -1)
    before: Any = builder.nodes[place] if place >= 0 else None
    scale, shift = _affine(module)
    if not isinstance(before, Weighted) or not layer.alone:
        _add(layer, scale, shift)
        return
    weight, bias = (builder.tensors.get(f"{before.name}.{parameter}") for parameter in ("weight", "bias"))
    if weight is None or len(weight) != module.num_features:
        layer.refuse(f"num_features is {module.num_features}", f"'{before.name}' before it has another number")
        return
    folded = weight.astype(np.float64) * scale.reshape(-1, *(1 for _ in weight.shape[1:]))
    builder.tensors[f"{before.name}.weight"] = folded.astype(np.float32)
    moved = shift if bias is None else shift + bias.astype(np.float64) * scale
    builder.tensors[f"{before.name}.bias"] = moved.astype(np.float32)
    builder.nodes[place] = before.model_copy(update={"bias": True})
    layer.findings.notes.append(
        f"The batch norm `{layer.path}` is folded into `{before.name}`: computed in float64 and rounded once, where "
        "the framework rounds after each layer, so that a membrane within rounding of its threshold may fall otherwise."
    )


def by_step(layer: Layer) -> None:
    """Convert a batch norm for each step: a Scale whose factors and offsets are those of the step."""
    _of_steps(layer, [*layer.module.norms])


def _of_steps(layer: Layer, norms: Sequence[nn.Module]) -> None:
    if any(_uses_statistics_of_its_batch(layer, norm) for norm in norms):
        return
    scales, shifts = zip(*map(_affine, norms), strict=True)
    _add(layer, np.stack(scales), np.stack(shifts))


def through_time(layer: Layer) -> None:
    """Convert SpikingJelly's BatchNormThroughTime (BNTT), which holds a batch norm for each step in `bn_list`."""
    _of_steps(layer, [*layer.module.bn_list])


def temporal(layer: Layer) -> None:
    """Convert SpikingJelly's TemporalEffectiveBatchNorm: a batch norm times a factor of each step, `scale` (T,).

    TEBN: https://openreview.net/forum?id=fLIgyyQiJqz.
    """
    if _uses_statistics_of_its_batch(layer, layer.module):
        return
    with torch.no_grad():
        of_steps = layer.module.scale.double().numpy()
    scale, shift = _affine(layer.module)
    _add(layer, np.outer(of_steps, scale), np.outer(of_steps, shift))


def _uses_statistics_of_its_batch(layer: Layer, norm: Any) -> bool:
    if norm.running_mean is not None:
        return False
    layer.refuse("track_running_stats is False", "it needs each batch's own statistics")
    return True


def _affine(norm: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the factor and the offset of each channel, (channels,) each, in float64."""
    with torch.no_grad():
        precise = {name: value.double().numpy() for name, value in norm.state_dict().items()}
    scale = precise.get("weight", 1.0) / np.sqrt(precise["running_var"] + norm.eps)
    return scale, precise.get("bias", 0.0) - precise["running_mean"] * scale


def _add(layer: Layer, scale: NDArray[np.float64], shift: NDArray[np.float64]) -> None:
    layer.builder.add(connections.affine(layer.name, scale, shift))
    layer.findings.notes.append(
        f"The batch norm `{layer.path}` is a factor and an offset of each channel: computed in float64 and rounded "
        "once, where the framework may round otherwise."
    )


BATCH_NORMS: Mapping[type[nn.Module], Rule] = MappingProxyType({**dict.fromkeys(KINDS, batch_norm), ByStep: by_step})
