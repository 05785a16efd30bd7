"""Networks of other frameworks by the command line: what comes in, what is proven, and what is refused by name.

A difference is rounding only where the first spike that differs hangs on it; else nothing is published unasked.
"""

import importlib
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
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec import Readout, Spec
from spikeserve.models.spec.network import Network
from spikeserve.models.spec.rules import Reset, ResetTiming
from spikeserve.plugins.frameworks.compare import compare, judged, random_encoded, random_run, run_framework
from spikeserve.plugins.frameworks.convert import convert
from spikeserve.plugins.frameworks.entry import load_network
from spikeserve.plugins.frameworks.framework import find
from spikeserve.plugins.frameworks.options import FrameworkOptions
from spikeserve.training.errors import InvalidEntry, NotConvertible
from tests.plugins.frameworks.plain_network import PLAIN, Hidden, Spike, taken_in
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


def test_a_framework_that_is_unknown_or_not_installed_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        InvalidEntry, match="'keras' is not one, expected snntorch, spikingjelly, norse, sinabs, torch or spikeserve"
    ):
        find("keras")
    monkeypatch.delitem(sys.modules, "spikeserve.plugins.frameworks.sinabs", raising=False)
    monkeypatch.setitem(sys.modules, "sinabs.layers", None)
    with pytest.raises(InvalidEntry, match=r"sinabs cannot be imported here: .*; pip install sinabs"):
        find("sinabs")


def test_import_and_verify_say_that_no_neuron_fired(tmp_path: Path) -> None:
    code = "from spikeserve.training.library import LIF\ndef net(): return LIF(4, threshold=1e9)"
    (tmp_path / "silent.py").write_text(code)
    flags = ("--input-shape", "4", "--time-steps", "3", "--name", "mine", "--repository", "repository")
    taken_in = training_here("import", "spikeserve", "silent:net", *flags, cwd=tmp_path)
    verified = training_here("verify", "repository/mine/1", "--against", "spikeserve:silent:net", cwd=tmp_path)
    sentence = "No neuron fired in any sample, so the comparison shows nothing of their rules"
    assert [sentence in result.stdout for result in (taken_in, verified)] == [True, True]
    assert "0 other predictions, no neuron fired in any sample, so no rule was compared" in taken_in.stdout


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


def of_norm_10() -> nn.Module:
    # A direction of (3, 4), whose norm is 5, of length 10: weights of 6 and 8, in the newer way and the older.
    new: Any = nn.utils.parametrizations.weight_norm(nn.Linear(2, 1, bias=False))
    old: Any = nn.utils.weight_norm(nn.Linear(2, 1, bias=False))
    way = new.parametrizations.weight
    for size, direction in ((way.original0, way.original1), (old.weight_g, old.weight_v)):
        size.data.fill_(10.0)
        direction.data = torch.tensor([[3.0, 4.0]])
    return nn.Sequential(new, old)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of PyTorch, that the older way is deprecated
def test_weights_of_a_parametrization_are_taken_as_they_are() -> None:
    network = load_network(f"{__name__}:of_norm_10")
    assert [value.tolist() for value in network.state_dict().values()] == [[[6.0, 8.0]]] * 2
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_a_users_own_modules_may_have_the_names_of_our_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("models/__init__", "models/net"):
        (tmp_path / f"{name}.py").parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.py").write_text("from torch import nn\n\ndef make():\n    return nn.Linear(3, 2)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert isinstance(load_network("models.net:make"), nn.Linear)
    for name in ("models", "models.net"):
        assert str(tmp_path) in str(sys.modules.pop(name).__file__)


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


INPUTS, NEURONS, SAMPLES = 30, 2000, 16


def with_threshold(network: Network, threshold: float) -> Network:
    *before, last = network.spec.nodes
    fields = {name: getattr(network.spec, name) for name in Spec.model_fields}
    nodes = (*before, last.model_copy(update={"threshold": threshold}))
    return Network(Spec(**fields | {"nodes": nodes}), network.tensors)


@pytest.mark.parametrize("threshold", [1 + 2.0**-14, 1.02, 0.5, 4.0, 1e-30])
def test_a_spike_whose_charge_is_within_rounding_of_the_threshold_is_rounding_and_no_other(threshold: float) -> None:
    # A threshold that is a rounding error away from 1: in a wide layer some charges lie in between.
    torch.manual_seed(2)
    found = taken_in(nn.Sequential(nn.Linear(INPUTS, NEURONS), Hidden()), INPUTS, time_steps=4)
    network = with_threshold(found.network, threshold)
    inputs = random_encoded(network.spec, SAMPLES)
    rows = compare(found, run_framework(found, PLAIN, inputs), ReferenceEngine(network), inputs)
    parted, differing = judged(rows, network, inputs), sum(row.differing for row in rows)
    others = [origin for origin in parted if not origin.is_rounding]
    if threshold == 1 + 2.0**-14:
        assert (0 < differing < 100, others) == (True, [])
        assert "was so near its threshold that the rounding of sums decided" in str(parted[0])
    else:
        assert differing
        assert len(others) > len(parted) / 2  # a charge may happen to be near the other threshold
        assert "so the rules or weights differ" in str(others[0])


