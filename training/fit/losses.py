"""The losses: cross-entropy of the readout, and a penalty that keeps layers from firing too little or too much."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypedDict, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (its usual name)

from spikeserve.models.spec import Readout
from spikeserve.models.spec.readouts import Reduction
from spikeserve.training.errors import BrokenGradientChain, InvalidConfig, InvalidData
from spikeserve.training.fit.operators import own_steps

OVER_TIME: dict[Reduction, Callable[[Tensor], Tensor]] = {
    Reduction.SUM: lambda steps: steps.sum(dim=0),
    Reduction.MEAN: lambda steps: steps.mean(dim=0),
    Reduction.MAX: lambda steps: steps.amax(dim=0),
    Reduction.LAST: lambda steps: steps[-1],
}


def class_scores(output: Tensor, readout: Readout, lengths: Tensor | None = None) -> Tensor:
    """Return the readout, (batch, classes), of what is read at each step (time_steps, batch, classes).

    `lengths` (batch,) are each sample's own steps, the only ones that are read. Raises InvalidConfig for first spikes,
    which have no gradient.
    """
    require_trainable(readout)
    reduction = Reduction.SUM if readout is Readout.SPIKE_COUNT else readout.reduction
    if lengths is None:
        return OVER_TIME[reduction](output)
    if reduction is Reduction.LAST:
        return output[lengths - 1, torch.arange(len(lengths), device=output.device)]
    padding = ~own_steps(lengths, len(output)).unsqueeze(2)
    if reduction is Reduction.MAX:
        return output.masked_fill(padding, -torch.inf).amax(dim=0)
    total = output.masked_fill(padding, 0).sum(dim=0)
    return total / lengths.unsqueeze(1) if reduction is Reduction.MEAN else total


def require_trainable(readout: Readout) -> None:
    """Raise InvalidConfig for a readout that has no gradient."""
    if readout is Readout.FIRST_SPIKE:
        others = ", ".join(each for each in Readout if each is not Readout.FIRST_SPIKE)
        raise InvalidConfig(f"readout: is '{readout}', which has no gradient to train by, expected one of: {others}")


class Terms(TypedDict, total=False):
    """How a loss is taken: see `spike_loss`."""

    batch_first: bool
    class_weights: Tensor | None
    label_smoothing: float
    lengths: Tensor | None


def spike_loss(spikes: Tensor, targets: Tensor, **terms: Unpack[Terms]) -> Tensor:
    """Return the cross-entropy of spike counts, a scalar.

    `spikes` (time_steps, batch, classes), or with `batch_first` (batch, time_steps, classes), are summed over time, of
    each sample over as many steps as `lengths` (batch,) says, int64; `targets` (batch,) are class indices, int64. There
    may be `class_weights` (classes,) and `label_smoothing`, as of PyTorch's cross_entropy. Raises InvalidData for a
    wrong shape or type, or an unknown class. Without a gradient, the loss is a `DeadLoss`.
    """
    return readout_loss(spikes, targets, Readout.SPIKE_COUNT, **terms)


def membrane_loss(
    membrane: Tensor, targets: Tensor, readout: Readout | str = Readout.MAX_MEMBRANE, **terms: Unpack[Terms]
) -> Tensor:
    """Return the cross-entropy of a membrane, or of another output that is read over time, a scalar.

    The shape of `membrane`, and all else, is as for `spike_loss`.
    """
    return readout_loss(membrane, targets, Readout(readout), **terms)


def readout_loss(
    output: Tensor,
    targets: Tensor,
    readout: Readout,
    *,
    batch_first: bool = False,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    lengths: Tensor | None = None,
) -> Tensor:
    """Return the loss of what is read at each step, spikes, a membrane or another output, for this readout."""
    output = output.transpose(0, 1) if batch_first and output.ndim == 3 else output
    _check(output, targets, "spikes" if readout is Readout.SPIKE_COUNT else "membrane")
    if lengths is not None:
        _check_lengths(lengths, output)
    scores = class_scores(output, readout, lengths)
    # The mean is over samples, not over weights, so that the mean of two halves of a batch is that of the whole.
    loss = F.cross_entropy(scores, targets, class_weights, reduction="none", label_smoothing=label_smoothing).mean()
    return loss if loss.requires_grad else DeadLoss.of(loss)


def balancing_weights(labels: NDArray[np.int64], classes: int) -> Tensor:
    """Return weights (classes,) with which each class counts as much as the others, and a sample 1 on average."""
    counts = np.bincount(labels, minlength=classes)
    return torch.tensor(len(labels) / (classes * np.maximum(counts, 1)), dtype=torch.float32)


def rate_penalty(rates: Sequence[Tensor], low: float, high: float) -> Tensor:
    """Return the mean over layers of the squared distance of the firing rate from the band `low` to `high`, a scalar.

    Each rate is a scalar, spikes per neuron and step.
    """
    rate = torch.stack(list(rates))
    return ((rate - high).clamp(min=0) ** 2 + (low - rate).clamp(min=0) ** 2).mean()


class DeadLoss(Tensor):
    """A loss without a gradient. Its `backward` says why; PyTorch's only says that there is no grad_fn."""

    gradients_were_off = False  # where it was made

    @classmethod
    def of(cls, loss: Tensor) -> DeadLoss:
        """Return a loss as one that explains itself."""
        dead = loss.as_subclass(cls)
        dead.gradients_were_off = not torch.is_grad_enabled()
        return dead

    def backward(self, *arguments: Any, **named: Any) -> None:
        """Raise BrokenGradientChain; where a term with a gradient was added meanwhile, go backward as any tensor."""
        if self.requires_grad:
            super().backward(*arguments, **named)  # type: ignore[no-untyped-call]
            return
        off = "gradients were off where it was made (no_grad or inference_mode); " if self.gradients_were_off else ""
        raise BrokenGradientChain(
            f"the loss has no grad_fn, so nothing can be trained: {off}look for an output that was detached (detach, "
            "item, numpy), a forward pass under no_grad or inference_mode, an operation without a derivative (argmax, "
            "a plain comparison: a hard threshold without its surrogate), or frozen parameters"
        )


def _check_lengths(lengths: Tensor, output: Tensor) -> None:
    steps, batch = output.shape[:2]
    if lengths.dtype != torch.int64 or lengths.shape != (batch,) or not ((lengths >= 1) & (lengths <= steps)).all():
        raise InvalidData(f"lengths: are {lengths.tolist()!r:.80}, expected {batch} whole numbers from 1 to {steps}")


def _check(output: Tensor, targets: Tensor, name: str) -> None:
    if output.ndim != 3:
        raise InvalidData(f"{name}: shape is {tuple(output.shape)}, expected (time_steps, batch, classes)")
    if targets.dtype == torch.float32 and targets.shape == output.shape[1:]:
        return
    if targets.dtype != torch.int64:
        raise InvalidData(f"targets: type is {targets.dtype}, expected torch.int64 class indices")
    if targets.shape != output.shape[1:2]:
        raise InvalidData(
            f"targets: shape is {tuple(targets.shape)}, expected {tuple(output.shape[1:2])} as {name} has that batch"
        )
    classes = output.shape[2]
    if len(targets) and (int(targets.min()) < 0 or int(targets.max()) >= classes):
        raise InvalidData(
            f"targets: go from {int(targets.min())} to {int(targets.max())}, expected classes 0 to {classes - 1}"
        )
