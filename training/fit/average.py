"""The moving average of a network's weights over the steps, which is what is validated and exported.

The weights jump about with each batch, and their average lies nearer to the middle (Polyak & Juditsky, 1992).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from spikeserve.training.fit.network import TrainingNetwork


def averaged(module: TrainingNetwork, keep: float) -> AveragedModel:
    """Return the moving average of a network's weights; each update keeps the share `keep`, in [0, 1), of it.

    Each of its tensors has the shape of the network's. The first update takes the weights as they are, and the n-th
    keeps at most n / (n + 9), so that a long average does not remember the random start.
    """

    def average(before: Tensor, now: Tensor, updates: Tensor | int) -> Tensor:
        n = int(updates) + 1
        return torch.lerp(now, before, min(keep, n / (n + 9)))

    return AveragedModel(module, avg_fn=average)
