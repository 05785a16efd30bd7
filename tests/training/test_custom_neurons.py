"""A neuron of one's own: a function, or lines, becomes a program that is trained, published and served."""

import copy
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spikeserve.models.bundle import Bundle
from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines import ENGINES, create
from spikeserve.models.spec.expressions import Expression
from spikeserve.models.spec.program import FUNCTIONS
from spikeserve.training import library
from spikeserve.training.errors import InvalidConfig
from spikeserve.training.fit.operators import plain
from spikeserve.training.fit.surrogate import SurrogateThreshold
from spikeserve.training.library import (
    LI,
    LIF,
    Integrator,
    Neuron,
    fire,
    hold,
    maximum,
    membrane_loss,
    minimum,
    publish,
    select,
    spike_loss,
)
from spikeserve.training.publish.golden import _with_thresholds
from tests.networks import network_of, task
from tests.pages import ROOT, section
from tests.training.test_library import moves

# ruff: noqa: ARG005, S301  (what the functions of a test leave unused is their fault, and the pickle is ours)
E = Expression


def lif(current: E, v: E, *, decay: E, threshold: E) -> tuple[E, E]:
    u = decay * v + current
    spikes = fire(u, threshold)
    return spikes, u - threshold * hold(spikes)


LINES = ["u = decay * v + current", "s = fire(u, threshold)", "v = u - threshold * hold(s)"]
OWN: dict[str, Any] = {"decay": 0.75, "threshold": 1.0, "learn": ("threshold",)}


def attached_lif(current: E, v: E, *, decay: E, threshold: E) -> tuple[E, E]:
    u = decay * v + current
    spikes = fire(u, threshold)
    return spikes, u - threshold * spikes


def recurrent_lif(current: E, feedback: E, v: E, *, decay: E, threshold: E) -> tuple[E, E]:
    return lif(current + feedback, v, decay=decay, threshold=threshold)


def se_adlif(current: E, v: E, w: E, *, alpha: E, beta: E, a: E, b: E, threshold: E) -> tuple[E, E, E]:
    u = alpha * v + (1 - alpha) * (current - w)
    spikes = fire(u, threshold)
    return spikes, u - threshold * hold(spikes), beta * w + (1 - beta) * (a * u + b * hold(spikes))


ADLIF: dict[str, Any] = {"step": se_adlif, "alpha": 0.75, "beta": 0.9, "a": 0.5, "b": 1.0, "threshold": 0.25}


def leaky(current: E, v: E, *, decay: E) -> tuple[E, E]:
    v = decay * v + current
    return v, v


@pytest.mark.parametrize("size", [20, 70])
@pytest.mark.parametrize("density", [0.2, 0.9])  # followed spike by spike, and as a product
def test_a_function_is_its_lines_and_the_named_neuron_to_the_bit(size: int, density: float) -> None:
    own = [Neuron(size, step=lif, **OWN), Neuron(size, step=LINES, states={"v": 0.0}, spikes="s", **OWN)]
    same_runs([LIF(size, detach_reset=True, **OWN), *own], size, density)
    same_runs([LIF(size, **OWN), Neuron(size, step=attached_lif, **OWN)], size, density)


def same_runs(layers: list[nn.Module], size: int, density: float) -> None:
    """Run each layer behind the same Linear; spikes and gradients agree to the bit."""
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(9, 5, 12, generator=generator) < density).float()
    weight = torch.randint(-8, 9, (size, 12), generator=generator) / 8
    factors = torch.randn(9, 5, size, generator=generator)
    runs = []
    for layer in layers:
        connection = nn.Linear(12, size, bias=False)
        with torch.no_grad():
            connection.weight.copy_(weight)
        spikes = layer(connection(x))
        parameters = [connection.weight, *layer.parameters()]
        runs.append([spikes.detach(), *torch.autograd.grad((spikes * factors).sum(), parameters)])
    assert runs[0][0].sum() > 20
    assert all(found.abs().sum() > 0 for found in runs[0])
    for others in runs[1:]:
        assert all(torch.equal(one, other) for one, other in zip(runs[0], others, strict=True))


def test_a_parameter_that_the_step_bounds_learns_within_its_bounds() -> None:
    def bounded(current: E, v: E, *, decay: E) -> tuple[E, E]:
        return leaky(current, v, decay=minimum(maximum(decay, 0), 1))

    layer = Integrator(2, step=bounded, decay=[0.5, 1.5], learn=("decay",))
    (to_decay,) = torch.autograd.grad(layer(torch.ones(3, 1, 2)).sum(), [*layer.parameters()])
    # Membranes 1, 1 + d, 1 + d + d^2, whose sum has the slope 2 + 2 d; and none where 1.5 stands for 1.
    assert to_decay.tolist() == [3.0, 0.0]


