"""A forward has to compute the same again, of other sizes too, and what its graph computes: else it is refused."""

import random
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec import Readout
from spikeserve.models.spec.network import FloatArray
from spikeserve.plugins.frameworks.compare import random_encoded
from spikeserve.plugins.frameworks.convert import ConvertedNetwork
from spikeserve.training.errors import NotConvertible
from tests.plugins.frameworks.plain_network import Hidden, Steps, taken_in

SIZE, TIME_STEPS = 6, 8


class Net(nn.Module):
    """A layer of neurons over all steps, and whatever a test's own forward keeps or changes."""

    buffer: Tensor

    def __init__(self, way: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.fc, self.hidden, self.over_time = nn.Linear(SIZE, SIZE), Hidden(), Steps()
        self.fc.weight.data *= 4
        self.register_buffer("buffer", torch.ones(1))
        self.factor, self.held, self.way = 1.0, {"calls": 0}, way

    def forward(self, x: Tensor) -> Any:
        return self.way(self, x)

    def run(self, x: Tensor, factor: float | Tensor = 1.0) -> Tensor:
        self.hidden.reset()
        return torch.stack([self.hidden(self.fc(step) * factor) for step in x])


def refusal(way: Callable[[Any, Tensor], Any], *shape: int, **served: object) -> str:
    with pytest.raises(NotConvertible) as refused:
        taken_in(Net(way), *(shape or (SIZE,)), **served)
    (sentence,) = str(refused.value).splitlines()
    return sentence


def an_attribute(net: Net, x: Tensor) -> Tensor:
    net.factor *= 0.9
    return net.run(x, net.factor)


def a_buffer(net: Net, x: Tensor) -> Tensor:
    net.buffer.mul_(0.9)
    return net.run(x, net.buffer)


def a_weight(net: Net, x: Tensor) -> Tensor:
    net.fc.weight.data *= 0.9
    return net.run(x)


def a_count_that_does_nothing_yet(net: Net, x: Tensor) -> Tensor:
    net.held["calls"] += 1
    return net.run(x, 1.0 if net.held["calls"] < 100 else 0.5)


class Hiding:
    """A number that no one can look at from outside, as one of an extension."""

    __slots__ = ("hidden",)

    def __init__(self) -> None:
        self.hidden = 64.0


def a_hidden_number(net: Net, x: Tensor, hiding: Hiding = Hiding()) -> Tensor:  # noqa: B008
    hiding.hidden *= 0.5
    return net.run(x, hiding.hidden)


@pytest.mark.parametrize(
    ("way", "sentence"),
    [
        (an_attribute, "its forward changes 'factor'"),
        (a_buffer, "its forward changes 'buffer'"),
        (a_weight, "its forward changes 'fc.weight'"),
        (a_count_that_does_nothing_yet, "its forward changes 'held.calls'"),
        (lambda net, x: net.run(x, random.random()), "its forward draws Python's random numbers"),  # noqa: S311
        (lambda net, x: net.run(x, np.random.rand()), "its forward draws NumPy's random numbers"),  # noqa: NPY002
        (a_hidden_number, "its forward gives other values when it runs again on the same input"),
    ],
)
def test_a_forward_that_is_not_the_same_each_time_is_refused_by_what_changes(way: Any, sentence: str) -> None:
    assert sentence in refusal(way)


def test_what_a_forward_keeps_of_its_run_is_no_change() -> None:
    def way(net: Net, x: Tensor) -> Tensor:
        net.last = net.run(x)  # the same again of the same input
        return net.last

    assert taken_in(Net(way), SIZE).network.spec.classes == SIZE


def times(number: Callable[[Tensor], float | Tensor]) -> Callable[[Net, Tensor], Tensor]:
    return lambda net, x: net.run(x, number(x))


def scripted_mean(x: Tensor) -> Tensor:
    """A number that hangs on the values, by code that PyTorch does not show."""
    return torch.func.vmap(torch.mean)(x[None])[0]


@pytest.mark.parametrize(
    "way",
    [
        times(lambda x: 3.0 / x.shape[1]),
        times(lambda x: 8.0 / len(x)),
        times(lambda x: 144.0 / x.numel()),
        times(lambda x: 2.0 if x.shape[1] < 4 else 1.0),
        times(lambda x: torch.ones(x.shape[1]).sum()),
        times(scripted_mean),
        lambda net, x: net.run(torch.stack([x[step] for step in range(TIME_STEPS)]), 3.0 / x.shape[1]),
        lambda net, x: net.run(torch.nn.functional.linear(x, torch.eye(SIZE) / x.shape[1])),
        lambda net, x: net.run(x).sum(0) / x.shape[1],
    ],
)
def test_a_number_taken_from_the_size_of_its_input_is_refused_at_its_line(way: Any) -> None:
    other = r"computes something else where it is given time first of \([89], batch=5, 6\)"
    assert re.search(rf"test_trials\.py, line \d+ {other}", refusal(way))


def served(found: ConvertedNetwork) -> tuple[FloatArray, Tensor]:
    """Return the reference engine's readout of random samples, and the samples, time first."""
    inputs = random_encoded(found.network.spec, 4)
    result, _ = ReferenceEngine(found.network).run(inputs)
    steps = np.broadcast_to(inputs.steps, (inputs.time_steps, *inputs.steps.shape[1:])).copy()
    return result.readout, torch.from_numpy(steps)


@pytest.mark.parametrize(
    ("way", "time_steps", "readout", "classes"),
    [
        (lambda net, x: net.run(x).sum(0) / len(x), TIME_STEPS, Readout.MEAN, SIZE),
        (lambda net, x: net.run(x).sum(0) / TIME_STEPS, TIME_STEPS, Readout.MEAN, SIZE),
        (lambda net, x: net.fc(x).sum(0), 1, Readout.SUM, SIZE),  # of one step there is no mean
        (lambda net, x: net.run(x).sum(0).view(-1, 2, 3).sum(2), TIME_STEPS, Readout.SUM, 2),  # groups, at each step
        # Read in the order in which it is returned.
        (lambda net, x: net.run(x).view(len(x), -1, 2, 3).mT.sum(0).flatten(1), TIME_STEPS, Readout.SUM, SIZE),
    ],
)
def test_what_is_read_over_time_is_what_a_forward_makes_of_its_steps(
    way: Any, time_steps: int, readout: Readout, classes: int
) -> None:
    read, steps = served(found := taken_in(Net(way), SIZE, time_steps=time_steps))
    assert (found.network.spec.readout, found.network.spec.classes) == (readout, classes)
    assert np.allclose(read, Net(way)(steps).detach(), atol=1e-5)


def doubled(values: Tensor) -> Tensor:
    """Double values behind the back of what counts their changes."""
    values.data.mul_(2)
    return values


@pytest.mark.parametrize(
    ("way", "sentence"),
    [
        (lambda net, x: doubled(net.run(x).sum(0)), "what it returns is not the sum over time of 'hidden', as it was"),
        (lambda net, x: doubled(net.run(x).mean(0)), "what it returns is not the mean over time of 'hidden'"),
        (lambda net, x: doubled(net.run(x)[-1]), "what it returns is not the last over time of 'hidden'"),
        (lambda net, x: doubled(net.run(x)), "what it returns is not the output of 'hidden', as it was understood"),
        (lambda net, x: doubled(net.fc(x)), "what it returns is not the output of 'fc'"),
        (lambda net, x: doubled(net.run(x).flatten(2).sum(0).softmax(-1)), "what it returns is not the sum over time"),
        (lambda net, x: net.over_time(doubled(net.fc(x))), "'over_time' gives other values in the forward than when i"),
        (
            lambda net, x: doubled(net.hidden(net.fc(x))),
            "what it returns is not the output of 'hidden'",
        ),  # at each call
        (lambda net, x: net.fc(doubled(net.run(x))), "'fc_2' gives other values in the forward than of what comes bef"),
    ],
)
def test_what_a_forward_really_computes_is_compared_with_its_graph(way: Any, sentence: str) -> None:
    assert sentence in refusal(way)


# Of 4 × 3 × 5 values no two axes have one size, so that what is taken along another axis is of another shape.
MOVED: list[tuple[Any, tuple[int, ...]]] = [
    (lambda x: x[..., 1:4], (4, 3, 5)),
    (lambda x: x.narrow(-1, 1, 3), (4, 3, 5)),
    (lambda x: x.split([1, 3, 1], dim=-1)[1], (4, 3, 5)),
    (lambda x: x[:, :, 1:], (4, 3, 5)),
    (lambda x: x.movedim((1, 2), (3, 1)), (4, 3, 5)),
    (lambda x: x[:, None].unsqueeze(-1).squeeze(1)[..., 0].mT, (4, 3, 5)),
    (nn.Sequential(nn.Flatten(1, 3), nn.Linear(24, 4)), (2, 3, 4)),
    (nn.Sequential(nn.Flatten(1, 2), nn.Linear(4, 3)), (2, 3, 4)),
    (nn.Sequential(nn.Flatten(2), nn.MaxPool1d(5)), (2, 3, 4)),
    (nn.Sequential(nn.Flatten(2), nn.Conv1d(2, 3, 3)), (2, 3, 4)),
    # More outputs than inputs, which are repeated.
    (nn.Sequential(nn.AdaptiveAvgPool2d(7), nn.Flatten()), (3, 1, 1)),
    (nn.Sequential(nn.AdaptiveMaxPool2d(7), nn.Flatten()), (3, 1, 1)),
    (nn.Sequential(nn.AdaptiveAvgPool2d((4, 2)), nn.Flatten()), (3, 2, 4)),
    (nn.Sequential(nn.AdaptiveMaxPool2d((4, 2)), nn.Flatten()), (3, 2, 4)),
    (nn.Sequential(nn.AdaptiveAvgPool1d(6), nn.Flatten()), (2, 3)),
]


@pytest.mark.parametrize(("part", "shape"), MOVED)
def test_parts_views_and_pools_of_any_axes_are_those_of_a_sample(part: Any, shape: tuple[int, ...]) -> None:
    def over_steps(_: Any, x: Tensor) -> Tensor:
        return torch.stack([part(step) for step in x]).sum(0).flatten(1)

    if isinstance(part, nn.Module):
        found = taken_in(part.requires_grad_(False), *shape, readout=Readout.SUM)
    else:
        found = taken_in(Net(over_steps), *shape)
    read, steps = served(found)
    assert np.allclose(read, over_steps(None, steps), atol=1e-4)
