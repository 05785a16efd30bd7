"""Long sequences in segments, through whose ends no gradient passes.

A network's state goes in and comes out, so that a sequence can be run piece by piece: truncated back-propagation
through time (Williams & Peng, 1990). A learned delay's gradient looks no further than its segment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from spikeserve.models.engines.torch.operations import Threshold
from spikeserve.training.fit.batch_norm import WholeBatch
from spikeserve.training.fit.network import Activity, State, TrainingNetwork


@dataclass(frozen=True)
class PassResult:
    """The result of a pass: `output` (time_steps, batch, classes), and each layer's firing rate, a scalar, by name."""

    output: Tensor
    rates: Mapping[str, Tensor]


def run(
    module: TrainingNetwork,
    steps: Tensor,
    time_steps: int,
    threshold: Threshold,
    truncate: int | None = None,
    whole: WholeBatch | None = None,
) -> PassResult:
    """Run a batch from rest, in segments of `truncate` steps; `steps` and `whole` are as for TrainingNetwork."""
    length = min(truncate or time_steps, time_steps)
    outputs: list[Tensor] = []
    rates: dict[str, Tensor] = {}
    state: State | None = None
    for start in range(0, time_steps, length):
        end = min(start + length, time_steps)
        rows = None if whole is None else whole._replace(seed=whole.seed + start)  # other dropout for each
        part = steps if len(steps) == 1 else steps[start:end]
        activity: Activity = module(part, end - start, threshold, state, rows)
        state = _detached(activity.state)
        outputs.append(activity.output)
        for name, rate in activity.rates.items():
            share = rate * ((end - start) / time_steps) if length < time_steps else rate
            rates[name] = rates[name] + share if name in rates else share
    return PassResult(torch.cat(outputs) if len(outputs) > 1 else outputs[0], rates)


def _detached(state: State) -> State:
    return {
        name: value.detach() if isinstance(value, Tensor) else {part: each.detach() for part, each in value.items()}
        for name, value in state.items()
    }
