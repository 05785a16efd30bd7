"""A Conv1d over time, or synapses with delays, is imported as a Delay with taps and a Linear, unless it looks ahead."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec.nodes import Delay
from spikeserve.plugins.frameworks.compare import compare, random_encoded, run_framework
from spikeserve.training.errors import NotConvertible
from tests.plugins.frameworks.plain_network import PLAIN, Steps, taken_in

Way = Callable[[Any, nn.Conv1d, Tensor], Tensor]
UNITS, STEPS = 6, 8


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
def test_a_convolution_over_time_is_a_delay_and_a_linear(way: Way, padding: int, taps: list[tuple[int, ...]]) -> None:
    net = Net(way, padding)
    found = taken_in(net, UNITS, batch=3)
    assert [node.taps for node in found.network.spec.nodes if isinstance(node, Delay)] == taps
    inputs = random_encoded(found.network.spec, 16)
    rows = compare(found, run_framework(found, PLAIN, inputs), ReferenceEngine(found.network), inputs)
    assert [row.differing for row in rows] == [0] * 4
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
            "looks ahead by 1, which no stream can: pad time by 2 on the left alone, and train it so; or",
        ),
        (lambda _, conv, x: conv(left(conv, x, value=1.0)), 0, "pads time with 1, expected zeros"),
        (
            lambda _, conv, x: functional.conv1d(left(conv, x), conv.weight, stride=2),
            0,
            "runs along time with stride 2 and padding_mode 'zeros', expected 1",
        ),
        (lambda net, conv, x: net.norm(conv(x)), 2, "takes steps before the first or behind the last.*: pad time on t"),
    ],
)
def test_what_no_stream_could_compute_is_refused_in_a_sentence(way: Way, padding: int, sentence: str) -> None:
    with pytest.raises(NotConvertible, match=sentence) as raised:
        taken_in(Net(way, padding), UNITS, batch=3)
    assert "\n" not in str(raised.value)


def of_modules() -> nn.Module:
    torch.manual_seed(0)
    left, further = nn.ConstantPad1d((2, 0), 0.0), nn.ConstantPad1d((4, 0), 0.0)
    return nn.Sequential(
        left, nn.Conv1d(UNITS, 8, 3), nn.BatchNorm1d(8), nn.ReLU(), further, nn.Conv1d(8, 4, 3, dilation=2)
    )


@pytest.mark.parametrize(
    ("network", "shape", "taps"), [(of_modules(), (UNITS,), [(0, 1, 2), (0, 2, 4)]), (of_modules(), (UNITS, STEPS), [])]
)
def test_a_shape_says_what_is_time(network: nn.Module, shape: tuple[int, ...], taps: list[tuple[int, ...]]) -> None:
    found = taken_in(network, *shape, batch=3, time_steps=STEPS if len(shape) == 1 else 1)
    spec = found.network.spec
    assert [node.taps for node in spec.nodes if isinstance(node, Delay)] == taps
    over = "runs over time, of which each step has the shape 6" if taps else "along the length within a step of"
    assert [over in note for note in found.notes if "Its Conv1d" in note] == [True]
    steps = random_encoded(spec, 16).dense().steps
    result, _ = ReferenceEngine(found.network).run(DenseInputs(steps, len(steps)))
    scores = network(torch.from_numpy(steps).permute(1, 2, 0) if taps else torch.from_numpy(steps[0]))
    expected = scores.mean(2) if taps else scores.flatten(1)  # the mean over time is read of each step's scores
    torch.testing.assert_close(torch.from_numpy(result.readout), expected, rtol=1e-4, atol=1e-4)


class Delayed(nn.Module):
    """Two layers of synapses with learned delays, of 0 to 8 steps, as Hammouamri et al. (2024) write and round them."""

    def __init__(self, dcls: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        settings = {"kernel_count": 1, "dilated_kernel_size": 9, "version": "gauss"}
        self.first, self.second = dcls(UNITS, 8, bias=False, **settings), dcls(8, 5, **settings)
        self.fires = Steps()
        for layer in (self.first, self.second):
            nn.init.uniform_(layer.P, -4, 4)
            layer.weight.data *= 4
            layer.SIG.data *= 0
            layer.version = layer.DCK.version = "max"
            layer.P.data.round_()
            layer.clamp_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Take (time, batch, units) and give the scores of each step, (time, batch, classes)."""
        first = self.first(functional.pad(x.permute(1, 2, 0), (8, 0))).permute(2, 0, 1)
        return self.second(functional.pad(self.fires(first).permute(1, 2, 0), (8, 0))).permute(2, 0, 1)


def test_learned_delays_of_dcls_are_one_tap_for_each_synapse_spike_for_spike() -> None:
    net = Delayed(pytest.importorskip("DCLS.construct.modules").Dcls1d)
    found = taken_in(net, UNITS, batch=3)
    weights = [values for name, values in found.network.tensors.items() if name.endswith("weight")]
    assert [np.count_nonzero(values) for values in weights] == [8 * UNITS, 5 * 8]
    inputs = random_encoded(found.network.spec, 16)
    rows = compare(found, run_framework(found, PLAIN, inputs), ReferenceEngine(found.network), inputs)
    assert [row.differing for row in rows] == [0] * 3
    assert rows[0].spikes
    result, _ = ReferenceEngine(found.network).run(inputs)
    scores = net(torch.from_numpy(inputs.dense().steps)).mean(0)
    torch.testing.assert_close(torch.from_numpy(result.readout), scores, rtol=1e-4, atol=1e-4)


def test_a_tap_that_no_synapse_has_is_left_out() -> None:
    conv = nn.Conv1d(UNITS, 4, 9)
    conv.weight.data[:, :, [0, 1, 2, 4, 5, 7]] = 0
    found = taken_in(nn.Sequential(nn.ConstantPad1d((8, 0), 0.0), conv), UNITS)
    (delay,) = (node for node in found.network.spec.nodes if isinstance(node, Delay))
    assert delay.taps == (0, 2, 5)  # places 8, 6 and 3 of the kernel, of which the last is now
