"""A module that computes something else than its class says is refused, or traced as the code that it really runs."""

import re
from collections.abc import Callable
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
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # of frameworks, about themselves
@pytest.mark.parametrize(("name", "neurons", "sentence"), CHANGED)
def test_a_module_that_was_changed_is_refused_by_name(name: str, neurons: str, sentence: str) -> None:
    ways = {
        "replaced": replaced,
        "having": having,
        "hooked": hooked,
        "random_unstructured": prune.random_unstructured,
        "own": lambda x: x,
    }
    made = eval(neurons, names_of(name) | ways | {"nn": nn})  # noqa: S307  (written above)
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


def half_by_a_hook(*parts: nn.Module) -> nn.Sequential:
    network = nn.Sequential(*parts)
    network.register_forward_pre_hook(lambda _, given: (given[0] / 2,))
    return network


def half_in_sinabs(*parts: nn.Module) -> nn.Module:
    network: nn.Module = names_of("sinabs")["Network"](None, nn.Sequential(*parts))
    network.register_forward_pre_hook(lambda _, given: (given[0] / 2,))
    return network


@pytest.mark.filterwarnings("ignore")  # of frameworks, about themselves
@pytest.mark.parametrize(
    ("container", "name"), [(Half, "torch"), (half_by_a_hook, "torch"), (half_in_sinabs, "sinabs")]
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


def test_a_membrane_that_begins_at_a_tensor_is_refused() -> None:
    made: Any = names_of("spikingjelly")["IFNode"]()
    made.set_reset_value("v", torch.zeros(1, SIZE))
    with pytest.raises(NotConvertible, match="its reset value of v is a Tensor: expected"):
        convert(nn.Sequential(nn.Linear(SIZE, SIZE), made).requires_grad_(False), find("spikingjelly"), SERVED)
