"""The operators' kernels give the spikes of plain PyTorch to the bit, and its gradients but for rounding."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from spikeserve.models.engines.torch.network import build
from spikeserve.models.engines.torch.operations import HardThreshold
from spikeserve.models.spec.nodes import LIF, AvgPool2d, MaxPool2d, Pool, ProgramBase, SumPool2d
from spikeserve.training.config import Surrogate
from spikeserve.training.fit.operators import Currents, Spikes, connect, dense, firing_rate, plain, scan, transform
from spikeserve.training.fit.surrogate import DERIVATIVES, SurrogateThreshold
from tests.networks import PROGRAMS, neurons
from tests.training.operator_cases import CASES, Case, SoftThreshold, assert_same_run, dyadic, parse, scan_by_hand

# Beside those that Triton's kernels have too: what hangs on vectors, panels and threads.
OF_A_CPU: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "wide": ({"type": "LIF", "decay": 0.875}, {"size": 70, "batch": 9, "time_steps": 7}),
    "one neuron": ({"type": "LIF", "decay": 0.875}, {"size": 1, "batch": 1, "time_steps": 1}),
    "recurrent of several panels": ({"type": "LIF", "decay": 0.875, "recurrent": {}}, {"size": 70, "batch": 9}),
}
SIGMOID = SurrogateThreshold(Surrogate.SIGMOID, 2.0)
PLAIN = LIF(name="neuron", decay=0.875)


def parameters_of(node: LIF) -> dict[str, Tensor]:
    return {name: torch.tensor(float(getattr(node, name))) for name in ("decay", "gain", "drive", "threshold", "start")}


def layer(current: Currents | Tensor, steps: int, threshold: Any = SIGMOID) -> Tensor | Spikes:
    leaving = scan(PLAIN, parameters_of(PLAIN), current, steps, threshold)
    assert not isinstance(leaving, Currents)
    return leaving


@pytest.mark.parametrize("name", [*CASES, *OF_A_CPU])
def test_the_kernels_give_the_spikes_and_the_gradients_of_plain_pytorch(name: str) -> None:
    node, options = (CASES | OF_A_CPU)[name]
    case = Case.of(parse(node), **options)
    assert_same_run(case, scan_by_hand if isinstance(case.node, ProgramBase) else plain.scan)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(PROGRAMS).flatmap(lambda kind: neurons("neuron", kind)), st.sampled_from([*DERIVATIVES]))
def test_the_gradients_of_any_program_are_those_of_a_loop_by_hand(node: dict[str, Any], surrogate: Surrogate) -> None:
    assume("e+" not in str(node))  # with factors of 1e30, and where a nudge tells below, the last bits decide
    case = Case.of(parse(node), surrogate=surrogate)
    current = case.connection(case.inputs).detach().double().requires_grad_()  # some are 0, as behind a silent layer
    parameters = {name: value.double().requires_grad_() for name, value in case.parameters.items()}
    recurrent = None if case.recurrent is None else case.recurrent.double()
    leaves = [current, *parameters.values(), *(recurrent.parameters() if recurrent else ())]

    def gradients(scan: Callable[..., Tensor], nudge: float = 1.0) -> tuple[Tensor, ...]:
        output = scan(case.node, parameters, current * nudge, case.time_steps, case.threshold, recurrent)
        loss = ((output + 0 * current) * torch.linspace(-1, 1, 19)).sum()  # some only compare
        return torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)

    torch.set_default_dtype(torch.float64)  # of the numbers in a line, whose sums and powers are rounded too
    try:
        expected, nudged = gradients(scan_by_hand), gradients(scan_by_hand, 1 + 1e-12)
        assume(all(torch.allclose(*pair, rtol=1e-6, atol=1e-9) for pair in zip(nudged, expected, strict=True)))
        torch.testing.assert_close(gradients(plain.scan), expected, rtol=1e-6, atol=1e-9)
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_number_of_threads_changes_no_spike_and_no_gradient_but_for_rounding() -> None:
    case = Case.of(parse({"type": "LIF", "decay": 0.875}), size=70, batch=9)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert_same_run(case)
        first, second = case.run(compiled=True), case.run(compiled=True)
    finally:
        torch.set_num_threads(before)
    for name, gradient in first[1].items():
        assert torch.equal(gradient, second[1][name])


@pytest.mark.parametrize("uses", [1, 2])
def test_a_spikes_gradient_is_the_sum_over_all_that_take_them(uses: int) -> None:
    # With one use the gradient of a hidden layer is computed where it is needed, with two autograd sums both.
    generator = torch.Generator().manual_seed(0)
    steps = (torch.rand(6, 3, 11, generator=generator) < 0.4).float()
    hidden, *readouts = nn.Linear(11, 40), nn.Linear(40, 5), nn.Linear(40, 20)
    with torch.no_grad():
        for module in (hidden, *readouts):
            for values in module.parameters():
                values.copy_(dyadic(generator, *values.shape, largest=4))

    def run(compiled: bool) -> list[Tensor]:
        link: Any
        step: Any
        link, step = (connect, scan) if compiled else (plain.connect, plain.scan)
        spikes = step(PLAIN, parameters_of(PLAIN), link(hidden, steps), 6, SIGMOID)
        loss = torch.zeros(())
        for readout in readouts[:uses]:
            values = dense(step(PLAIN, parameters_of(PLAIN), link(readout, spikes), 6, SIGMOID))
            loss = loss + (values * torch.arange(values.numel()).view_as(values)).sum() / 64
        gradients = torch.autograd.grad(loss, list(hidden.parameters()), retain_graph=True)
        again = torch.autograd.grad(loss, list(hidden.parameters()))
        assert all(torch.equal(one, other) for one, other in zip(gradients, again, strict=True))
        return list(gradients)

    for found, expected in zip(run(compiled=True), run(compiled=False), strict=True):
        assert expected.abs().max() > 0
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_a_layers_rate_has_a_gradient_without_its_raster() -> None:
    # Half of the neurons get 0.96 and half 1.04 at one step: half of them fire, and each sigmoid is
    # 2 * s(0.08) * s(-0.08) high, which the mean divides among two neurons.
    current = torch.tensor([[[0.96, 1.04]]], requires_grad=True)
    leaving = layer(current, 1)
    assert isinstance(leaving, Spikes)
    rate = firing_rate(leaving)
    assert float(rate.detach()) == 0.5
    (gradient,) = torch.autograd.grad(rate, current)
    height = 2 / (1 + np.exp(-0.08)) / (1 + np.exp(0.08))
    np.testing.assert_allclose(gradient, np.full((1, 1, 2), height / 2), rtol=1e-5)


def test_a_plain_threshold_passes_no_gradient_through_spikes_but_a_readout_does() -> None:
    current = torch.ones(2, 1, 3, requires_grad=True)
    assert not dense(layer(current, 2, HardThreshold())).requires_grad
    readout = parse({"type": "LI", "decay": 0.5})
    membranes = scan(readout, {"decay": torch.tensor(0.5)}, current, 2, HardThreshold())
    (gradient,) = torch.autograd.grad(dense(membranes)[-1].sum(), current)
    assert gradient[:, 0, 0].tolist() == [0.5, 1.0]


def test_what_the_kernels_cannot_run_is_run_by_plain_pytorch() -> None:
    current = torch.rand(3, 2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    parameters = {name: value.double() for name, value in parameters_of(PLAIN).items()}
    leaving = scan(PLAIN, parameters, current, 3, SIGMOID)
    assert isinstance(leaving, Tensor)
    assert leaving.dtype == torch.float64
    soft = scan(PLAIN, parameters_of(PLAIN), current.float(), 3, SoftThreshold(2.0))
    assert isinstance(soft, Tensor)
    assert ((soft > 0) & (soft < 1)).all()


CONVOLUTIONS: dict[str, tuple[tuple[int, ...], nn.Module]] = {
    "square": ((2, 9, 8), nn.Conv2d(2, 12, 3)),
    "half vectors": ((3, 7, 7), nn.Conv2d(3, 8, 3, padding=1)),
    "one and a half vectors": ((3, 11, 9), nn.Conv2d(3, 20, (5, 3), padding=2)),
    "strided": ((4, 11, 11), nn.Conv2d(4, 32, 3, stride=2, padding=1, bias=False)),
    "dilated": ((3, 10, 12), nn.Conv2d(3, 6, (3, 2), dilation=(1, 2), padding=(0, 3))),
    "dilated groups": ((4, 10, 10), nn.Conv2d(4, 6, 3, dilation=2, groups=2)),
    "along a length": ((3, 21), nn.Conv1d(3, 16, 5, stride=2, padding=2)),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("largest", [1, 3])
def test_a_convolution_that_follows_spikes_is_pytorchs(name: str, largest: int) -> None:
    shape, module = CONVOLUTIONS[name]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for values in module.parameters():
            values.copy_(dyadic(generator, *values.shape))
    raster = torch.randint(1, largest + 1, (3, 4, *shape), generator=generator).float()
    raster *= torch.rand(raster.shape, generator=generator) < 0.2
    edge = torch.zeros(()).expand(raster.shape).requires_grad_()
    currents = connect(module, replace(Spikes.of(raster), carrier=edge))
    plainly = raster.clone().requires_grad_()
    expected = plain.connect(module, plainly)
    assert torch.equal(dense(currents), expected)
    weights = dyadic(generator, *expected.shape)
    found = torch.autograd.grad((dense(currents) * weights).sum(), [edge, *module.parameters()])
    wanted = torch.autograd.grad((expected * weights).sum(), [plainly, *module.parameters()])
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


POOLS: Mapping[str, Pool] = {
    "maximum": MaxPool2d(name="pool", kernel_size=2),
    "maximum of three": MaxPool2d(name="pool", kernel_size=3),
    "mean": AvgPool2d(name="pool", kernel_size=2),
    "mean over an odd window": AvgPool2d(name="pool", kernel_size=(3, 2)),
    "sum": SumPool2d(name="pool", kernel_size=2),
}


@pytest.mark.parametrize("shape", [(2, 6, 6), (3, 7, 8)])
@pytest.mark.parametrize("name", POOLS)
def test_a_pool_of_spikes_and_its_gradient_are_pytorchs(name: str, shape: tuple[int, ...]) -> None:
    # Where several spike in a window, or none, the gradient of its maximum goes to the first of them.
    generator = torch.Generator().manual_seed(0)
    raster = (torch.rand(3, 4, *shape, generator=generator) < 0.3).float()
    edge = torch.zeros(()).expand(raster.shape).requires_grad_()
    module = build(POOLS[name], shape)
    pooled = transform(module, replace(Spikes.of(raster), carrier=edge))
    assert isinstance(pooled, Spikes)
    plainly = raster.clone().requires_grad_()
    expected = transform(module, plainly)
    assert isinstance(expected, Tensor)
    assert torch.equal(dense(pooled), expected)
    assert pooled.lists.count == int(expected.count_nonzero())
    weights = torch.rand(expected.shape, generator=generator)
    (found,) = torch.autograd.grad((dense(pooled) * weights).sum(), edge)
    (wanted,) = torch.autograd.grad((expected * weights).sum(), plainly)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("how", [{"stride": 1}, {"padding": 1}, {"overhang": True}], ids=str)
@pytest.mark.parametrize("kind", [MaxPool2d, AvgPool2d, SumPool2d])
def test_pools_that_the_kernels_do_not_know_are_left_to_pytorch(kind: type[Pool], how: dict[str, Any]) -> None:
    module = build(kind(name="pool", kernel_size=2, **how), (2, 7, 7))
    raster = (torch.rand(3, 4, 2, 7, 7, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    pooled = transform(module, Spikes.of(raster))
    expected = transform(module, raster)
    assert isinstance(pooled, Tensor)
    assert isinstance(expected, Tensor)
    assert torch.equal(pooled, expected)


def test_a_flattening_keeps_the_spikes_and_their_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    raster = (torch.rand(3, 2, 2, 3, 3, generator=generator) < 0.3).float()
    edge = torch.zeros(()).expand(raster.shape).requires_grad_()
    flattened = transform(nn.Flatten(), replace(Spikes.of(raster), carrier=edge))
    assert isinstance(flattened, Spikes)
    assert torch.equal(dense(flattened), raster.flatten(2))
    connection = nn.Linear(18, 5)
    weights = torch.rand(3, 2, 5, generator=generator)
    (found,) = torch.autograd.grad((dense(connect(connection, flattened)) * weights).sum(), edge)
    torch.testing.assert_close(found, (weights @ connection.weight).view(raster.shape))


def test_an_input_of_which_much_is_not_0_takes_the_dense_product() -> None:
    steps = torch.ones(3, 2, 11)
    assert isinstance(connect(nn.Linear(11, 5), steps), Tensor)
