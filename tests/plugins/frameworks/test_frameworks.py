"""Networks of other frameworks by the command line: what comes in, what is proven, and what is refused by name."""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines import Record, available, create
from spikeserve.plugins.frameworks.convert import convert
from spikeserve.plugins.frameworks.entry import load_network
from spikeserve.plugins.frameworks.framework import find
from spikeserve.plugins.frameworks.options import FrameworkOptions
from spikeserve.training.errors import InvalidEntry, NotConvertible
from tests.plugins.frameworks.plain_network import Spike, taken_in
from tests.plugins.frameworks.test_peers import names_of
from tests.serving import serving
from tests.training.command_line import ROOT, training_here

GUIDE = (ROOT / "docs/interop.md").read_text()


def test_all_that_cannot_be_converted_is_named_at_once() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding_mode="circular"), nn.GELU(), nn.MaxPool2d(2, dilation=2), nn.Flatten(0)
    )
    with pytest.raises(NotConvertible) as refused:
        taken_in(network, 1, 8, 8)
    assert str(refused.value).splitlines() == [
        "the network holds 4 things that cannot be converted:",
        "  0 (torch.nn.modules.conv.Conv2d): padding_mode is 'circular': only zeros pad a convolution",
        "  1 (torch.nn.modules.activation.GELU): its class: no rule converts it; train the network with ReLU "
        "in its place",
        "  2 (torch.nn.modules.pooling.MaxPool2d): dilation is 2: a pool has no gaps",
        "  3 (torch.nn.modules.flatten.Flatten): start_dim is 0: it would flatten the batch",
    ]


def test_a_neuron_used_twice_is_refused_and_a_pool_used_twice_is_not() -> None:
    pool, neuron = nn.AvgPool2d(2), nn.Tanh()
    with pytest.raises(NotConvertible, match="2: it is the same module as another's, and would share its state"):
        taken_in(nn.Sequential(nn.Linear(4, 4), neuron, neuron), 4)
    found = taken_in(nn.Sequential(pool, pool, nn.Flatten(), Spike()), 1, 8, 8)
    assert [node.name for node in found.network.spec.nodes] == ["avgpool2d_0", "avgpool2d_1", "flatten_2", "spike_3"]


def test_a_batch_norm_is_folded_in_float64_and_rounded_once() -> None:
    # Weight 0.5, bias 1; mean 3, variance 4 - eps, so a standard deviation of 2; gamma 4, beta -1:
    # 4 * (0.5 x + 1 - 3) / 2 - 1 = x - 5.
    linear, norm = nn.Linear(1, 1), nn.BatchNorm1d(1)
    linear.weight.data.fill_(0.5)
    linear.bias.data.fill_(1.0)
    norm.running_mean, norm.running_var = torch.tensor([3.0]), torch.tensor([4.0 - norm.eps])
    norm.weight.data.fill_(4.0)
    norm.bias.data.fill_(-1.0)
    found = taken_in(nn.Sequential(linear, norm, Spike()), 1)
    tensors = {name: tensor.item() for name, tensor in found.network.tensors.items()}
    assert tensors == pytest.approx({"linear_0.weight": 1.0, "linear_0.bias": -5.0}, abs=1e-6)
    assert "batch norm `1` is folded into `linear_0`" in found.notes[0]


NOT_SERVED = [
    ("snntorch", "Leaky(0.9, state_quant=lambda x: x)", "state_quant is set"),
    ("snntorch", "Leaky(0.9, graded_spikes_factor=0.0)", "graded_spikes_factor is 0"),
    ("snntorch", "(made := RLeaky(0.9, linear_features=4), made.graded_spikes_factor.fill_(2.0))[0]",
        "graded_spikes_factor is 2.0: a recurrent neuron hears its own spikes as 1"),
    ("snntorch", "Leaky(0.9, inhibition=True)", "inhibition is True"),
    ("snntorch", "Leaky(0.9, spike_grad=lambda x: x)", "spike_grad"),
    ("snntorch", "Leaky(0.9, threshold=-1.0)", "threshold"),
    ("snntorch", "Lapicque(beta=0.9, R=3)", "R is 3.0"),
    ("snntorch", "RSynaptic(0.9, 0.8, linear_features=4, reset_delay=False, init_hidden=True)", "cannot run"),
    ("spikingjelly", "SimpleLIFNode(2.0, False, v_reset=-0.5)", "float64"),
    ("spikingjelly", "LinearRecurrentContainer(torch.nn.Tanh(), 4, 4)",
        "neither a spiking neuron nor a Linear and a spiking neuron"),
    ("spikingjelly", "ElementWiseRecurrentContainer(IFNode(), torch.mul)", "element_wise_function: it is not the sum"),
    ("norse", "LIFCell(LIFParameters(method='adjoint'))", "method is 'adjoint'"),
    ("sinabs", "IAF(reset_fn=MembraneReset(0.5))", "sinabs adds it to every neuron"),
    ("sinabs", "IAF(reset_fn=MembraneSubtract(0.5))", "reset_fn subtracts 0.5"),
    ("sinabs", "IAF(spike_fn=MaxSpike(2))", "spike_fn is"),
    ("sinabs", "IAFRecurrent(torch.nn.Tanh())", "its recurrent connection: is Tanh()"),
    ("sinabs", "ALIF(20.0, 20.0, 5.0)", "norm_input is True with tau_syn"),
    ("sinabs", "ALIF(20.0, 20.0, reset_fn=MembraneSubtract(1.0))", "reset_fn subtracts 1.0"),
    ("norse", "LSNNCell(adjoint=True)", "adjoint is True"),
]  # fmt: skip


