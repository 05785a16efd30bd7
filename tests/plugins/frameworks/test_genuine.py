"""A module that computes something else than its class says is refused, or traced as the code that it really runs."""

import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrize, prune

from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec import Readout
from spikeserve.plugins.frameworks.compare import compare, random_encoded, run_framework
from spikeserve.plugins.frameworks.convert import convert
from spikeserve.plugins.frameworks.entry import load_network
from spikeserve.plugins.frameworks.framework import find
from spikeserve.plugins.frameworks.options import FrameworkOptions
from spikeserve.training.errors import InvalidEntry, NotConvertible
from tests.plugins.frameworks.plain_network import Hidden, taken_in

SIZE = 6

with warnings.catch_warnings():  # of frameworks, about themselves
    warnings.simplefilter("ignore")
    snn: Any = pytest.importorskip("snntorch", reason="snntorch is not installed: ./scripts/install peers")
    norse: Any = pytest.importorskip("norse.torch", reason="norse is not installed: ./scripts/install peers")
    layers: Any = pytest.importorskip("sinabs.layers", reason="sinabs is not installed: ./scripts/install peers")
    jelly: Any = pytest.importorskip("spikingjelly.activation_based", reason="spikingjelly is not installed")
    from sinabs.network import Network
    from spikingjelly.activation_based import layer, neuron, surrogate


def of_half(original: Any) -> Callable[..., Any]:
    """A forward that a rule does not see: it halves the current."""
    return lambda current, *others: original(current / 2, *others)


def replaced(module: Any, *names: str) -> Any:
    for name in names or ("forward",):
        setattr(module, name, of_half(getattr(module, name)))
    return module


def with_attributes(module: Any, **attributes: Any) -> Any:
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


def hooked(module: Any, part: str = "") -> Any:
    module.get_submodule(part).register_forward_hook(lambda _, __, output: output / 2)
    return module


def pruned(module: Any) -> Any:
    return prune.random_unstructured(module, "weight", 0.5)  # type: ignore[no-untyped-call]


def own_forward(current: Tensor) -> Tensor:
    return current