def trained(steps: int = 60) -> tuple[nn.Sequential, Tensor, Tensor]:
    torch.manual_seed(0)
    x, y = moves(64)
    network = nn.Sequential(
        nn.Linear(8, 16),
        Neuron(16, batch_first=True, learn=("alpha", "beta"), **ADLIF),
        nn.Linear(16, 12),
        Neuron(12, step=recurrent_lif, recurrent=True, batch_first=True, **OWN),
        nn.Linear(12, 2),
        LIF(2, decay=0.75, batch_first=True),
    )
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-2)
    for _ in range(steps):
        loss = spike_loss(network(x), y, batch_first=True)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        assert all(each.grad is not None and each.grad.isfinite().all() for each in network.parameters())
        optimiser.step()
    return network, x, y


def test_what_was_trained_is_what_every_engine_serves(tmp_path: Path) -> None:
    network, x, y = trained()
    bundle = Bundle.read(publish(network, tmp_path, "own", (x, y)).folder)
    first, second = bundle.network.spec.spiking_nodes[:2]
    assert second.values() == {"decay": 0.75, "threshold": "per_neuron"}
    assert (first.type, second.type) == ("Neuron", "Neuron")
    own = {name: value for name, value in ADLIF.items() if name != "step"}
    assert first.values() == own | {"alpha": "per_neuron", "beta": "per_neuron"}
    assert not np.array_equal(bundle.network.tensors["neuron_1.alpha"], np.full(16, 0.75, np.float32))
    with torch.no_grad():  # publishing rounded the weights to their grid
        for path, node in (("0", "linear_0"), ("2", "linear_2"), ("3.neurons.recurrent", "neuron_3.recurrent"),
                           ("4", "linear_4")):  # fmt: skip
            for name, values in network.get_submodule(path).named_parameters():
                values.copy_(torch.from_numpy(bundle.network.tensors[f"{node}.{name}"].copy()))
        counts = network(x).sum(dim=1).numpy()
    assert (counts.argmax(axis=1) == y.numpy()).mean() > 0.8
    steps = x.transpose(0, 1).contiguous().numpy()
    for name in ENGINES:
        whole, _ = create(name, bundle.network).run(DenseInputs(steps, 8))
        assert np.array_equal(whole.spike_counts, counts), name


