"""What exact sums cost where half of the inputs spike: `python -m benchmarks.dense`.

784 inputs of 1000 neurons, 25 steps of 32 samples, of which half spike. A float32 GEMM is the fastest product, but its
sums round, and so do those of its parts unless these have so few bits that every sum fits: weights of 24 bits are two
parts of 12 bits in float32, whose sums of up to 2**12 spikes fit its 24, or three of 8 bits in int8, which int32 adds
up. Each is compared with the sum in float64, and times are of one thread, the least of several turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch
from rich.console import Console
from torch import Tensor

from benchmarks.machine import machine

ROWS, INPUTS, OUTPUTS, TURNS = 25 * 32, 784, 1000, 40
HALF, BYTE = 2.0**12, 2**8


def ways(spikes: Tensor, whole: Tensor) -> Mapping[str, Callable[[], Tensor]]:
    """Make the ways to multiply spikes (rows, inputs) with whole weights (inputs, outputs) below 2**23."""
    floats, high = whole.float(), (whole / HALF).round()
    low = (whole - high * HALF).float()
    shorts, high = spikes.to(torch.int8), high.float()
    left, bytes_of = whole.long(), list[Tensor]()
    for _ in range(3):  # the digits of each weight, from -128 to 127
        digit = (left + BYTE // 2) % BYTE - BYTE // 2
        bytes_of.append(digit.to(torch.int8))
        left = (left - digit) // BYTE

    def of_bytes() -> Tensor:
        products = [torch._int_mm(shorts, each).double() for each in bytes_of]
        return products[0] + products[1] * BYTE + products[2] * BYTE**2

    return {
        "a float32 GEMM": lambda: spikes @ floats,
        "two of 12 bits each": lambda: (spikes @ high).double() * HALF + (spikes @ low),
        "three of int8": of_bytes,
    }


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    spikes = (torch.rand(ROWS, INPUTS, generator=generator) < 0.5).float()
    whole = (torch.randn(INPUTS, OUTPUTS, generator=generator, dtype=torch.float64) * 2**20).round()
    exact, console = spikes.double() @ whole, Console()
    for name, multiply in ways(spikes, whole).items():
        least = min(_seconds(multiply) for _ in range(TURNS))
        wrong = int((multiply().double() != exact).sum())
        console.print(f"{name}: {1000 * least:.1f} ms, {wrong} of {exact.numel()} sums differ")
    console.print(machine(["torch"]))


def _seconds(call: Callable[[], Tensor]) -> float:
    began = time.thread_time()
    call()
    return time.thread_time() - began


if __name__ == "__main__":
    main()
