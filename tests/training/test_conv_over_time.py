"""A Conv1d over time, as it is written in PyTorch, becomes a Delay with taps and a Linear; none that looks ahead."""

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

Way = Callable[[Any, Tensor], Tensor]
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
            currents = self.way((self, conv), x)
            x = fires(currents.permute(2, 0, 1)).permute(1, 2, 0)
        return self.last(x.transpose(1, 2))


def reach(conv: nn.Conv1d) -> int:
    return int(conv.dilation[0] * (conv.kernel_size[0] - 1))


def padded(given: Any, x: Tensor) -> Tensor:
    _, conv = given
    return conv(functional.pad(x, (reach(conv), 0)))


def normed(given: Any, x: Tensor) -> Tensor:
    net, conv = given
    return functional.relu(net.norm(conv(functional.pad(x, (reach(conv), 0)))))


def added(given: Any, x: Tensor) -> Tensor:
    net, conv = given
    found = conv(functional.pad(x, (reach(conv), 0)))
    return found + x if found.shape == x.shape else net.beside(x) + found


def cut(given: Any, x: Tensor) -> Tensor:
    return given[1](x)[..., : x.shape[-1]]


def functional_one(given: Any, x: Tensor) -> Tensor:
    _, conv = given
    padding = functional.pad(x, (reach(conv) + 1, 0))[..., :-1]  # sees the step before, and no further than it
    return functional.conv1d(padding, conv.weight, conv.bias, dilation=conv.dilation)


@pytest.mark.parametrize(
    ("way", "padding", "taps"),
    [
        (padded, 0, [(0, 1, 2), (0, 2, 4)]),
        (normed, 0, [(0, 1, 2), (0, 2, 4)]),
        (added, 0, [(0, 1, 2), (0, 2, 4)]),  # a kernel of 1 needs no taps
        (cut, 2, [(0, 1, 2), (0, 2, 4)]),
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


def symmetric(given: Any, x: Tensor) -> Tensor:
    _, conv = given
    return conv(functional.pad(x, (reach(conv) // 2, reach(conv) // 2)))


def constant(given: Any, x: Tensor) -> Tensor:
    return given[1](functional.pad(x, (reach(given[1]), 0), value=1.0))


def strided(given: Any, x: Tensor) -> Tensor:
    _, conv = given
    return functional.conv1d(functional.pad(x, (reach(conv), 0)), conv.weight, stride=2)


def uncut(given: Any, x: Tensor) -> Tensor:
    return given[0].norm(given[1](x))


@pytest.mark.parametrize(
    ("way", "padding", "sentence"),
    [
        (symmetric, 0, "sees 1 steps ahead, which a stream does not know yet: pad time by 2 on the left"),
        (constant, 0, "pads time with 1, expected zeros"),
        (strided, 0, "runs along time with stride 2, 1 groups"),
        (uncut, 2, "takes steps before the first or behind the last"),
    ],
)
def test_what_no_stream_could_compute_is_refused_in_a_sentence(way: Way, padding: int, sentence: str) -> None:
    with pytest.raises(NotConvertible, match=sentence) as raised:
        taken_in(Net(way, padding), UNITS, batch=3)
    assert "\n" not in str(raised.value)