@pytest.mark.parametrize(("bias", "rounding"), [(0.0, True), (0.5, False)])
def test_all_spikes_that_differ_first_have_to_be_near_their_threshold(bias: float, *, rounding: bool) -> None:
    # Charges of 1 and 0.7 in the one step: the first is within rounding of the engine's threshold, 1 + 2**-15, and does
    # not fire there; with a bias of 0.5 the second, of 1.2, fires in the engine alone.
    linear = nn.Linear(2, 2)
    linear.weight.data, linear.bias.data = torch.diag(torch.tensor([1.0, 0.7])), torch.zeros(2)
    found = taken_in(nn.Sequential(linear, Hidden()), 2, time_steps=1)
    moved = with_threshold(found.network, 1 + 2.0**-15)
    other = Network(moved.spec, {**moved.tensors, "linear_0.bias": np.array([0, bias], np.float32)})
    inputs = DenseInputs(np.ones((1, 1, 2), np.float32), 1)
    rows = compare(found, run_framework(found, PLAIN, inputs), ReferenceEngine(other), inputs)
    (origin,) = judged(rows, other, inputs)
    assert origin.is_rounding is rounding


@pytest.mark.parametrize(("weight", "factor"), [(1.0, 1), (2.0**-8, 8), (2.0**-11, 64), (-1.0, 1)])
def test_random_inputs_are_scaled_until_neurons_spike(weight: float, factor: int) -> None:
    # 8 steps of 30 inputs of 1 add up to 240: with weights of 1/256 to less than the threshold, 1.
    made = nn.Sequential(nn.Linear(INPUTS, 3, bias=False), Hidden(), nn.Linear(3, 1, bias=False), Hidden())
    made[0].get_parameter("weight").data.fill_(weight)
    made[2].get_parameter("weight").data.fill_(1.0)
    inputs, theirs, by = random_run(taken_in(made, INPUTS), PLAIN, SAMPLES)
    assert (by, inputs.steps.max()) == (factor, factor)
    assert theirs[4][0].any() == (weight > 0)


def test_what_is_read_of_a_last_layer_is_compared_too() -> None:
    found = taken_in(nn.Sequential(Hidden(), nn.Linear(4, 4)), 4, readout=Readout.MEAN)
    inputs = random_encoded(found.network.spec, 8)
    theirs = run_framework(found, PLAIN, inputs)
    same = compare(found, theirs, ReferenceEngine(found.network), inputs)
    assert [(row.node, row.differing) for row in same] == [("hidden_0", 0), ("linear_1", 0)]
    tensors = {**found.network.tensors, "linear_1.bias": found.network.tensors["linear_1.bias"] + np.float32(1)}
    other = Network(found.network.spec, tensors)
    rows = compare(found, theirs, ReferenceEngine(other), inputs)
    assert [(row.node, row.differing) for row in rows] == [("hidden_0", 0), ("linear_1", 32)]
    assert not any(origin.is_rounding for origin in judged(rows, other, inputs))


@pytest.mark.parametrize("readout", [Readout.SPIKE_COUNT, Readout.MEAN])
def test_what_is_read_of_neurons_behind_a_flatten_is_compared_too(readout: Readout) -> None:
    found = taken_in(nn.Sequential(nn.Conv2d(1, 2, 2), Hidden(), nn.Flatten()), 1, 3, 3, readout=readout)
    inputs = random_encoded(found.network.spec, 8)
    rows = compare(found, run_framework(found, PLAIN, inputs), ReferenceEngine(found.network), inputs)
    read = [] if readout is Readout.SPIKE_COUNT else ["flatten_2"]
    assert [(row.node, row.differing) for row in rows] == [(node, 0) for node in ["hidden_1", *read]]


def three_leaky() -> nn.Module:
    leaky = pytest.importorskip("snntorch", reason="snntorch is not installed: ./scripts/install peers").Leaky
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(9, 30), leaky(0.5), nn.Linear(30, 3), leaky(0.5))


def test_what_its_own_table_shows_to_be_another_network_is_not_published_unless_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    three_leaky()  # or the test is skipped
    module: Any = importlib.import_module("spikeserve.plugins.frameworks.snntorch")
    right, wrong = module._spiking, {"reset": Reset.NONE, "reset_timing": ResetTiming.SAME_STEP}
    monkeypatch.setattr(module, "_spiking", lambda *given, **named: right(*given, **named) | wrong)
    repository, network = tmp_path / "r", f"{__name__}:three_leaky"
    words = ["import", "snntorch", network, *f"--input-shape 9 --time-steps 20 --repository {repository}".split()]
    done = training_here(*words, "--name", "m")
    assert done.returncode == 1
    assert "error: 'm' is not published: 16 of 16 random samples differ from its framework by more than" in done.stderr
    assert "so the rules or weights differ; --publish-anyway publishes it" in done.stderr.replace("\n", " ")
    assert not repository.exists()
    done = training_here(*words, "--name", "m", "--publish-anyway")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Its forward takes one step of (batch, 9); 20 steps a sample\n")
    card = ModelRepository(repository).read("m").card
    assert "**It computes something else than its framework.** 16 of 16 random samples differ" in card
    done = training_here("verify", repository / "m/1", "--against", f"snntorch:{network}")
    assert done.returncode == 1
    assert re.search(
        r"^[1-9]\d* of 10560 neuron-steps differ\nin 16 of 16 samples: sample 0 first differs in step \d+, unit \d+ of "
        r"'leaky_\d'; other membranes differ before that by more than rounding, so the rules or weights differ$",
        done.stdout,
        re.MULTILINE,
    )
