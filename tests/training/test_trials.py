"""A forward has to compute the same again, of other sizes too, and what its graph computes: else it is refused."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec import Coding, Readout
from spikeserve.models.spec.network import FloatArray
from spikeserve.training.errors import NotConvertible
from spikeserve.training.importers.frameworks.compare import random_encoded
from spikeserve.training.importers.frameworks.convert import ConvertedNetwork
from tests.training.plain_network import Hidden, Steps, taken_in

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
        self.factor, self.held, self.way = 1.0, {"factor": 1.0}, way

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


def a_dictionary(net: Net, x: Tensor) -> Tensor:
    net.held["factor"] *= 0.9
    return net.run(x, net.held["factor"])


def a_count_that_does_nothing_yet(net: Net, x: Tensor) -> Tensor:
    net.held["calls"] = net.held.get("calls", 0) + 1
    return net.run(x, 1.0 if net.held["calls"] < 100 else 0.5)


@pytest.mark.parametrize(
    ("way", "name"),
    [
        (an_attribute, "'factor'"),
        (a_buffer, "'buffer'"),
        (a_weight, "'fc.weight'"),
        (a_dictionary, "'held.factor'"),
        (a_count_that_does_nothing_yet, "'held.calls'"),
    ],
)
def test_a_forward_that_changes_what_it_reads_is_refused_by_its_name(way: Any, name: str) -> None:
    assert f"its forward changes {name}" in refusal(way)


@pytest.mark.parametrize(
    ("draw", "source"),
    [(random.random, "Python"), (np.random.rand, "NumPy")],
)
def test_a_forward_that_draws_a_number_is_refused(draw: Callable[[], float], source: str) -> None:
    assert f"its forward draws {source}'s random numbers" in refusal(lambda net, x: net.run(x, draw()))


def test_a_forward_that_gives_something_else_the_next_time_is_refused() -> None:
    class Hiding:
        """A number that no one can look at from outside, as one of an extension."""

        __slots__ = ("hidden",)

        def __init__(self) -> None:
            self.hidden = 64.0

    held = Hiding()

    def way(net: Net, x: Tensor) -> Tensor:
        held.hidden *= 0.5
        return net.run(x, held.hidden)

    assert "its forward gives other values when it runs again on the same input" in refusal(way)


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
        lambda net, x: net.run(torch.nn.functional.linear(x, torch.eye(SIZE) / x.shape[1])),
        lambda net, x: net.run(x).sum(0) / x.shape[1],
    ],
)
def test_a_number_taken_from_the_size_of_its_input_is_refused_at_its_line(way: Any) -> None:
    found = refusal(way)
    assert re.search(r"test_trials\.py, line \d+ computes something else where it is given time first of 9×5×6", found)


def test_a_number_taken_from_the_batch_is_refused_where_the_steps_are_fixed() -> None:
    def way(net: Net, x: Tensor) -> Tensor:
        return net.run(torch.stack([x[step] for step in range(TIME_STEPS)]), 3.0 / x.shape[1])

    assert "computes something else where it is given time first of 8×5×6" in refusal(way)


def served(found: ConvertedNetwork) -> tuple[FloatArray, Tensor]:
    """Return the reference engine's readout of random samples, and the samples, time first."""
    inputs = random_encoded(found.network.spec, 4)
    result, _ = ReferenceEngine(found.network).run(inputs)
    steps = np.broadcast_to(inputs.steps, (inputs.time_steps, *inputs.steps.shape[1:])).copy()
    return result.readout, torch.from_numpy(steps)


@pytest.mark.parametrize(
    "way", [lambda net, x: net.run(x).sum(0) / len(x), lambda net, x: net.run(x).sum(0) / TIME_STEPS]
)
def test_a_sum_that_is_divided_by_the_number_of_steps_is_a_mean(way: Any) -> None:
    found = taken_in(Net(way), SIZE)
    assert found.network.spec.readout is Readout.MEAN
    read, steps = served(found)
    assert np.allclose(read, Net(way)(steps).detach(), atol=1e-5)


def test_a_sum_over_one_step_is_no_mean() -> None:
    network = nn.Sequential(nn.Linear(SIZE, SIZE), nn.Identity())

    def way(_: Net, x: Tensor) -> Tensor:
        return network(x).sum(0)

    with_one = taken_in_one_step(way)
    assert with_one.network.spec.readout is Readout.SUM
    with_spikes = taken_in_one_step(lambda net, x: net.run(x).sum(0))
    assert with_spikes.network.spec.readout is Readout.SPIKE_COUNT


def taken_in_one_step(way: Callable[[Any, Tensor], Any]) -> ConvertedNetwork:
    return taken_in(Net(way), SIZE, time_steps=1)


def doubled(values: Tensor) -> Tensor:
    """Double values behind the back of what counts their changes."""
    values.data.mul_(2)
    return values


