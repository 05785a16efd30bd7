"""PyTorch's tensors as the kernels take them: flat arrays on the same memory, copied only where they must be."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (its usual name)

from models.spec.network import FloatArray


def flat(tensor: Tensor) -> FloatArray:
    """Return a contiguous tensor's memory as a flat array."""
    array: FloatArray = tensor.detach().view(-1).numpy()
    return array


def strided(tensor: Tensor) -> tuple[FloatArray, int, int]:
    """Return the memory of a tensor (steps, batch, *shape), and how far apart its steps and samples lie there.

    The tensor may be expanded along the first two axes; along the others it is copied unless it is contiguous.
    """
    tensor = tensor.detach()
    if not tensor[0, 0].is_contiguous():
        tensor = tensor.contiguous()
    steps, samples = tensor.stride(0), tensor.stride(1)
    extent = (tensor.shape[0] - 1) * steps + (tensor.shape[1] - 1) * samples + math.prod(tensor.shape[2:])
    return tensor.as_strided((extent,), (1,)).numpy(), steps, samples


def padded_row(values: Tensor | None, width: int) -> FloatArray:
    """Return a vector as an array padded by 0, or zeros."""
    row = np.zeros(width, np.float32)
    if values is not None:
        row[: values.numel()] = values.detach().reshape(-1).numpy()
    return row


def padded_rows(values: Tensor, width: int) -> Tensor:
    """Return rows (…, size) padded by 0, (…, width), contiguous."""
    values = values.detach()
    missing = width - values.shape[-1]
    return F.pad(values, (0, missing)) if missing else values.contiguous()


def empty(*shape: int) -> Tensor:
    """Return a tensor that holds anything."""
    return torch.empty(shape)