CHANGED: dict[str, tuple[str, Callable[[], Any], str]] = {
    "a connection's forward": ("snntorch", lambda: replaced(nn.Linear(SIZE, SIZE)), "it has its own forward"),
    "snnTorch's fire": ("snntorch", lambda: replaced(snn.Leaky(0.9), "fire"), "it has its own fire"),
    "snnTorch's state of another": (
        "snntorch",
        lambda: with_attributes(snn.Leaky(0.9), state_function=snn.Leaky(0.5).state_function),
        "which is not the snntorch module's",
    ),
    "a recurrent connection": (
        "snntorch",
        lambda: with_attributes(snn.RLeaky(0.9, linear_features=SIZE), recurrent=nn.Identity()),
        "recurrent is Identity(): expected the connection that its class makes",
    ),
    "a hook": ("snntorch", lambda: hooked(snn.Leaky(0.9)), "it has a forward hook, which may change what it computes"),
    "a hook within": (
        "snntorch", lambda: hooked(snn.RLeaky(0.9, linear_features=SIZE), "recurrent"), "its recurrent has a forward"
    ),
    "pruned weights": ("snntorch", lambda: pruned(nn.Linear(SIZE, SIZE)), "torch.nn.utils.prune.remove makes its wei"),
    "SpikingJelly's charge": (
        "spikingjelly", lambda: with_attributes(neuron.IFNode(), neuronal_charge=own_forward), "its own neuronal_charge"
    ),
    "SpikingJelly's surrogate": (
        "spikingjelly",
        lambda: neuron.IFNode(surrogate_function=replaced(surrogate.Sigmoid())),
        "its surrogate_function has its own forward",
    ),
    "within a container": (
        "spikingjelly",
        lambda: layer.LinearRecurrentContainer(replaced(neuron.IFNode()), SIZE, SIZE),
        "its sub_module has its own forward",
    ),
    "Norse's step": ("norse", lambda: replaced(norse.LIFCell(), "activation"), "which is not the norse module's"),
    "within sinabs' neuron": (
        "sinabs", lambda: layers.IAFRecurrent(replaced(nn.Linear(SIZE, SIZE))), "its rec_connect has its own forward"
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", CHANGED)
def test_a_module_that_was_changed_is_refused_by_name(way: str) -> None:
    name, make, sentence = CHANGED[way]
    network = nn.Sequential(nn.Linear(SIZE, SIZE), make()).eval().requires_grad_(False)
    with pytest.raises(NotConvertible, match=re.escape(sentence)) as refused:
        convert(network, find(name), FrameworkOptions(input_shape=(SIZE,), time_steps=8))
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


@pytest.mark.parametrize("container", [Half, half_by_a_hook])
def test_a_container_that_does_more_is_run_as_it_is(container: Callable[..., nn.Sequential]) -> None:
    def made() -> list[nn.Module]:
        torch.manual_seed(5)
        parts = [nn.Linear(SIZE, SIZE), Hidden(), nn.Linear(SIZE, SIZE)]
        for part in parts[::2]:
            part.weight.data.mul_(8)  # type: ignore[operator]
        return parts

    found = taken_in(container(*made()), SIZE, readout=Readout.SUM)
    inputs = random_encoded(found.network.spec, 8)
    own, total = container(*made()), torch.zeros(8, SIZE)
    with torch.no_grad():
        for step in torch.from_numpy(inputs.steps.copy()):
            total += own(step)
    result, _ = ReferenceEngine(found.network).run(inputs)
    assert torch.allclose(torch.from_numpy(result.readout), total, atol=1e-4)


def test_a_sinabs_network_with_a_hook_is_run_with_it() -> None:
    # The hook halves what arrives: a current of 1, as 0.5, reaches the threshold of 1 at every second step.
    made = Network(None, nn.Sequential(nn.Linear(SIZE, SIZE, bias=False), layers.IAF()))
    made.spiking_model[0].weight.data = torch.eye(SIZE)
    made.register_forward_pre_hook(lambda _, given: (given[0] / 2,))
    found = convert(
        made.eval().requires_grad_(False), find("sinabs"), FrameworkOptions(input_shape=(SIZE,), time_steps=8)
    )
    result, _ = ReferenceEngine(found.network).run(random_encoded(found.network.spec, 4))
    plain = convert(made.spiking_model, find("sinabs"), FrameworkOptions(input_shape=(SIZE,), time_steps=8))
    whole, _ = ReferenceEngine(plain.network).run(random_encoded(plain.network.spec, 4))
    assert 0 < result.spike_counts.sum() < whole.spike_counts.sum()


class Noisy(nn.Module):
    """A parametrization that gives other weights at each call."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight + torch.randn_like(weight)


def scripted() -> nn.Module:
    return torch.jit.script(nn.Linear(2, 2))


def traced_within() -> nn.Module:
    compiled: nn.Module = torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2))  # type: ignore[no-untyped-call]
    return nn.Sequential(nn.Identity(), compiled)


def quantised() -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(2, 2)))  # type: ignore[no-untyped-call]


def noisy() -> nn.Module:
    made = nn.Sequential(nn.Linear(2, 2))
    parametrize.register_parametrization(made[0], "weight", Noisy(), unsafe=True)
    return made


@pytest.mark.filterwarnings("ignore")  # of torch, about its own ways
@pytest.mark.parametrize(
    ("factory", "sentence"),
    [
        (scripted, r"gives a compiled module \(RecursiveScriptModule\), whose code cannot be read: return the nn"),
        (traced_within, r"holds a compiled module at '1' \(TopLevelTracedModule\)"),
        (quantised, r"has quantised weights at '0', expected the network of floats from before quantize_dynamic"),
        (noisy, r"'0\.weight' is computed otherwise each time it is read"),
    ],
)
def test_what_hides_its_code_or_its_weights_is_refused_at_the_door(
    factory: Callable[[], nn.Module], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(InvalidEntry, match=sentence):
        load_network(f"{__name__}:{factory.__name__}")


STARTS = {
    "IFNode": lambda: neuron.IFNode(v_reset=None),
    "LIFNode": lambda: neuron.LIFNode(),
    "HalfThresholdIFNode": lambda: neuron.HalfThresholdIFNode(),
    "SimpleIFNode": lambda: neuron.SimpleIFNode(),
}


@pytest.mark.parametrize("name", STARTS)
def test_a_membrane_begins_at_its_reset_value(name: str) -> None:
    made = STARTS[name]()
    made.set_reset_value("v", 0.75)
    found = convert(nn.Sequential(nn.Linear(SIZE, SIZE), made).requires_grad_(False), find("spikingjelly"), SERVED)
    assert found.network.spec.nodes[-1].start == 0.75  # type: ignore[union-attr]
    inputs = random_encoded(found.network.spec, 8)
    rows = compare(found, run_framework(found, find("spikingjelly"), inputs), ReferenceEngine(found.network), inputs)
    assert [row.differing for row in rows] == [0]


SERVED = FrameworkOptions(input_shape=(SIZE,), time_steps=8)


def test_a_membrane_that_begins_at_a_tensor_is_refused() -> None:
    made: Any = neuron.IFNode()
    made.set_reset_value("v", torch.zeros(1, SIZE))
    with pytest.raises(NotConvertible, match="its reset value of v is a Tensor: expected"):
        convert(nn.Sequential(nn.Linear(SIZE, SIZE), made).requires_grad_(False), find("spikingjelly"), SERVED)
