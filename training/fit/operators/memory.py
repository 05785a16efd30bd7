"""PyTorch's tensors as the kernels take them: flat arrays on the same memory, copied only where they must be."""

from __future__ import annotations

import math
import sys
import threading

import numpy as np
import torch
from torch import Tensor

from spikeserve.models.spec.network import FloatArray

LARGE = 2**18  # floats
FORGOTTEN = 512  # large arrays that were asked for since an array was last of use


class _Pool:
    """Large arrays that are used again once no tensor holds them.

    A training step asks for the same arrays as the one before. From the system they would be fresh each time, and the
    first touch of a fresh page takes longer than all that is computed from its floats.
    """

    def __init__(self) -> None:
        self.arrays: list[FloatArray] = []
        self.last_use: list[int] = []
        self.asked = 0
        self.lock = threading.Lock()

    def empty(self, count: int) -> FloatArray:
        """Return an array of `count` floats, whatever they are."""
        with self.lock:
            self.asked += 1
            for at in range(len(self.arrays)):
                size = self.arrays[at].size
                if count <= size <= count + count // 4 and _references(self.arrays, at) == UNUSED:
                    self.last_use[at] = self.asked
                    return self.arrays[at][:count]
            self._forget()
            made: FloatArray = np.empty(count, np.float32)
            self.arrays.append(made)
            self.last_use.append(self.asked)
            return made[:count]

    def _forget(self) -> None:
        kept = [at for at, last in enumerate(self.last_use) if self.asked - last <= FORGOTTEN]
        self.arrays = [self.arrays[at] for at in kept]
        self.last_use = [self.last_use[at] for at in kept]


def _references(arrays: list[FloatArray], at: int) -> int:
    return sys.getrefcount(arrays[at])


UNUSED = _references([np.empty(0, np.float32)], 0)  # of an array that only the pool holds
pool = _Pool()


def empty(*shape: int) -> Tensor:
    """Return a tensor that holds anything."""
    count = math.prod(shape)
    return torch.empty(shape) if count < LARGE else torch.from_numpy(pool.empty(count)).view(shape)


def flat(tensor: Tensor) -> FloatArray:
    """Return a contiguous tensor's memory as a flat array."""
    array: FloatArray = tensor.detach().view(-1).numpy()
    return array


def strided(tensor: Tensor) -> tuple[FloatArray, int, int]:
    """Return the memory of a tensor (steps, batch, *shape), and how far apart its steps and samples lie there.

    The tensor may be expanded along the first two axes; along the others it is copied unless it is contiguous. A single
    step stands for all: its distance is 0.
    """
    tensor = tensor.detach()
    if not tensor[0, 0].is_contiguous():
        tensor = tensor.contiguous()
    steps, samples = tensor.stride(0), tensor.stride(1)
    extent = (tensor.shape[0] - 1) * steps + (tensor.shape[1] - 1) * samples + math.prod(tensor.shape[2:])
    return tensor.as_strided((extent,), (1,)).numpy(), steps if len(tensor) > 1 else 0, samples


def padded_row(values: Tensor | None, width: int) -> FloatArray:
    """Return a vector as an array padded by 0, or zeros."""
    row = np.zeros(width, np.float32)
    if values is not None:
        row[: values.numel()] = values.detach().reshape(-1).numpy()
    return row


def padded_rows(values: Tensor, width: int) -> Tensor:
    """Return a copy of rows (…, size) padded by 0, (…, width), contiguous."""
    rows = values.new_zeros(*values.shape[:-1], width)
    rows[..., : values.shape[-1]] = values.detach()
    return rows