def test_a_framework_that_is_unknown_or_not_installed_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        InvalidEntry, match="'keras' is not one, expected snntorch, spikingjelly, norse, sinabs, torch or spikeserve"
    ):
        find("keras")
    monkeypatch.delitem(sys.modules, "spikeserve.plugins.frameworks.sinabs", raising=False)
    monkeypatch.setitem(sys.modules, "sinabs.layers", None)
    with pytest.raises(InvalidEntry, match=r"sinabs cannot be imported here: .*; pip install sinabs"):
        find("sinabs")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "neuron", "reason"), NOT_SERVED)
def test_what_a_framework_alone_can_do_is_refused_by_name(name: str, neuron: str, reason: str) -> None:
    network = nn.Sequential(nn.Linear(4, 4), eval(neuron, names_of(name) | {"torch": torch}))  # noqa: S307  (above)
    with pytest.raises(NotConvertible, match=re.escape(reason)) as refused:
        convert(network.eval().requires_grad_(False), find(name), FrameworkOptions(input_shape=(4,), time_steps=8))
    assert "\n  1 (" in str(refused.value)


def test_the_guides_example_runs(tmp_path: Path) -> None:
    pytest.importorskip("snntorch", reason="snntorch is not installed: ./scripts/install peers")
    code, _ = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    (tmp_path / "mynet.py").write_text(code)
    commands = re.findall(r"^spikeserve (import snntorch .*|verify .*)$", GUIDE, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        result = training_here(*command.split(), cwd=tmp_path)
        assert result.returncode == 0, result.stderr
    assert "of 20000 neuron-steps differ" in result.stdout
    bundle = ModelRepository(tmp_path / "repository").read("mine")
    assert [node.name for node in bundle.network.spec.nodes if "leaky" in node.name] == ["leaky_2", "leaky_4"]
    for engine in available():
        bundle.verify(create(engine, bundle.network))
    assert create("event", bundle.network).run(bundle.golden.inputs)[0].spike_counts.any()
    assert re.search(r"snntorch 1\.\d", bundle.card)
    assert "\nspikeserve serve --repository repository\n" in GUIDE
    with serving(tmp_path / "repository") as client:
        assert client.get("/models").json()["default"] == "mine"


def test_the_guides_neuron_of_an_old_release_spikes_as_its_rule_by_hand() -> None:
    _, code = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    names: dict[str, Any] = {"nn": nn, "torch": torch}
    exec(f"from __future__ import annotations\n{code}", names)  # noqa: S102  (the page's)
    rng = np.random.default_rng(0)
    spikes, weight = rng.integers(0, 2, (40, 8, 6)).astype(np.float32), rng.integers(-4, 9, (5, 6)) / np.float32(8)
    layers = nn.Sequential(nn.Linear(6, 5, bias=False), names["OldLeaky"](0.9)).requires_grad_(False)
    layers[0].get_parameter("weight").copy_(torch.from_numpy(weight))
    network = convert(layers, find("torch"), FrameworkOptions(input_shape=(6,), time_steps=40)).network
    result, _ = create("reference", network).run(DenseInputs(spikes, 40), record=Record.RASTER)
    old, now, rasters, beta = np.zeros((8, 5), np.float32), np.zeros((8, 5), np.float32), [], np.float32(0.9)
    for current in spikes @ weight.T:  # which is exact
        old, now = beta * (old - (old > 1)) + current, beta * now + current - (now > 1)
        rasters.append((old > 1, now > 1))
    by_hand, of_today = np.array(rasters).swapaxes(0, 1)
    assert np.array_equal(result.rasters[network.spec.nodes[-1].name], by_hand)
    assert (by_hand != of_today).sum() > 50


def test_what_the_guide_installs_is_all_that_its_three_commands_need() -> None:
    (extras,) = re.findall(r"`pip install '\.\[([a-z,]+)\]'` installs all four", GUIDE)
    assert extras.split(",") == ["serve", "train", "peers"]  # the third command is the server's


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with networks, where commands run in this process."""
    pytest.importorskip("snntorch", reason="snntorch is not installed: ./scripts/install peers")
    (tmp_path / "nets.py").write_text(
        "import snntorch, torch\nfrom torch import nn\n\n"
        "def made(beta):\n"
        "    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.Linear(9, 30), snntorch.Leaky(beta), nn.Linear(30, 3), snntorch.Leaky(beta))\n\n"
        "def one():\n    return made(0.5)\n\n"
        "def other():\n    return made(0.95)\n\n"
        "number = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "nets", raising=False)
    return tmp_path


def run_here(*arguments: str) -> tuple[int, str, str]:
    """Run a command in this process and the current folder; return its status and what it wrote."""
    done = training_here(*arguments, cwd=Path.cwd())
    return done.returncode, done.stdout, done.stderr


def test_verify_exits_with_1_where_a_spike_differs(home: Path) -> None:
    status, shown, errors = run_here(
        "import", "snntorch", "nets:one", "--input-shape", "9", "--time-steps", "20", "--repository", "r",
        "--name", "m", "--labels", "left,right,none",
    )  # fmt: skip
    assert status == 0, errors
    assert shown.startswith("Its forward takes one step of (batch, 9); 20 steps a sample\n")
    assert ModelRepository(home / "r").read("m").manifest.spec.labels == ("left", "right", "none")
    same, found, _ = run_here("verify", "r/m/1", "--against", "snntorch:nets:one")
    assert (same, "0 of 10560 neuron-steps differ" in found) == (0, True)
    other, found, _ = run_here("verify", "r/m/1", "--against", "snntorch:nets:other")
    assert other == 1
    assert re.search(
        r"^[1-9]\d* of 10560 neuron-steps differ\nin 16 of 16 samples: sample 0 first differs in step \d+, unit \d+ of "
        r"'leaky_\d'; other membranes differ before that by more than rounding, so the rules or weights differ$",
        found,
        re.MULTILINE,
    )


def test_a_users_own_modules_may_have_the_names_of_our_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("models/__init__", "models/net"):
        (tmp_path / f"{name}.py").parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.py").write_text("from torch import nn\n\ndef make():\n    return nn.Linear(3, 2)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert isinstance(load_network("models.net:make"), nn.Linear)
    for name in ("models", "models.net"):
        assert str(tmp_path) in str(sys.modules.pop(name).__file__)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of PyTorch, that the older way is deprecated
def test_weights_of_a_parametrization_are_taken_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A direction of (3, 4), whose norm is 5, of length 10: weights of 6 and 8, in the newer way and the older.
    (tmp_path / "normed.py").write_text(
        "import torch\nfrom torch import nn\n\n"
        "def net():\n"
        "    new, old = nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)\n"
        "    nn.utils.parametrizations.weight_norm(new)\n"
        "    nn.utils.weight_norm(old)\n"
        "    with torch.no_grad():\n"
        "        for size, way in ((new.parametrizations.weight.original0, new.parametrizations.weight.original1),\n"
        "                          (old.weight_g, old.weight_v)):\n"
        "            size.fill_(10.0)\n"
        "            way.copy_(torch.tensor([[3.0, 4.0]]))\n"
        "    return nn.Sequential(new, old)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    network = load_network("normed:net")
    assert [value.tolist() for value in network.state_dict().values()] == [[[6.0, 8.0]]] * 2
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_a_subclass_that_only_constructs_otherwise_is_converted_and_one_that_computes_is_not() -> None:
    neuron = pytest.importorskip(
        "spikingjelly.activation_based.neuron", reason="spikingjelly is not installed: ./scripts/install peers"
    )

    class Mine(neuron.LIFNode):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            super().__init__(tau=4.0, v_threshold=float("inf"))

    class Changed(Mine):
        def neuronal_charge(self, x: torch.Tensor) -> None:
            self.v = x

    framework, options = find("spikingjelly"), FrameworkOptions(input_shape=(3,), time_steps=4)
    made: Any = convert(nn.Sequential(Mine()), framework, options).network.spec.nodes[0]
    # v + (x - v) / tau with a tau of 4; a threshold that is infinite becomes one that nothing reaches.
    assert (made.type, made.tau, made.threshold) == ("LIF", 4.0, 2.0**127)
    with pytest.raises(NotConvertible, match=r"sj_lif\.forward\.default has no node"):  # what its own forward calls
        convert(nn.Sequential(Changed()), framework, options)
