"""PyTorch's products of eight bits: layer by layer, each Linear of narrow weights as its dynamic quantisation has it.

Eight bits hold spikes exactly, and such weights too, so that the counts are those of float32.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.ao.nn.quantized.dynamic import Linear

from benchmarks.contestants.base import Job, Run, Skipped
from benchmarks.contestants.torch_compile import neurons
from benchmarks.contestants.torch_stack import Library, inference
from spikeserve.models.spec.narrow import narrow_of


def prepare(job: Job) -> Run:
    """Return a run of the network."""
    matrices = [tensor for name, tensor in job.network.tensors.items() if name.endswith("weight") and tensor.ndim == 2]
    if not any(narrow_of(matrix) for matrix in matrices):
        raise Skipped("the network has no matrix of narrow weights; see --bits")
    if not np.isin(job.inputs.steps, (0.0, 1.0)).all():
        raise Skipped("it would round inputs that are no spikes")
    return inference(job, Library(neurons, connect=by_integers))


def by_integers(connections: nn.Module) -> nn.Module:
    """Have each Linear whose weights are narrow computed in integers."""
    return nn.Sequential(*map(_by_integers, connections.children()))


def _by_integers(module: nn.Module) -> nn.Module:
    narrow = narrow_of(module.weight.numpy()) if isinstance(module, nn.Linear) else None
    if not isinstance(module, nn.Linear) or narrow is None:
        return module
    scales = torch.from_numpy(np.ldexp(1.0, narrow.exponents))
    weight = torch.quantize_per_channel(
        module.weight, scales, torch.zeros(len(scales), dtype=torch.long), 0, torch.qint8
    )
    made = Linear(module.in_features, module.out_features, bias_=module.bias is not None)  # type: ignore[no-untyped-call]
    made.set_weight_bias(weight, module.bias)
    return made
