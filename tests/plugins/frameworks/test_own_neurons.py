"""Neurons that are an author's own code: each comes in as a program of the same bits, or is refused by its line."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines import Record
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec.nodes import ProgramNeuron
from spikeserve.plugins.frameworks.convert import ConvertedNetwork, convert
from spikeserve.plugins.frameworks.framework import find
from spikeserve.plugins.frameworks.options import FrameworkOptions, Start
from spikeserve.training.errors import NotConvertible
from tests.zoo.own_neurons import fires_above as fires

SIZE, STEPS = 6, 6

Step = Callable[["Own", Tensor, Any], tuple[Tensor, Any]]


class Own(nn.Module):
    """A loop over steps, time first, of a step that a test writes; what arrives is 4 times the input, less 1."""

    def __init__(self, step: Step, start: Callable[[Tensor], Any] = torch.zeros_like) -> None:
        super().__init__()
        self.step, self.start = step, start
        self.fc, self.rec = nn.Linear(SIZE, SIZE), nn.Linear(SIZE, SIZE)
        self.fc.weight.data, self.fc.bias.data = 4 * torch.eye(SIZE), -torch.ones(SIZE)
        self.rec.weight.data = torch.eye(SIZE).roll(1, 0) / 2
        self.rec.bias.data = torch.full((SIZE,), 0.25)
        self.each = nn.Parameter(torch.linspace(-1.0, 2.0, SIZE))
        self.raw = nn.Parameter(torch.linspace(-2.0, 2.0, SIZE))

    def forward(self, x: Tensor) -> Tensor:
        state, out = self.start(torch.zeros(x.shape[1], SIZE)), []
        for each in x:
            given, state = self.step(self, self.fc(each), state)
            out.append(given)
        return torch.stack(out)


def taken_in(network: nn.Module, *shape: int, **options: Any) -> ConvertedNetwork:
    given = FrameworkOptions(input_shape=shape or (SIZE,), time_steps=STEPS, **options)
    return convert(network.eval().requires_grad_(False), find("torch"), given)


def inputs(batch: int = 5) -> Tensor:
    return torch.rand((STEPS, batch, SIZE), generator=torch.Generator().manual_seed(5))


def given(found: ConvertedNetwork, x: Tensor) -> np.ndarray[Any, Any]:
    """What the last neuron of a network gives at each step, (time_steps, batch, neurons)."""
    last = found.network.spec.nodes[-1]
    result, _ = ReferenceEngine(found.network).run(
        DenseInputs(x.numpy(), STEPS), record=Record.RASTER | Record.MEMBRANE
    )
    return result.rasters[last.name] if isinstance(last, ProgramNeuron) else result.membranes[last.name]


def require_same_bits(network: nn.Module, *, exponential: bool = False, **options: Any) -> ConvertedNetwork:
    """Require that a network gives what its author's forward gives, to the bit, or but for PyTorch's exp and sqrt."""
    found = taken_in(network, **options)
    with torch.no_grad():
        expected = network(inputs()).numpy()
    served = given(found, inputs()).reshape(expected.shape)
    assert np.allclose(served, expected, rtol=1e-6, atol=1e-6) if exponential else np.array_equal(served, expected)
    assert expected.any()
    return found


def masks(_: Own, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    v = v * 0.75 + x
    up, down = v > 1.0, v.lt(-1.0)
    out = torch.zeros_like(v)
    out[up | down] = 2.0
    return out, v.masked_fill(up & ~down, 0.25).masked_fill_(torch.logical_xor(up, down) & up.logical_not(), -0.25)


def two_states(net: Own, x: Tensor, state: Any) -> tuple[Tensor, Any]:
    u, w = state
    w = torch.clamp(net.each, -0.5, 0.5) * u + 0.9 * w
    u = torch.exp(-1 / (net.each.abs() + 1)) * u + x - w
    spikes = fires(u - 1.0)
    return spikes, (u * (1 - spikes), w + 0.3 * spikes)


def python_numbers(net: Own, x: Tensor, v: Any) -> tuple[Tensor, Any]:
    v = v * 0.9 + x * 0.1 + 1 / 3
    return (v >= net.each).to(torch.float32), v - 0.1


def delay_line(_: Own, x: Tensor, state: Any) -> tuple[Tensor, Any]:
    v, first, second, third = state
    v = 0.5 * v + x - third
    spikes = fires(v)
    return spikes, (v, spikes, first, second)


def recurrent(net: Own, x: Tensor, state: Any) -> tuple[Tensor, Any]:
    v, spikes = state
    v = 0.5 * v + x + net.rec(spikes)
    spikes = torch.heaviside(v - 1, torch.tensor(1.0))
    return spikes, (v - spikes, spikes)


TWO: dict[str, Any] = {"start": lambda zeros: (zeros, zeros)}  # one tensor, where two states begin
TWO_ZEROS: dict[str, Any] = {"start": lambda zeros: (zeros, zeros.clone())}


def beside_the_last_spikes(net: Own, x: Tensor, state: Any) -> tuple[Tensor, Any]:
    v, spikes = state  # 4 of them beside 6 inputs, in one Linear, whose bias counts once
    weight = torch.cat([net.rec.weight[:4], net.rec.weight[:4, :4]], 1)
    v = 0.5 * v + nn.functional.linear(torch.cat([x, spikes], 1), weight, net.rec.bias[:4])
    spikes = fires(v - 1)
    return spikes, (v - spikes, spikes)


def by_the_product(net: Own, x: Tensor, state: Any) -> tuple[Tensor, Any]:
    v, spikes = state
    v = 0.5 * v + x + torch.mm(spikes, net.rec.weight) - torch.einsum("bn,mn->bm", spikes, net.rec.weight)
    spikes = (v > 1).float()
    return spikes, (v, spikes)


def left_out_at_first(_: Own, x: Tensor, v: Any) -> tuple[Tensor, Any]:
    v = x if v is None else v * 0.5 + x
    spikes = v.gt(1).float()
    return spikes, v - spikes


def compared_with_none(net: Own, x: Tensor, v: Any) -> tuple[Tensor, Any]:
    at_rest = v == None or v in ("rest", ())  # noqa: E711  (as snnTorch writes it)
    return left_out_at_first(net, x, v if v != "rest" and not at_rest else None)


def beside_what_arrives(_: Own, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    v = 0.5 * v + x
    spikes = (v > 1).float()
    return spikes + x, v - spikes


# Others, as in the zoo: written in place, surrogates that cancel out, several spikes, weights by columns.
COMING: dict[str, tuple[Step, dict[str, Any]]] = {
    "masks": (masks, {}),
    "numbers of Python": (python_numbers, {"start": lambda _: 0.0}),
    "a delay line": (delay_line, {"start": lambda zeros: (zeros,) * 4}),
    "recurrent": (recurrent, TWO_ZEROS),
    "beside the last spikes": (beside_the_last_spikes, {"start": lambda zeros: (zeros[:, :4], zeros[:, :4].clone())}),
    "a state that is left out at first": (left_out_at_first, {"start": lambda _: None}),
    "a state compared with None": (compared_with_none, {"start": lambda _: None}),
    "spikes and what arrives": (beside_what_arrives, {}),
    "a start of its own": (python_numbers, {"start": lambda zeros: zeros + torch.linspace(-1, 1, SIZE)}),
}  # fmt: skip


@pytest.mark.parametrize("way", COMING)
def test_a_neuron_of_an_authors_own_gives_the_same_bits(way: str) -> None:
    step, options = COMING[way]
    require_same_bits(Own(step, **options))


# What an author writes of a membrane `v` and `net`; what uses exp, sqrt or sigmoid differs by their last bit.
FUNCTIONS = [
    "torch.add(v, net.each)", "net.each.sub(v)", "torch.rsub(v, 0.3)", "torch.multiply(net.each, v)", "v / 3",
    "net.each.true_divide(v)", "3 / v", "v.reciprocal()", "-v", "abs(v)", "torch.minimum(v, net.each)",
    "torch.max(v, net.each)", "(v > 0.5).float()", "v.ge(net.each).float()", "(v < 0.5).float()",
    "v.le(net.each).float()", "(v.trunc() == 0).float()", "v.trunc().ne(1).float()",
    "((v > 0.5) & (v < 1.5) | ~(v > -0.5) ^ (v == 0)).float()", "torch.sign(v)", "torch.heaviside(v.trunc(), net.each)",
    "torch.clamp(v, -0.5, 1.5)", "torch.clamp(v, max=net.each)", "v.clamp_min(0.1)", "v.clamp_max(0.1)",
    "functional.hardtanh(v, -0.3, 0.7)", "functional.relu(v)", "functional.relu6(4 * v)",
    "functional.leaky_relu(v, 0.2)", "torch.where(v > 1, net.each, v * 0.5)", "v.where(v > 1, -1.5)",
    "v.masked_fill(v > 1, 0.1)", "v ** 2 + v.pow(3)", "torch.square(v)", "v.floor()", "v.trunc() + v.fix()",
    "torch.ceil(v)", "torch.frac(v)", "torch.round(v * 2)", "torch.addcdiv(v, net.each, net.raw)",
    "v.detach() + v.data", "torch.where(v > 1, 1.0, 0.0).bool().float()", "torch.exp(-v.abs())",
    "torch.sqrt(v.abs())", "torch.sigmoid(v)",
]  # fmt: skip


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_of_torch_is_written_as_operations_of_the_same_bits(function: str) -> None:
    # The membrane takes halves and wholes too, so that what happens at an edge shows.
    def step(net: Own, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        v = 0.5 * v + (x * 2).round() * 0.5 + 0.25 * (net.each > 0)
        return eval(function, {"torch": torch, "functional": nn.functional, "net": net, "v": v}), v  # noqa: S307

    require_same_bits(Own(step), exponential=any(name in function for name in ("exp(", "sqrt", "sigmoid")))


def at_step_three(_: Own, x: Tensor, state: Any) -> tuple[Tensor, Any]:
    v, t = state
    v = v * (0.5 if t < 3 else 0.25) + x
    return (v > 1).float(), (v, t + 1)


def of_the_batch(_: Own, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    v = v * 0.5 + x * torch.arange(float(len(x)))[:, None]
    return (v > 1).float(), v


def two_currents(net: Own, x: Tensor, state: Any) -> tuple[Tensor, Any]:
    u, w = state
    u, w = 0.5 * u + x, 0.25 * w + net.rec(x)
    return (u > w).float(), (u, w)


REFUSED: dict[str, tuple[Step, dict[str, Any], str]] = {
    "two feedbacks": (by_the_product, TWO_ZEROS, "hears itself by two connections, expected one"),
    "by the number of the step": (at_step_three, {"start": lambda zeros: (zeros, 0)},
        "LINE: takes another number than in the first step, and each step has to be the same"),
    "of each sample": (of_the_batch, {}, "takes a value of its own for each sample of the batch"),
    "two currents": (two_currents, TWO, "takes 'fc' and 'rec' at once"),
    "lerp": (lambda _, x, v: (v.lerp(x, 0.3),) * 2, {}, r"LINE: torch.Tensor.lerp rounds once where"),
    "addcmul": (lambda net, x, v: (torch.addcmul(x, v, net.each),) * 2, {}, "addcmul rounds once where"),
    "an alpha": (lambda _, x, v: (torch.add(x, v, alpha=0.3),) * 2, {}, "rounds a product and a sum at once"),
    "float64": (lambda _, x, v: ((v * 0.5 + x).double() > 1,) * 2, {}, "computes in torch.float64"),
    "half": (lambda _, x, v: ((v * 0.5 + x).half(),) * 2, {}, "computes in torch.float16"),
    "whole numbers": (lambda _, x, v: ((v * 0.5 + x).int() * 0.5,) * 2, {}, "converts to torch.int32"),
    "complex": (lambda _, x, v: ((v := v * 0.5j + x).real, v), {"start": lambda zeros: zeros + 0j},
        "complex numbers, expected the real and the imaginary part as two states"),
    "tanh": (lambda _, x, v: ((v := torch.tanh(0.5 * v + x)), v), {}, "torch.tanh has no operation in a neuron's step"),
    "a root": (lambda _, x, v: ((v := (0.5 * v + x) ** 0.5), v), {}, "raises to another power than 2 or 3"),
    "a random start": (lambda _, x, v: ((v := 0.5 * v + x), v), {"start": torch.rand_like},
        "is given a state that begins at random; --start rest lets it begin at 0 instead"),
    "lateral": (lambda _, x, v: ((v := 0.5 * v + x - v.mean(1, keepdim=True)), v), {}, "LINE: "),
}  # fmt: skip


@pytest.mark.parametrize("way", REFUSED)
def test_what_is_no_step_of_a_neuron_is_refused_by_one_sentence_with_its_line(way: str) -> None:
    step, options, sentence = REFUSED[way]
    with pytest.raises(NotConvertible) as refused:
        taken_in(Own(step, **options))
    assert re.search(re.escape(sentence).replace("LINE", r"test_own_neurons\.py, line \d+"), str(refused.value))


def test_a_state_that_begins_at_random_begins_at_0_where_that_is_asked_for() -> None:
    def step(_: Own, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        v = 0.5 * v + x
        return (v > 1).float(), v

    found = taken_in(Own(step, torch.rand_like), start=Start.REST)
    expected = Own(step)(inputs()).detach().numpy()
    assert np.array_equal(given(found, inputs()), expected)
    assert found.notes == (
        "Its forward draws at random where v of 'neuron' begin; here they begin at 0, as --start rest says.",
    )


def test_noise_in_each_step_is_refused_though_states_begin_at_rest() -> None:
    step: Step = lambda _, x, v: ((v := 0.5 * v + x + torch.rand_like(x)), v)  # noqa: E731
    with pytest.raises(NotConvertible, match=r"torch\.rand_like draws at random"):
        taken_in(Own(step), start=Start.REST)


def test_a_program_reads_as_its_author_wrote_it() -> None:
    found = taken_in(Own(two_states, lambda zeros: (zeros, zeros.clone())))
    node = found.network.spec.nodes[-1]
    assert isinstance(node, ProgramNeuron)
    assert node.program.states == {"u": 0.0, "w": 0.0}
    assert node.program.step == (
        "w_2 = k_2 * u + w * 0.9",
        "u_2 = k * u + current - w_2",
        "spikes = fire_above(u_2 - 1.0, 0.0)",
        "u = u_2 * (1.0 - spikes)",
        "w = w_2 + spikes * 0.3",
    )
    # What does not change over steps is computed once, by PyTorch.
    each = torch.linspace(-1.0, 2.0, SIZE)
    name = node.name
    assert np.array_equal(found.network.tensors[f"{name}.k_2"], torch.clamp(each, -0.5, 0.5).numpy())
    assert np.array_equal(found.network.tensors[f"{name}.k"], torch.exp(-1 / (each.abs() + 1)).numpy())


def charged(v: Tensor, x: Tensor) -> Tensor:
    return 0.5 * v + x


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("compile_by", [pytest.param(torch.compile, marks=pytest.mark.deep), torch.jit.script])
def test_a_function_that_is_compiled_is_traced_as_the_code_that_it_is(compile_by: Callable[..., Any]) -> None:
    compiled = compile_by(charged)
    found = taken_in(network := Own(lambda _, x, v: ((v := compiled(v, x)), v)))
    with torch.compiler.set_stance("force_eager"), torch.no_grad():
        assert np.array_equal(given(found, inputs()), network(inputs()).numpy())


class Whole(Own):
    """A forward that a test writes whole."""

    def forward(self, x: Tensor) -> Tensor:
        return self.step(self, x.round(), None)  # type: ignore[return-value]


def last_membrane(net: Own, x: Tensor, _: None) -> Any:
    v: Any = 0.0
    for each in x:
        v = 0.5 * v + net.fc(each)
    return v


def all_steps_at_once(net: Own, x: Tensor, _: None) -> Any:  # of what has no state
    v, membranes = torch.zeros(x.shape[1], SIZE), []
    for current in net.fc(x):
        v = 0.5 * v + current
        membranes.append(v)
    return (torch.stack(membranes) > 1).float()


def products_and_sums_of_two_neurons(net: Own, x: Tensor, _: None) -> Any:
    v = w = torch.zeros(x.shape[1], SIZE)
    out = []
    for step in x:
        v, w = 0.5 * v + net.fc(step), 0.25 * w + net.rec(step)
        first, second = (v > 1).float(), (w > 0.5).float()
        out.append(first * second + (second + first))
    return torch.stack(out)


def what_another_gives_beside_its_connection(net: Own, x: Tensor, _: None) -> Any:
    v = w = torch.zeros(x.shape[1], SIZE)
    out = []
    for step in x:
        v = 0.5 * v + net.fc(step)
        first = (v > 1).float() + step
        v = v - (v > 1).float()
        w = 0.5 * w + (net.rec(first) * 2 + first)
        spikes = (w > 1).float()
        w = w * (1 - spikes)
        out.append(spikes)
    return torch.stack(out)


def a_convolution_as_feedback_behind_a_neuron_that_nobody_reads(net: Own, x: Tensor, _: None) -> Any:
    weight = (torch.arange(12).roll(5).view(2, 2, 3) - 4) / 4
    v = spikes = torch.zeros(x.shape[1], 2, SIZE)
    aside, out = torch.zeros(x.shape[1], SIZE), []
    for step in x.unsqueeze(2):
        aside = 0.5 * aside + net.fc(step[:, 0])
        net.rec((aside > 1).float())
        v = 0.5 * v + nn.functional.conv1d(step, weight[:, :1], padding=1)
        v = v + nn.functional.conv1d(spikes, weight, padding=1)
        spikes = torch.zeros_like(v)
        spikes[v > 1] = 1.0
        v = v - spikes
        out.append(spikes.flatten(1))
    return torch.stack(out)


@pytest.mark.parametrize(
    ("way", "readout"),
    [
        (last_membrane, "last"),
        (all_steps_at_once, "spike_count"),
        (products_and_sums_of_two_neurons, "mean"),
        (what_another_gives_beside_its_connection, "spike_count"),
        (a_convolution_as_feedback_behind_a_neuron_that_nobody_reads, "spike_count"),
    ],
)  # fmt: skip
def test_a_forward_in_one_piece_gives_what_its_author_reads(way: Any, readout: str) -> None:
    network = Whole(way)
    found = taken_in(network)
    result, _ = ReferenceEngine(found.network).run(DenseInputs(inputs().round().numpy(), STEPS))
    with torch.no_grad():
        expected = network(inputs())
    reads = {"last": expected, "mean": expected.mean(0), "spike_count": expected.sum(0)}
    assert np.allclose(result.readout, reads[readout], atol=1e-6)
    assert (found.network.spec.readout, bool(reads[readout].any())) == (readout, True)


def test_a_recurrent_layer_is_proven_by_what_it_heard() -> None:
    # Its sums round otherwise as a Linear than as the product here, and each step triples what they differ by.
    class Chaotic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(6)
            self.fc, self.rec = nn.Linear(SIZE, 200), nn.Parameter(torch.randn(200, 200) / 4)

        def forward(self, x: Tensor) -> Tensor:
            v = spikes = torch.zeros(x.shape[1], 200)
            out = []
            for step in x:
                v = torch.frac(3 * v + self.fc(step) + spikes @ self.rec)
                spikes = (v > 0.5).float()
                out.append(spikes)
            return torch.stack(out)

    found = convert(
        Chaotic().eval().requires_grad_(False), find("torch"), FrameworkOptions(input_shape=(SIZE,), time_steps=40)
    )
    assert [node.type for node in found.network.spec.nodes] == ["Linear", "Neuron"]
