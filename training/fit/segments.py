"""Long sequences in segments: gradients through all steps in the memory of a few, or through a few steps only.

A network's state goes in and comes out, so that a sequence can be run piece by piece. With `recompute` a segment keeps
nothing but its first state for the backward pass, which runs it once more: the gradients are those of the whole
sequence, up to the rounding of sums, but for a learned delay's, which looks no further than its segment. With
`truncate` no gradient passes from a segment to the one before (truncated back-propagation through time, Williams &
Peng, 1990).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from spikeserve.models.engines.torch.operations import Threshold
from spikeserve.training.fit.batch_norm import WholeBatch
from spikeserve.training.fit.network import Activity, State, TrainingNetwork


@dataclass(frozen=True)
class Lengths:
    """The steps after which gradients end, and those that are kept in memory at a time; None is all."""

    truncate: int | None = None
    recompute: int | None = None


@dataclass(frozen=True)
class PassResult:
    """The result of a pass: `output` (time_steps, batch, classes), and each layer's firing rate, a scalar, by name."""

    output: Tensor
    rates: Mapping[str, Tensor]


Segment = Callable[[Tensor, int, State | None, WholeBatch | None], tuple[PassResult, State]]


def run(
    module: TrainingNetwork,
    steps: Tensor,
    time_steps: int,
    threshold: Threshold,
    lengths: Lengths = Lengths(),
    whole: WholeBatch | None = None,
) -> PassResult:
    """Run a batch from rest, in segments where `lengths` says so; `steps` and `whole` are as for TrainingNetwork."""

    def plain(
        steps: Tensor, time_steps: int, state: State | None, whole: WholeBatch | None
    ) -> tuple[PassResult, State]:
        activity: Activity = module(steps, time_steps, threshold, state, whole)
        return PassResult(activity.output, activity.rates), activity.state

    again = lengths.recompute is not None and torch.is_grad_enabled()
    segment: Segment = partial(_recomputed, plain) if again else plain
    cuts = _cuts(time_steps, lengths)
    outputs: list[Tensor] = []
    rates: dict[str, Tensor] = {}
    state: State | None = None
    for start, end in cuts:
        rows = None if whole is None else whole._replace(seed=whole.seed + start)  # other dropout for each
        part = steps if len(steps) == 1 else steps[start:end]
        if state is not None and lengths.truncate is not None and start % lengths.truncate == 0:
            state = _rebuilt(state, (values.detach() for values in _tensors(state)))
        passed, state = segment(part, end - start, state, rows)
        outputs.append(passed.output)
        for name, rate in passed.rates.items():
            share = rate * ((end - start) / time_steps) if len(cuts) > 1 else rate
            rates[name] = rates[name] + share if name in rates else share
    return PassResult(torch.cat(outputs) if len(cuts) > 1 else outputs[0], rates)


def _cuts(time_steps: int, lengths: Lengths) -> list[tuple[int, int]]:
    """Return the first step of each segment and that after its last: there is a cut at each multiple of a length."""
    places = {0, time_steps}
    for length in (lengths.truncate, lengths.recompute):
        places.update(range(0, time_steps, length) if length is not None else ())
    ordered = sorted(places)
    return list(pairwise(ordered))


def _recomputed(
    segment: Segment, steps: Tensor, time_steps: int, state: State | None, whole: WholeBatch | None
) -> tuple[PassResult, State]:
    """Run a segment and keep only the state before, from which the backward pass computes all again."""
    passed = PassResult(steps, {})
    after: State = {}

    def compute(_: Tensor, steps: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        nonlocal passed, after
        before = None if state is None else _rebuilt(state, iter(given))
        passed, after = segment(steps, time_steps, before, whole)
        return (passed.output, *passed.rates.values(), *_tensors(after))

    # `checkpoint` asks for an input with a gradient: that the weights have one does not count.
    wanted = torch.zeros((), requires_grad=True)
    given = () if state is None else tuple(_tensors(state))
    computed = iter(checkpoint(compute, wanted, steps, *given, use_reentrant=True))
    output = next(computed)
    rates = {name: next(computed) for name in passed.rates}
    return PassResult(output, rates), _rebuilt(after, computed)


def _tensors(state: State) -> Iterator[Tensor]:
    for value in state.values():
        yield from ([value] if isinstance(value, Tensor) else value.values())


def _rebuilt(like: State, tensors: Iterator[Tensor]) -> State:
    """Return a state of the form of `like`, of other tensors in order."""
    return {
        name: next(tensors) if isinstance(value, Tensor) else {part: next(tensors) for part in value}
        for name, value in like.items()
    }
