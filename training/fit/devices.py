"""The processes that a run is divided among, one for each device, which torchrun or Ray Train starts.

Every process reads the same data, draws the same random numbers and holds the same weights. Of each batch it runs its
share of the rows; what a step needs of the whole batch, such as the loss and the gradients, is summed over the
processes. So the result does not depend on their number.

The module is not wrapped in DistributedDataParallel: gradients are summed once per step here, and the module keeps its
own outputs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from spikeserve.models.engines.torch.engine import usable_device
from spikeserve.training.config import Precision, TrainingConfig
from spikeserve.training.errors import InvalidConfig


@dataclass(frozen=True)
class Share:
    """A process's rows of a batch, and their weight in a mean over the processes.

    `copies` is how many processes run each row: 1, or all of them for a batch that has fewer rows than they are.
    """

    rows: slice
    weight: float
    copies: int


class Devices:
    """The processes of a run, of which this is number `rank`, on its `device`."""

    def __init__(self, device: torch.device, precision: Precision) -> None:
        joined = distributed.is_initialized()
        self.count = distributed.get_world_size() if joined else 1
        self.rank = distributed.get_rank() if joined else 0
        self.device, self.precision = device, precision

    @property
    def first(self) -> bool:
        """Whether this is the process that writes, prints and ends the run."""
        return self.rank == 0

    def share(self, size: int) -> Share:
        """Return this process's share of a batch of `size` rows; shares differ by one row at most."""
        if size < self.count:
            return Share(slice(0, size), 1 / self.count, self.count)
        start, end = (size * each // self.count for each in (self.rank, self.rank + 1))
        return Share(slice(start, end), (end - start) / size, 1)

    def sum(self, own: Tensor) -> Tensor:
        """Return the sum of a tensor over the processes, without a gradient."""
        if self.count == 1:
            return own.detach()
        total = own.detach().clone()
        distributed.all_reduce(total)
        return total

    def mean(self, own: Tensor, weight: float) -> Tensor:
        """Return the weighted mean over the processes, whose weights add up to 1.

        Its gradient is that of this process's part only: `sum_gradients` adds the others'.
        """
        if self.count == 1:
            return own
        part = own * weight
        return part + (self.sum(part) - part.detach())

    def total(self, own: float) -> float:
        """Return the sum of a number over the processes."""
        return float(self.sum(torch.tensor(own, dtype=torch.float64, device=self.device)))

    def autocast(self) -> torch.autocast:
        """Return the context of the forward pass, in which products have the type of the configured precision."""
        enabled = self.precision is Precision.BFLOAT16
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Add up the gradients of all processes, once the step's backward passes are done."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.count == 1 or not gradients:
            return
        total = self.sum(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = torch.split(total, [gradient.numel() for gradient in gradients])
        for gradient, values in zip(gradients, parts, strict=True):
            gradient.copy_(values.view_as(gradient))

    def synchronise(self, module: torch.nn.Module) -> None:
        """Give every process the weights of the first, so that no difference between machines stays."""
        if self.count > 1:
            for values in module.state_dict().values():
                distributed.broadcast(values, 0)


def join(config: TrainingConfig) -> Devices:
    """Join the processes that torchrun or Ray Train started; without them this one is alone.

    Raises InvalidConfig or EngineUnavailable for a device or a precision that cannot be had.
    """
    device = usable_device(config.device)
    if config.parallel.precision is Precision.BFLOAT16 and device.type != "cuda":
        raise InvalidConfig(
            f"parallel.precision: 'bf16-mixed' needs CUDA, but device is '{device}'; expected '32-true'"
        )
    by_ray = distributed.is_initialized()  # which has connected the processes already
    if by_ray or distributed.is_torchelastic_launched():
        if device.type == "cuda":
            device = usable_device(f"cuda:{os.environ['LOCAL_RANK']}")
            torch.cuda.set_device(device)
        if not by_ray:
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Devices(device, config.parallel.precision)
