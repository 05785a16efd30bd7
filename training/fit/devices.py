"""The processes that a run is divided among, one for each device; lightning-fabric starts and connects them.

Every process reads the same data, draws the same random numbers and holds the same weights. Of each batch it runs its
share of the rows; what a step needs of the whole batch, such as the loss and the gradients, is summed over the
processes. So the result does not depend on their number.

The module is not wrapped in DistributedDataParallel: gradients are summed once per step here, and the module keeps its
own outputs.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, distributed

from spikeserve.models.engines.torch.engine import usable_device
from spikeserve.training.config import Precision, TrainingConfig
from spikeserve.training.errors import InvalidConfig, TrainingError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

SECONDS_TO_LEAVE = 10.0


@dataclass(frozen=True)
class Share:
    """A process's rows of a batch, and their weight in a mean over the processes.

    `copies` is how many processes run each row: 1, or all of them for a batch that has fewer rows than they are.
    """

    rows: slice
    weight: float
    copies: int

    @classmethod
    def of(cls, size: int, rank: int, count: int) -> Self:
        """Return the share of process `rank` of `count` in a batch of `size` rows; shares differ by one row at most."""
        if size < count:
            return cls(slice(0, size), 1 / count, count)
        start, end = (size * each // count for each in (rank, rank + 1))
        return cls(slice(start, end), (end - start) / size, 1)


class Devices:
    """The processes of a run. As a context manager it ends the others when the first one leaves it."""

    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric
        self.count: int = fabric.world_size
        self.rank: int = fabric.global_rank
        self.device: torch.device = fabric.device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes, prints and ends the run."""
        return self.rank == 0

    def share(self, size: int) -> Share:
        """Return this process's share of a batch of `size` rows."""
        return Share.of(size, self.rank, self.count)

    def sum(self, own: Tensor) -> Tensor:
        """Return the sum of a tensor over the processes, without a gradient."""
        if self.count == 1:
            return own.detach()
        total = own.detach().clone()
        distributed.all_reduce(total)  # Fabric.all_reduce would wait at a barrier before
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

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context of the forward pass, in which products have the type of the configured precision."""
        return self.fabric.autocast()

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

    def end_others(self) -> None:
        """End the processes that this one started; what they wait for will not come."""
        started = list(self._started)
        self._started.clear()  # fabric watches this list, and would kill the run for a process that ended early
        for process in started:
            process.kill()
            process.wait()

    def _wait_for_others(self) -> None:
        """Wait until the processes that this one started have left, which they do after their last step."""
        for process in list(self._started):
            with suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS_TO_LEAVE)
        self.end_others()

    @property
    def _started(self) -> list[subprocess.Popen[bytes]]:
        return getattr(self.fabric.strategy.launcher, "procs", [])

    def leave(self) -> None:
        """End this process quietly, unless it is the first: what is left of the run is not divided."""
        if not self.first:
            raise SystemExit(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.first:
            self._wait_for_others() if error is None else self.end_others()
        elif isinstance(error, KeyboardInterrupt):
            raise SystemExit(0) from None
        elif isinstance(error, TrainingError):  # it is the same in each process, and the first says it
            raise SystemExit(1) from None


def launch(config: TrainingConfig) -> Devices:
    """Start the processes of a configuration, or join those that torchrun or Ray Train started.

    A process that is started here runs this program from its beginning, up to this call. Raises InvalidConfig or
    EngineUnavailable, before any is started, for devices or a precision that cannot be had.
    """
    # Imported here, since it takes two seconds, for which --help and a mistake in the flags need not wait.
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    settings = config.parallel
    device = usable_device(config.device)
    # Ray Train sets the variables of torchrun, except for the one that says so, and has connected the processes.
    by_torchrun = TorchElasticEnvironment.detect() or distributed.is_initialized()
    processes, nodes = settings.devices, 1
    if by_torchrun:
        processes = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // processes
    if settings.devices not in (1, processes):
        raise InvalidConfig(f"parallel.devices: is {settings.devices}, but {processes} processes were started here")
    _require(device, processes, settings.precision)
    if not by_torchrun:
        _require_cores(device, processes)
    started_before = not by_torchrun and processes > 1 and "LOCAL_RANK" in os.environ
    if started_before and os.environ["LOCAL_RANK"] == "0":
        raise InvalidConfig("parallel.devices: more than 1 in a program that started its processes before")
    if started_before:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process is interrupted, and ends this one
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    fabric = Fabric(
        accelerator=device.type,
        devices=processes if device.index is None else [device.index],
        num_nodes=nodes,
        strategy="ddp" if by_torchrun or processes > 1 else "auto",
        precision=settings.precision.value,
        plugins=TorchElasticEnvironment() if by_torchrun else None,
    )
    fabric.launch()
    return Devices(fabric)


def _require_cores(device: torch.device, processes: int) -> None:
    """Refuse more processes than cores; two may share one, so that a division can be tried anywhere."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if device.type == "cpu" and processes > max(cores, 2):
        raise InvalidConfig(f"parallel.devices: is {processes}, expected at most one for each core here ({cores})")


def _require(device: torch.device, processes: int, precision: Precision) -> None:
    if precision is Precision.BFLOAT16 and device.type != "cuda":
        raise InvalidConfig(
            f"parallel.precision: 'bf16-mixed' needs CUDA, but device is '{device}'; expected '32-true'"
        )
    if device.type == "cuda":
        found = torch.cuda.device_count() if device.index is None else 1
        if processes > found:
            raise InvalidConfig(f"parallel.devices: is {processes}, but device '{device}' is {found} of them here")
