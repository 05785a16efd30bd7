"""PyTorch's tensors as the kernels take them: flat arrays on the same memory, copied only where they must be."""

from __future__ import annotations

import ctypes
import math
import mmap
from contextlib import suppress
from functools import cache

import numpy as np
import torch
from torch import Tensor

from spikeserve.models.spec.network import FloatArray

TRIM_THRESHOLD, MMAP_MAX, HUGE_PAGES = -1, -4, 14  # of <malloc.h> and <sys/mman.h>
RESERVED = 2**29  # bytes, of addresses only: memory is taken where it is touched


@cache  # once
def reserve_memory() -> None:
    """Let glibc keep large arrays that are freed, up to 2 GiB, for the next step, which asks for the same ones.

    It would give each back to the system, and the first touch of a fresh page takes longer than all that is computed
    from its floats. The heap grows by `RESERVED` bytes in huge pages: a product picks rows from all over its weight,
    and would wait for the address of each small page. Other C libraries are left as they are.
    """
    with suppress(AttributeError, OSError):
        library = ctypes.CDLL(None)
        library.mallopt(MMAP_MAX, 0)
        library.mallopt(TRIM_THRESHOLD, 2**31 - 1)
        library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
        library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        start = library.malloc(ctypes.c_size_t(RESERVED))
        if start:
            page = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
            library.madvise(page, RESERVED - mmap.PAGESIZE, HUGE_PAGES)
            library.free(start)


def floats(*shape: int) -> FloatArray:
    """Return an array of any floats that begins with a line of the cache, so that no vector lies across two."""
    array: FloatArray = torch.empty(*shape).numpy()
    return array


def flat(tensor: Tensor) -> FloatArray:
    """Return a contiguous tensor's memory as a flat array."""
    array: FloatArray = tensor.detach().numpy().reshape(-1)
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
