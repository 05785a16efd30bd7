"""Convolutions along the axis of time, as people write them: padded on the left, or on both sides and then cut."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from spikeserve.training.importers.frameworks.axes import Unsupported
from spikeserve.training.importers.frameworks.graph import StepValue

PADDING = StepValue(-2, None)  # a step of zeros, before the first or behind the last


def padded(module: nn.ConstantPad1d, values: Sequence[StepValue]) -> tuple[StepValue, ...]:
    """Return steps with those of a padding around them, or without so many where it is below 0."""
    left, right = module.padding
    if module.value != 0:
        raise Unsupported(f"pads time with {module.value:g}, expected zeros, which are what there was before a run")
    kept = values[max(0, -left) : len(values) - max(0, -right)]
    return (*[PADDING] * left, *kept, *[PADDING] * right)


def taps_of(conv: nn.Conv1d, values: Sequence[StepValue]) -> tuple[tuple[int, ...], list[StepValue]]:
    """Return how many steps ago each place of a kernel sees, and the steps that it runs over; raises Unsupported."""
    stride, dilation, kernel = (sizes[0] for sizes in (conv.stride, conv.dilation, conv.kernel_size))
    left, right = conv._reversed_padding_repeated_twice
    if stride != 1 or (conv.padding_mode != "zeros" and left + right):
        raise Unsupported(
            f"runs along time with stride {stride} and padding_mode '{conv.padding_mode}', expected 1, since all of a "
            "network runs at each step of its input, and zeros"
        )
    steps = [value for value in values if value != PADDING]
    before = left + next((place for place, value in enumerate(values) if value != PADDING), 0)
    numbered = [StepValue(value.node, place if value.step is None else value.step) for place, value in enumerate(steps)]
    whole = [StepValue(numbered[0].node, place) for place in range(len(steps))] if steps else []
    if not steps or numbered != whole or [*values[before - left :][: len(steps)]] != steps:
        raise Unsupported("runs along time over what is not all steps in their order")
    if before < dilation * (kernel - 1):
        raise Unsupported(
            f"looks ahead by {dilation * (kernel - 1) - before}, which no stream can: pad time by "
            f"{dilation * (kernel - 1)} on the left alone, and train it so; or, if no neuron has a state, import it "
            "for whole samples as one step: --input-shape CHANNELS,STEPS --time-steps 1"
        )
    return tuple(before - dilation * place for place in range(kernel)), numbered
