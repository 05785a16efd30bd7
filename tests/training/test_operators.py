"""The operators' kernels give the spikes of plain PyTorch to the bit, and its gradients but for rounding."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any, TypeAlias

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

from spikeserve.models.engines.torch.network import build
from spikeserve.models.engines.torch.operations import HardThreshold
from spikeserve.models.spec.nodes import LIF, AvgPool2d, MaxPool2d, Pool, ProgramBase, SumPool2d
from spikeserve.training.config import Surrogate
from spikeserve.training.fit.operators import Currents, Spikes, connect, dense, plain, scan, transform
from spikeserve.training.fit.surrogate import DERIVATIVES, SurrogateThreshold
from tests.networks import PROGRAMS, neurons
from tests.training.operator_cases import CASES, Case, SoftThreshold, assert_same_run, dyadic, parse, scan_by_hand

# Beside those that Triton's kernels have too: what hangs on vectors, panels and threads.
OF_A_CPU: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "wide": ({"type": "LIF", "decay": 0.875}, {"size": 70, "batch": 9, "time_steps": 7}),
    "one neuron": ({"type": "LIF", "decay": 0.875}, {"size": 1, "batch": 1, "time_steps": 1}),
    "recurrent of several panels": ({"type": "LIF", "decay": 0.875, "recurrent": {}}, {"size": 70, "batch": 9}),
}
Following: TypeAlias = tuple[tuple[int, ...], nn.Module]
SIGMOID = SurrogateThreshold(Surrogate.SIGMOID, 2.0)
PLAIN = LIF(name="neuron", decay=0.875)


def parameters_of(node: LIF) -> dict[str, Tensor]:
    return {name: torch.tensor(float(getattr(node, name))) for name in ("decay", "gain", "drive", "threshold", "start")}


def layer(current: Currents | Tensor, steps: int, threshold: Any = SIGMOID) -> Any:
    return scan(PLAIN, parameters_of(PLAIN), current, steps, threshold)


@pytest.mark.parametrize("name", [*CASES, *OF_A_CPU])
def test_the_kernels_give_the_spikes_and_the_gradients_of_plain_pytorch(name: str) -> None:
    node, options = (CASES | OF_A_CPU)[name]
    case = Case.of(parse(node), **options)
    assert_same_run(case, scan_by_hand if isinstance(case.node, ProgramBase) else plain.scan)


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
        assume(all(each.isfinite().all() for each in expected))
        assume(all(torch.allclose(*pair, rtol=1e-6, atol=1e-9) for pair in zip(nudged, expected, strict=True)))
        torch.testing.assert_close(gradients(plain.scan), expected, rtol=1e-6, atol=1e-9)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", ["wide", "recurrent of several panels", "several spikes"])
def test_the_number_of_threads_changes_no_spike_and_no_gradient_but_for_rounding(name: str) -> None:
    node, options = (CASES | OF_A_CPU)[name]
    case, before = Case.of(parse(node), **options), torch.get_num_threads()
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
        for values in nn.ModuleList([hidden, *readouts]).parameters():
            values.copy_(dyadic(generator, *values.shape, largest=4))

    def run(link: Any, step: Any) -> Any:
        spikes = step(PLAIN, parameters_of(PLAIN), link(hidden, steps), 6, SIGMOID)
        loss = torch.zeros(())
        for readout in readouts[:uses]:
            values = dense(step(PLAIN, parameters_of(PLAIN), link(readout, spikes), 6, SIGMOID))
            loss = loss + (values * torch.arange(values.numel()).view_as(values)).sum() / 64
        gradients = [torch.autograd.grad(loss, list(hidden.parameters()), retain_graph=True) for _ in range(2)]
        assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
        return gradients[0]

    for found, expected in zip(run(connect, scan), run(plain.connect, plain.scan), strict=True):
        assert expected.abs().max() > 0
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(("firing", "kind"), [(3, Currents), (4, torch.Tensor)])
def test_spikes_are_followed_up_to_three_in_ten_inputs(firing: int, kind: type) -> None:
    raster = torch.tensor([[[1.0] * firing + [0.0] * (10 - firing)]])
    spikes = Spikes.of(raster)
    assert isinstance(connect(nn.Linear(10, 2), spikes), kind)
    assert spikes.lists.raster is None  # as all are 1


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
    leaving: Any = scan(PLAIN, parameters, current, 3, SIGMOID)
    assert leaving.dtype == torch.float64
    soft = layer(current.float(), 3, SoftThreshold(2.0))
    assert ((soft > 0) & (soft < 1)).all()


def pool(kind: type[Pool], size: int | tuple[int, int], shape: tuple[int, ...] = (2, 6, 6), **how: Any) -> Following:
    """Return the module of a pool of spikes of `shape`."""
    return shape, build(kind(name="pool", kernel_size=size, **how), shape)


FOLLOWING: dict[str, Following] = {
    "dense": ((11,), nn.Linear(11, 5)),
    "square": ((2, 9, 8), nn.Conv2d(2, 12, 3)),
    "half vectors": ((3, 7, 7), nn.Conv2d(3, 8, 3, padding=1)),
    "one and a half vectors": ((3, 11, 9), nn.Conv2d(3, 20, (5, 3), padding=2)),
    "strided": ((4, 11, 11), nn.Conv2d(4, 32, 3, stride=2, padding=1, bias=False)),
    "dilated": ((3, 10, 12), nn.Conv2d(3, 6, (3, 2), dilation=(1, 2), padding=(0, 3))),
    "dilated groups": ((4, 10, 10), nn.Conv2d(4, 6, 3, dilation=2, groups=2)),
    "along a length": ((3, 21), nn.Conv1d(3, 16, 5, stride=2, padding=2)),
    "flattened": ((2, 3, 3), nn.Flatten()),
    # Where several spike in a window, or none, the gradient of its maximum goes to the first of them.
    "maximum": pool(MaxPool2d, 2),
    "maximum of three with a rest": pool(MaxPool2d, 3, (3, 7, 8)),
    "mean": pool(AvgPool2d, 2),
    "mean over an odd window with a rest": pool(AvgPool2d, (3, 2), (3, 7, 8)),
    "sum": pool(SumPool2d, 2, (3, 7, 8)),
    # Those that the kernels do not know are left to PyTorch.
    **{
        f"{kind.__name__} {how}": pool(kind, 2, (2, 7, 7), **how)
        for kind in (MaxPool2d, AvgPool2d, SumPool2d)
        for how in ({"stride": 1}, {"padding": 1}, {"overhang": True})
    },
}


@pytest.mark.parametrize(
    ("name", "largest"),
    [*product(FOLLOWING, [1]), *((name, 3) for name in FOLLOWING if FOLLOWING[name][1].state_dict())],
)
def test_what_follows_spikes_gives_pytorchs_values_and_gradients(name: str, largest: int) -> None:
    shape, module = FOLLOWING[name]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for values in module.parameters():
            values.copy_(dyadic(generator, *values.shape))
    raster = torch.randint(1, largest + 1, (3, 4, *shape), generator=generator).float()
    raster *= torch.rand(raster.shape, generator=generator) < 0.2
    edge, plainly = torch.zeros(()).expand(raster.shape).requires_grad_(), raster.clone().requires_grad_()
    spikes = replace(Spikes.of(raster), carrier=edge)
    outcome: Any = connect(module, spikes) if module.state_dict() else transform(module, spikes)
    expected: Any = plain.connect(module, plainly) if module.state_dict() else transform(module, plainly)
    assert torch.equal(dense(outcome), expected)
    if isinstance(outcome, Spikes):
        assert outcome.lists.count == int(expected.count_nonzero())
    weights = dyadic(generator, *expected.shape)
    gradients = torch.autograd.grad((dense(outcome) * weights).sum(), [edge, *module.parameters()])
    correct = torch.autograd.grad((expected * weights).sum(), [plainly, *module.parameters()])
    for one, other in zip(gradients, correct, strict=True):
        torch.testing.assert_close(one, other)
