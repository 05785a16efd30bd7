"""A PyTorch Conv1d over time is imported as a Delay with taps and a Linear. One that looks ahead is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec.nodes import Delay
from spikeserve.training.errors import NotConvertible
from spikeserve.training.importers.frameworks.compare import compare, random_encoded, run_framework
from tests.training.plain_network import PLAIN, Steps, taken_in

Way = Callable[[Any, nn.Conv1d, Tensor], Tensor]
UNITS = 6


class Net(nn.Module):
    """Two convolutions over time with neurons behind them, and a Linear; `way` runs one on (batch, units, time)."""

    def __init__(self, way: Way, padding: int = 0) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first = nn.Conv1d(UNITS, 8, 3, padding=padding)
        self.second = nn.Conv1d(8, 8, 3, dilation=2, bias=False, padding=2 * padding)
        self.beside = nn.Conv1d(UNITS, 8, 1)
        self.fires, self.fires_too = Steps(), Steps()
        self.norm, self.last = nn.BatchNorm1d(8), nn.Linear(8, 3)
        for conv in (self.first, self.second):
            conv.weight.data *= 4
        nn.init.constant_(self.norm.bias, -0.25)
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        """Take (batch, time, units) and give the scores of each step, (batch, time, classes)."""
        x = x.transpose(1, 2)
        for conv, fires in ((self.first, self.fires), (self.second, self.fires_too)):
            currents = self.way(self, conv, x)
            x = fires(currents.permute(2, 0, 1)).permute(1, 2, 0)
        return self.last(x.transpose(1, 2))


def left(conv: nn.Conv1d, x: Tensor, more: int = 0, value: float = 0.0) -> Tensor:
    """Pad time on the left as far as the kernel reaches."""
    return functional.pad(x, (conv.dilation[0] * (conv.kernel_size[0] - 1) + more, 0), value=value)


def added(net: Net, conv: nn.Conv1d, x: Tensor) -> Tensor:
    found: Tensor = conv(left(conv, x))
    return found + x if found.shape == x.shape else net.beside(x) + found


def grouped(_: Net, conv: nn.Conv1d, x: Tensor) -> Tensor:
    half = conv.weight[:, : conv.in_channels // 2]
    return functional.conv1d(left(conv, x), half, conv.bias, dilation=conv.dilation, groups=2)


def functional_one(_: Net, conv: nn.Conv1d, x: Tensor) -> Tensor:
    delayed = left(conv, x, 1)[..., :-1]  # sees the step before, and no further than it
    return functional.conv1d(delayed, conv.weight, conv.bias, dilation=conv.dilation)


@pytest.mark.parametrize(
    ("way", "padding", "taps"),
    [
        (lambda _, conv, x: conv(left(conv, x)), 0, [(0, 1, 2), (0, 2, 4)]),
        (lambda net, conv, x: functional.relu(net.norm(conv(left(conv, x)))), 0, [(0, 1, 2), (0, 2, 4)]),
        (added, 0, [(0, 1, 2), (0, 2, 4)]),  # a kernel of 1 needs no taps
        (lambda _, conv, x: conv(x)[..., : x.shape[-1]], 2, [(0, 1, 2), (0, 2, 4)]),
        (grouped, 0, [(0, 1, 2), (0, 2, 4)]),
        (functional_one, 0, [(1, 2, 3), (1, 3, 5)]),
    ],
)
def test_a_convolution_over_time_is_a_delay_and_a_linear_spike_for_spike(
    way: Way, padding: int, taps: list[tuple[int, ...]]
) -> None:
    net = Net(way, padding)
    found = taken_in(net, UNITS, batch=3)
    assert [node.taps for node in found.network.spec.nodes if isinstance(node, Delay)] == taps
    inputs = random_encoded(found.network.spec, 16)
    rows = compare(found, run_framework(found, PLAIN, inputs), ReferenceEngine(found.network), inputs)
    assert [row.differing for row in rows] == [0] * 3
    assert all(row.spikes for row in rows[:2])
    # And the answer is that of the author's own forward: the mean over time is read of each step's scores.
    result, _ = ReferenceEngine(found.network).run(DenseInputs(inputs.dense().steps, inputs.time_steps))
    scores = net(torch.from_numpy(inputs.dense().steps).transpose(0, 1)).mean(1)
    torch.testing.assert_close(torch.from_numpy(result.readout), scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("way", "padding", "sentence"),
    [
        (
            lambda _, conv, x: conv(left(conv, x, -1)),
            0,
            "looks ahead by 1, which no stream can: pad time by 2 on the left",
        ),
        (lambda _, conv, x: conv(left(conv, x, value=1.0)), 0, "pads time with 1, expected zeros"),
        (
            lambda _, conv, x: functional.conv1d(left(conv, x), conv.weight, stride=2),
            0,
            "runs along time with stride 2 and padding_mode 'zeros', expected 1",
        ),
        (lambda net, conv, x: net.norm(conv(x)), 2, "takes steps before the first or behind the last"),
    ],
)
def test_what_no_stream_could_compute_is_refused_in_a_sentence(way: Way, padding: int, sentence: str) -> None:
    with pytest.raises(NotConvertible, match=sentence) as raised:
        taken_in(Net(way, padding), UNITS, batch=3)
    assert "\n" not in str(raised.value)