@pytest.mark.parametrize(
    ("way", "sentence"),
    [
        (
            lambda net, x: doubled(net.run(x).sum(0)),
            "what it returns is not the sum over time of 'hidden', as it was un",
        ),
        (lambda net, x: doubled(net.run(x).mean(0)), "what it returns is not the mean over time of 'hidden'"),
        (lambda net, x: doubled(net.run(x)[-1]), "what it returns is not the last over time of 'hidden'"),
        (lambda net, x: doubled(net.run(x)), "what it returns is not the output of 'hidden', as it was understood"),
        (lambda net, x: doubled(net.fc(x)), "what it returns is not the output of 'fc'"),
        (
            lambda net, x: doubled(net.run(x).flatten(2).sum(0).softmax(-1)),
            "what it returns is not the sum over time of 'hidden'",
        ),
        (
            lambda net, x: net.over_time(doubled(net.fc(x))),
            "'over_time' gives other values in the forward than when it is stepped from rest",
        ),
        (
            lambda net, x: net.fc(doubled(net.run(x))),
            "'fc_2' gives other values in the forward than of what comes before it",
        ),
    ],
)
def test_what_a_forward_really_computes_is_compared_with_its_graph(way: Any, sentence: str) -> None:
    assert sentence in refusal(way)


def test_what_is_returned_at_each_call_is_compared_too() -> None:
    assert "what it returns is not the output of 'hidden'" in refusal(lambda net, x: doubled(net.hidden(net.fc(x))))


@pytest.mark.parametrize(
    "part",
    [
        lambda x: x[..., 1:4],
        lambda x: x[:, :, :, 1:4],
        lambda x: x.narrow(-1, 1, 3),
        lambda x: x.split([1, 3, 1], dim=-1)[1],
        lambda x: x[:, :, 1:],
        lambda x: x[:, 2:],
        lambda x: x.movedim((1, 2), (3, 1)),
        lambda x: x[:, None].unsqueeze(-1).squeeze(1)[..., 0].mT,
    ],
)
def test_views_of_any_of_three_axes_are_those_of_a_sample(part: Callable[[Tensor], Tensor]) -> None:
    # Of 4 × 3 × 5 values no two axes have one size, so that what is taken along another axis is of another shape.
    def way(_: Net, x: Tensor) -> Tensor:
        return torch.stack([part(step) for step in x]).sum(0).flatten(1)

    read, steps = served(taken_in(Net(way), 4, 3, 5))
    assert np.allclose(read, Net(way)(steps), atol=1e-5)


def test_what_is_returned_in_another_order_is_read_in_that_order() -> None:
    def way(net: Net, x: Tensor) -> Tensor:
        return net.run(x).view(len(x), -1, 2, 3).transpose(2, 3).sum(0)

    read, steps = served(taken_in(Net(way), SIZE))
    assert np.allclose(read, Net(way)(steps).flatten(1).detach(), atol=1e-5)


def test_a_network_that_takes_steps_and_one_sample_too_is_served_one_sample() -> None:
    def either(net: Net, x: Tensor) -> Tensor:
        return net.over_time(net.fc(x if x.dim() == 3 else x.unsqueeze(0).repeat(TIME_STEPS, 1, 1))).mean(0)

    assert taken_in(Net(either), SIZE).network.spec.coding is Coding.DIRECT
    assert taken_in(Net(either), SIZE, coding=Coding.SPIKES).network.spec.coding is Coding.SPIKES
    assert taken_in(Net(lambda net, x: net.run(x)), SIZE).network.spec.coding is Coding.SPIKES


def test_groups_of_what_is_read_over_time_are_summed_as_at_each_step() -> None:
    def population(net: Net, x: Tensor) -> Tensor:
        return net.run(x).sum(0).view(-1, 2, 3).sum(2)

    read, steps = served(found := taken_in(Net(population), SIZE))
    assert found.network.spec.classes == 2
    assert np.allclose(read, Net(population)(steps).detach(), atol=1e-5)


@pytest.mark.parametrize(
    "parts",
    [
        (nn.Flatten(1, 3), nn.Linear(24, 4)),
        (nn.Flatten(1, 2), nn.Linear(4, 3)),
        (nn.Flatten(2), nn.MaxPool1d(5)),
        (nn.Flatten(2), nn.Conv1d(2, 3, 3)),
    ],
)
def test_a_flatten_of_some_axes_is_of_those(parts: tuple[nn.Module, ...]) -> None:
    network = nn.Sequential(*parts).requires_grad_(False)
    read, steps = served(taken_in(network, 2, 3, 4, readout=Readout.SUM))
    expected = torch.stack([network(step) for step in steps]).sum(0).flatten(1)
    assert np.allclose(read, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("pool", "shape"),
    [
        (nn.AdaptiveAvgPool2d(7), (3, 1, 1)),
        (nn.AdaptiveMaxPool2d(7), (3, 1, 1)),
        (nn.AdaptiveAvgPool2d((4, 2)), (3, 2, 4)),
        (nn.AdaptiveMaxPool2d((4, 2)), (3, 2, 4)),
        (nn.AdaptiveAvgPool1d(6), (2, 3)),
    ],
)
def test_an_adaptive_pool_of_more_outputs_than_inputs_repeats_them(pool: nn.Module, shape: tuple[int, ...]) -> None:
    read, steps = served(taken_in(nn.Sequential(pool, nn.Flatten()), *shape, readout=Readout.SUM))
    expected = torch.stack([pool(step) for step in steps]).sum(0).flatten(1)
    assert np.allclose(read, expected, atol=1e-5)