def test_an_integrator_of_ones_own_is_a_readout(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x, y = moves(16)
    network = nn.Sequential(
        nn.Linear(8, 8), LIF(8, decay=0.9), nn.Linear(8, 2), Integrator(2, step=leaky, decay=0.75, learn=("decay",))
    )
    named = copy.deepcopy(network)
    named[3] = LI(2, decay=0.75)
    given = x.transpose(0, 1)
    assert torch.equal(network(given), named(given))
    membrane_loss(network(given), y).backward()  # type: ignore[no-untyped-call]
    assert all(each.grad is not None and each.grad.abs().sum() > 0 for each in network[2:].parameters())
    bundle = Bundle.read(publish(network, tmp_path, "own", (x, y)).folder)
    assert bundle.network.spec.nodes[-1].type == "Integrator"
    assert bundle.network.spec.readout == "max_membrane"


def test_a_layer_is_copied_pickled_and_goes_on_from_its_state_dict() -> None:
    network, x, _ = trained()
    again, _, _ = trained(steps=0)
    again.load_state_dict(network.state_dict())
    spikes = network(x)
    assert spikes.sum() > 20
    for other in (again, copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(other(x), spikes)


def test_a_neuron_may_have_no_state_and_no_parameter(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x, y = moves(16)
    network = nn.Sequential(
        nn.Linear(8, 8), Neuron(8, step=lambda current: fire(current, 0.25)), nn.Linear(8, 2), LI(2, decay=1)
    )
    membrane_loss(network(x.transpose(0, 1)), y).backward()  # type: ignore[no-untyped-call]
    assert all(each.grad is not None and each.grad.abs().sum() > 0 for each in network.parameters())
    bundle = Bundle.read(publish(network, tmp_path, "own", (x, y)).folder)  # which every engine has run
    assert bundle.network.spec.nodes[1].type == "Neuron"


def test_a_function_may_have_defaults_and_any_python_that_hangs_on_no_value() -> None:
    def several(current: E, v: E, *, decay: float = 0.5, compartments: int = 3) -> tuple[E, E]:
        for _ in range(3):
            v = decay * v + current / compartments
        return fire(v, 1), v

    # A third three times over: 1/3, 1/2, 7/12.
    layer = Neuron(1, step=several)
    assert layer.neurons.node.values() == {"decay": 0.5, "compartments": 3.0}
    assert layer(torch.full((1, 1, 1), 12 / 7 + 1e-6)).item() == 1
    assert layer(torch.full((1, 1, 1), 12 / 7 - 1e-5)).item() == 0


TAUS: dict[str, float] = {}
WRONG: dict[str, tuple[Any, str]] = {
    "an if": (
        lambda current, v: (fire(v if v > 0 else current, 1), v),
        r"step '<lambda>' cannot be run, line \d+ of test_custom_neurons.py: a value of a step is no yes or no, "
        r"expected select\(condition, yes, no\) instead of an if",
    ),
    "max": (lambda current, v: (fire(max(v, current), 1), v), "minimum or maximum instead of min or max"),
    "and": (lambda current, v: (v > 1 and current > 1, v), "a value of a step is no yes or no"),
    "==": (lambda current, v: (fire(v + current, 1) * (v == 0), v), r"expected equal\(first, second\)"),
    "two values": (lambda current, v: (select(v == current, 1, 0), v), "False is no number"),
    "a state that is not returned": (
        lambda current, v, w: (fire(v + current, 1), w),
        "step '<lambda>' returns 2 values, expected what leaves, 'v', 'w'",
    ),
    "too many values": (lambda current: (fire(current, 1), current), "returns 2 values, expected what leaves$"),
    "nothing": (lambda current, v: None, "returns no value, expected what leaves, 'v'"),
    "a number": (lambda current, v: (fire(v + current, 1), 0.0), "returns 0.0 as 'v', expected what it computes from"),
    "a parameter as a state": (lambda current, v, *, a=1: (fire(v + current, 1), a), "'v' depends on no state and no"),
    "no whole number": (lambda current, v: (v + current, v), "what leaves may be no whole number of spikes"),
    "a name that is not set": (lambda current, v: (fire(u, 1), v), "name 'u' is not defined"),  # type: ignore[name-defined]  # noqa: F821
    "math": (lambda current, v: (fire(math.exp(v), 1), v), r"not Expression; a step has .* training.library .* exp,"),
    "numpy": (lambda current, v: (fire(np.exp(v), 1), v), "'Expression' does not support ufuncs .* exp,"),
    "torch": (lambda current, v: (fire(torch.exp(v), 1), v), "must be Tensor, not Expression; .* exp,"),  # type: ignore[arg-type]
    "a method": (lambda current, v: (fire(v.tanh(), 1), v), "'Expression' object has no attribute 'tanh'; a step has"),
    "a method of gradients": (lambda current, v: (fire(v.sigmoid(), 1), v), "uses sigmoid, which is no operation"),
    "a tensor": (lambda current, v: (fire(v * torch.ones(3), 1), v), "is no number, expected one, or a value"),
    "a root": (lambda current, v: (fire(v**0.5, 1), v), "a power is 0.5, expected a whole number above 0"),
    "infinity": (lambda current, v: (fire(v, math.inf), v), "uses the number inf, which does not fit into float32"),
    "its own error": (lambda current, v: TAUS["tau"], "cannot be run, line .*: KeyError: 'tau'"),
    "no current": (lambda v: (fire(v, 1), v), "takes v, expected current first"),
    "a default": (lambda current, v=1.0: (fire(v, 1), v), r"a default for 'v', expected states={'v': …}"),
    "any arguments": (lambda current, *v: (fire(current, 1), *v), "takes any arguments, expected current, each state"),
    "a reserved name": (lambda current, spikes: (fire(spikes, 1), spikes), "state 'spikes': expected a name of"),
    "feedback": (lambda current, feedback, v: (fire(current + feedback, 1), v), "its program asks for feedback, but i"),
    "no value": (lambda current, *, a: fire(current, a), r"takes 'a', which has no value, expected Neuron\(…, a=…\)"),
    "of no use": (lambda current, *, a=1: fire(current, 1), "takes 'a', which changes nothing that it returns"),
    "too long": (lambda current, v: (fire(v, 1), sum([v * current] * 300)), "program: has 302 operations, expected"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_function_that_is_no_step_is_refused_in_a_sentence(case: str) -> None:
    function, sentence = WRONG[case]
    with pytest.raises(InvalidConfig, match=sentence) as error:
        Neuron(4, step=function)
    assert str(error.value).startswith("Neuron: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"step": lif, "decay": 0.5, "threshold": 1, "leak": 1}, "given 'leak', which it does not take, expected dec"),
        ({"step": lif, "decay": 0.5, "threshold": 1, "v": 1}, "is given 'v', which is a state, expected decay, thresh"),
        ({"step": lif, "decay": [1, 2], "threshold": 1}, "decay is of shape 2, expected a number, or an array of"),
        ({"step": lif, "decay": "fast", "threshold": 1}, "decay is 'fast', expected a number"),
        ({"step": lif, "decay": math.nan, "threshold": 1}, "decay is nan, expected a number"),
        ({"step": lif, "decay": 1e39, "threshold": 1}, r"decay is 1e\+39, expected a number"),
        ({"step": lif, "decay": 1, "threshold": 1, "learn": ["tau"]}, "learn holds 'tau', which is none of its"),
        ({"step": lif, "decay": 1, "threshold": 1, "states": {"w": 0}}, "has no state 'w', expected v"),
        ({"step": lif, "decay": 1, "threshold": 1, "states": {"v": None}}, "starts at .* None is no number"),
        ({"step": lif, "decay": 1, "threshold": 1, "states": {"v": "rest"}}, "parameters lacks 'rest'"),
        ({"step": lif, "decay": 1, "threshold": 1, "spikes": "s"}, "spikes is 's', but the first value that a"),
        ({"step": 3}, "step is '3', expected a function, or a list of lines"),
        ({"step": "v = v"}, "step is 'v = v', expected a function, or a list of lines"),
        ({"step": max}, "step 'max' has no signature that Python knows"),
        ({"step": LINES, "decay": 1, "threshold": 1}, "program.spikes: .* string, got None"),
        ({"step": LINES, "spikes": "s", "states": {"v": 0.0}, "decay": 1}, "parameters lacks 'threshold'"),
        ({"step": LINES, "spikes": "s", "decay": 1, "threshold": 1}, "step, line 3: 'v' is used before it is set"),
        ({"step": [*LINES, 3], "spikes": "s"}, "program.step.3: .* string, got 3"),
    ],
)  # fmt: skip
def test_what_is_given_beside_a_step_is_refused_in_a_sentence(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidConfig, match=sentence) as error:
        Neuron(4, **given)
    assert "\n" not in str(error.value)


def test_the_library_has_every_function_of_a_bundles_lines_and_the_page_names_them() -> None:
    page = section((ROOT / "docs/tutorials/neuron.md").read_text(), "The step")
    assert sorted(FUNCTIONS - {"abs"} - {*library.__all__}) == []
    assert [name for name in sorted(FUNCTIONS) if f"`{name}`" not in page] == []


def test_golden_samples_are_far_from_a_threshold_of_a_program_too() -> None:
    network = network_of(
        [{"type": "Neuron", "name": "out", "program": {"states": {"v": 0.0}, "step": LINES, "spikes": "s"},
          "parameters": {"decay": 0.5, "threshold": 2.0}}],
        {}, **task(2, 1, "ab")
    )  # fmt: skip
    (moved,) = _with_thresholds(network, 1.5).spec.spiking_nodes
    assert moved.values() == {"decay": 0.5, "threshold": 3.0}


def chosen(current: E, v: E, *, high: E, low: E) -> tuple[E, E]:
    v = 0.5 * v + current
    return select(v, v * high, v * low), v


@pytest.mark.parametrize("compiled", [True, False])
def test_a_choice_by_a_value_passes_no_gradient_to_that_value(*, compiled: bool) -> None:
    # With currents of 1, -2 and 3 the membrane is 1, -1.5 and 2.25: the first and the last are times 1000, the other
    # times 2. What leaves changes with the membrane by 1000, 2 and 1000, and no jump of the choice itself counts.
    layer = Integrator(1, step=chosen, high=1000.0, low=2.0)
    current = torch.tensor([1.0, -2.0, 3.0]).reshape(3, 1, 1).requires_grad_()
    if compiled:
        left = layer(current)
    else:
        parameters = {name: torch.tensor(value) for name, value in (("high", 1000.0), ("low", 2.0))}
        left = plain.scan(layer.neurons.node, parameters, current, 3, SurrogateThreshold(), None)
    (gradient,) = torch.autograd.grad(left.sum(), [current])
    assert left.flatten().tolist() == [1000.0, -3.0, 2250.0]
    assert gradient.flatten().tolist() == [1000 + 1 + 250, 2 + 500, 1000]


def test_a_choice_by_spikes_passes_their_surrogate() -> None:
    x = torch.tensor([0.9, 1.2], requires_grad=True)
    threshold = SurrogateThreshold(slope=2.0)
    spikes = threshold.fire("fire", x, torch.tensor(1.0))
    chosen = threshold.select(spikes, torch.tensor(7.0), torch.tensor(4.0))
    to_chosen, to_spikes = (torch.autograd.grad(each.sum(), [x], retain_graph=True)[0] for each in (chosen, spikes))
    assert torch.equal(to_chosen, 3 * to_spikes)
