"""A module that computes something else than its class says, or than the nodes can, is refused by name.

Or it is traced as the code that it really runs.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.nn.utils import prune

from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.plugins.frameworks.compare import compare, random_encoded, run_framework
from spikeserve.plugins.frameworks.convert import convert
from spikeserve.plugins.frameworks.framework import find
from spikeserve.plugins.frameworks.options import FrameworkOptions
from spikeserve.training.errors import NotConvertible
from tests.plugins.frameworks.plain_network import PLAIN, Hidden, taken_in
from tests.plugins.frameworks.test_peers import names_of

SIZE = 6
SERVED = FrameworkOptions(input_shape=(SIZE,), time_steps=8)


def of_half(original: Any) -> Callable[..., Any]:
    """A forward that a rule does not see: it halves the current."""
    return lambda current, *others: original(current / 2, *others)


def replaced(module: Any, *names: str) -> Any:
    for name in names or ("forward",):
        setattr(module, name, of_half(getattr(module, name)))
    return module


def having(module: Any, **attributes: Any) -> Any:
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


def hooked(module: Any, part: str = "") -> Any:
    module.get_submodule(part).register_forward_hook(lambda _, __, output: output / 2)
    return module


CHANGED = [
    ("snntorch", "replaced(nn.Linear(6, 6))", "it has its own forward"),
    ("snntorch", "replaced(Leaky(0.9), 'fire')", "it has its own fire"),
    ("snntorch", "having(Leaky(0.9), state_function=Leaky(0.5).state_function)", "which is not the snntorch module's"),
    ("snntorch", "having(RLeaky(0.9, linear_features=6), recurrent=nn.Identity())",
        "recurrent is Identity(): expected the connection that its class makes"),
    ("snntorch", "hooked(Leaky(0.9))", "it has a forward hook, which may change what it computes"),
    ("snntorch", "hooked(RLeaky(0.9, linear_features=6), 'recurrent')", "its recurrent has a forward"),
    ("snntorch", "random_unstructured(nn.Linear(6, 6), 'weight', 0.5)", "torch.nn.utils.prune.remove makes its wei"),
    ("spikingjelly", "having(IFNode(), neuronal_charge=own)", "its own neuronal_charge"),
    ("spikingjelly", "IFNode(surrogate_function=replaced(surrogate.Sigmoid()))",
        "its surrogate_function has its own forward"),
    ("spikingjelly", "LinearRecurrentContainer(replaced(IFNode()), 6, 6)", "its sub_module has its own forward"),
    ("norse", "replaced(LIFCell(), 'activation')", "which is not the norse module's"),
    ("sinabs", "IAFRecurrent(replaced(nn.Linear(6, 6)))", "its rec_connect has its own forward"),
    ("spikingjelly", "(made := IFNode(), made.set_reset_value('v', torch.zeros(1, 6)))[0]",
        "its reset value of v is a Tensor: expected"),
]  # fmt: skip
# What a framework alone can do.
NOT_SERVED = [
    ("snntorch", "Leaky(0.9, state_quant=lambda x: x)", "state_quant is set"),
    ("snntorch", "Leaky(0.9, graded_spikes_factor=0.0)", "graded_spikes_factor is 0"),
    ("snntorch", "(made := RLeaky(0.9, linear_features=6), made.graded_spikes_factor.fill_(2.0))[0]",
        "graded_spikes_factor is 2.0: a recurrent neuron hears its own spikes as 1"),
    ("snntorch", "Leaky(0.9, inhibition=True)", "inhibition is True"),
    ("snntorch", "Leaky(0.9, spike_grad=lambda x: x)", "spike_grad"),
    ("snntorch", "Leaky(0.9, threshold=-1.0)", "threshold"),
    ("snntorch", "Lapicque(beta=0.9, R=3)", "R is 3.0"),
    ("snntorch", "RSynaptic(0.9, 0.8, linear_features=6, reset_delay=False, init_hidden=True)", "cannot run"),
    ("spikingjelly", "SimpleLIFNode(2.0, False, v_reset=-0.5)", "float64"),
    ("spikingjelly", "LinearRecurrentContainer(nn.Tanh(), 6, 6)",
        "neither a spiking neuron nor a Linear and a spiking neuron"),
    ("spikingjelly", "ElementWiseRecurrentContainer(IFNode(), torch.mul)", "element_wise_function: it is not the sum"),
    ("norse", "LIFCell(LIFParameters(method='adjoint'))", "method is 'adjoint'"),
    ("sinabs", "IAF(reset_fn=MembraneReset(0.5))", "sinabs adds it to every neuron"),
    ("sinabs", "IAF(reset_fn=MembraneSubtract(0.5))", "reset_fn subtracts 0.5"),
    ("sinabs", "IAF(spike_fn=MaxSpike(2))", "spike_fn is"),
    ("sinabs", "IAFRecurrent(nn.Tanh())", "its recurrent connection: is Tanh()"),
    ("sinabs", "ALIF(20.0, 20.0, 5.0)", "norm_input is True with tau_syn"),
    ("sinabs", "ALIF(20.0, 20.0, reset_fn=MembraneSubtract(1.0))", "reset_fn subtracts 1.0"),
    ("norse", "LSNNCell(adjoint=True)", "adjoint is True"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # of frameworks, about themselves
@pytest.mark.parametrize(("name", "neurons", "sentence"), CHANGED + NOT_SERVED)
def test_a_module_that_was_changed_or_is_its_frameworks_alone_is_refused_by_name(
    name: str, neurons: str, sentence: str
) -> None:
    ways = {
        "replaced": replaced,
        "having": having,
        "hooked": hooked,
        "random_unstructured": prune.random_unstructured,
        "own": lambda x: x,
    }
    made = eval(neurons, names_of(name) | ways | {"nn": nn, "torch": torch})  # noqa: S307  (written above)
    network = nn.Sequential(nn.Linear(SIZE, SIZE), made).eval().requires_grad_(False)
    with pytest.raises(NotConvertible, match=re.escape(sentence)) as refused:
        convert(network, find(name), SERVED)
    assert re.search(r"\n  1[ :]", str(refused.value))


def test_a_class_that_was_changed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.Linear, "forward", of_half(nn.Linear.forward))
    with pytest.raises(NotConvertible, match="0: it has its own forward, which is not the torch module's"):
        taken_in(nn.Sequential(nn.Linear(SIZE, SIZE), Hidden()), SIZE)


def test_a_hook_for_all_modules_is_refused() -> None:
    handle = torch_module.register_module_forward_pre_hook(lambda _, __: None)
    try:
        with pytest.raises(NotConvertible, match="PyTorch has a forward hook for all modules"):
            taken_in(nn.Sequential(nn.Linear(SIZE, SIZE), Hidden()), SIZE)
    finally:
        handle.remove()


class Half(nn.Sequential):
    """A container that changes its input on the way."""

    def __call__(self, current: Tensor) -> Any:
        return super().__call__(current / 2)


def half_by_a_hook(name: str, *parts: nn.Module) -> nn.Module:
    network = nn.Sequential(*parts)
    made: nn.Module = network if name == "torch" else names_of(name)["Network"](None, network)
    made.register_forward_pre_hook(lambda _, given: (given[0] / 2,))
    return made


@pytest.mark.filterwarnings("ignore")  # of frameworks, about themselves
@pytest.mark.parametrize(
    ("container", "name"),
    [(Half, "torch"), (partial(half_by_a_hook, "torch"), "torch"), (partial(half_by_a_hook, "sinabs"), "sinabs")],
)
def test_a_container_that_does_more_is_run_as_it_is(container: Callable[..., nn.Module], name: str) -> None:
    # The half of a current of 1 reaches the threshold of 1 at every second step; of a Linear, 8 / 2 times its output.
    linear = nn.Linear(SIZE, SIZE, bias=False)
    linear.weight.data = torch.eye(SIZE)
    fires: nn.Module = Hidden() if name == "torch" else names_of("sinabs")["IAF"]()
    made, plain = container(linear, fires).eval().requires_grad_(False), nn.Sequential(linear, fires)
    counts = []
    for network in (made, plain):
        found = convert(network, PLAIN if name == "torch" else find(name), SERVED)
        inputs = DenseInputs(np.ones((8, 1, SIZE), np.float32), 8)
        counts.append(ReferenceEngine(found.network).run(inputs)[0].spike_counts.tolist())
    assert counts == [[[4] * SIZE], [[8] * SIZE]]


@pytest.mark.parametrize("kind", ["IFNode(v_reset=None)", "LIFNode()", "HalfThresholdIFNode()", "SimpleIFNode()"])
def test_a_membrane_begins_at_its_reset_value(kind: str) -> None:
    made = eval(kind, names_of("spikingjelly"))  # noqa: S307  (written above)
    made.set_reset_value("v", 0.75)
    found = convert(nn.Sequential(nn.Linear(SIZE, SIZE), made).requires_grad_(False), find("spikingjelly"), SERVED)
    assert found.network.spec.nodes[-1].start == 0.75  # type: ignore[union-attr]
    inputs = random_encoded(found.network.spec, 8)
    rows = compare(found, run_framework(found, find("spikingjelly"), inputs), ReferenceEngine(found.network), inputs)
    assert [row.differing for row in rows] == [0]
