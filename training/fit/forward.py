"""The forward pass of training, from raw samples: encoded, moved to the device, and run from rest."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spikeserve.models.coding import encode
from spikeserve.models.engines.torch.operations import Threshold
from spikeserve.models.spec.network import FloatArray
from spikeserve.training.fit.batch_norm import WholeBatch
from spikeserve.training.fit.network import Activity, TrainingNetwork


def encoded(module: TrainingNetwork, samples: FloatArray, seed: int | Sequence[int] = 0) -> tuple[Tensor, int]:
    """Return a network's inputs on its device, (time_steps or 1, batch, *shape), and the number of steps."""
    inputs = encode(samples, module.spec, seed=seed)
    return torch.from_numpy(inputs.steps).to(next(module.parameters()).device), inputs.time_steps


def forward(
    module: TrainingNetwork,
    samples: FloatArray,
    threshold: Threshold,
    seed: int | Sequence[int] = 0,
    whole: WholeBatch | None = None,
) -> Activity:
    """Encode raw samples (batch, *shape), or (batch, time_steps, *shape) of a sequence, and run them from rest.

    `seed` is of rate coding, one for each sample or for all; `whole` tells of the batch of which they are some rows.
    """
    activity: Activity = module(*encoded(module, samples, seed), threshold, whole)
    return activity
