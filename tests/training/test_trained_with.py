"""`import --trained-with`: the arithmetic of earlier releases, each written here once more in NumPy.

The releases themselves are not installed. Weights and inputs are dyadic, so that every sum is exact in any order.
"""

from __future__ import annotations

import importlib
import re
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from packaging.version import Version
from torch import Tensor, nn

from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines import Record
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.training.errors import InvalidData, InvalidEntry, NotConvertible
from spikeserve.training.importers.builder import Options
from spikeserve.training.importers.frameworks.convert import ConvertedNetwork, convert
from spikeserve.training.importers.frameworks.framework import Framework, Releases, find
from spikeserve.training.importers.frameworks.versions import read_trace
from tests.training.command_line import training_here

NEURONS, STEPS, SAMPLES, NETWORKS = 32, 40, 16, 2
Array = NDArray[np.float32]
Generator = np.random.Generator
# A module and its currents (time_steps, samples, neurons) -> its outputs.
Oracle = Callable[[Any, Array], Iterator[Any]]


def peer(name: str) -> Framework:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip(name, reason=f"{name} is not installed: ./scripts/install peers")
        return find(name)


def uniform(rng: Generator, low: float, high: float) -> Tensor:
    return torch.from_numpy(rng.uniform(low, high, NEURONS).astype(np.float32))


def dyadic(rng: Generator, *shape: int, most: int = 4) -> Tensor:
    return torch.from_numpy((rng.integers(-most, most + 1, shape) / 8).astype(np.float32))


def linear(rng: Generator) -> nn.Linear:
    layer = nn.Linear(NEURONS, NEURONS)
    layer.weight.data, layer.bias.data = dyadic(rng, NEURONS, NEURONS), dyadic(rng, NEURONS, most=2).abs()
    return layer


class Handed(nn.Module):
    """Two layers of snnTorch neurons that are handed their states, as in its tutorials."""

    def __init__(self, rng: Generator, neurons: list[Any], states: int) -> None:
        super().__init__()
        self.fc1, self.lif1, self.fc2, self.lif2 = linear(rng), neurons[0], linear(rng), neurons[1]
        self.states = states

    def forward(self, steps: Tensor) -> Tensor:
        first = second = (torch.zeros(steps.shape[1], NEURONS),) * self.states
        spikes = []
        for step in steps:
            spk1, *first = self.lif1(self.fc1(step), *first)
            spk2, *second = self.lif2(self.fc2(spk1), *second)
            if type(self.lif1).__name__ == "RLeaky":
                first, second = (spk1, *first), (spk2, *second)
            spikes.append(spk2)
        return torch.stack(spikes)


def snntorch(kind: str, reset: str, *, keeps: bool = False) -> Callable[[Generator], nn.Module]:
    """Return a network of snnTorch's: its neurons keep their states, or are handed them."""

    def neuron(rng: Generator) -> Any:
        fields: dict[str, Any] = {"beta": uniform(rng, 0.3, 0.98), "threshold": uniform(rng, 0.5, 1.5)}
        if kind == "Alpha":
            fields |= {"alpha": uniform(rng, 0.8, 1.0), "beta": uniform(rng, 0.2, 0.7)}
            fields["threshold"] = uniform(rng, 0.05, 0.3)
        elif "Synaptic" in kind:
            fields["alpha"] = uniform(rng, 0.0, 0.9)
        if kind.startswith("R"):
            fields["linear_features"] = NEURONS
        made = getattr(importlib.import_module("snntorch"), kind)(**fields, reset_mechanism=reset, init_hidden=keeps)
        if kind.startswith("R"):
            made.recurrent.weight.data = dyadic(rng, NEURONS, NEURONS, most=1)
            made.recurrent.bias.data = dyadic(rng, NEURONS)
        return made

    def build(rng: Generator) -> nn.Module:
        if keeps:
            return nn.Sequential(linear(rng), neuron(rng), linear(rng), neuron(rng))
        return Handed(rng, [neuron(rng), neuron(rng)], {"Leaky": 1, "Synaptic": 2, "RLeaky": 2, "Alpha": 3}[kind])

    return build


def values(module: Any, *names: str) -> list[Array]:
    return [getattr(module, name).detach().numpy() for name in names]


def subtracts_before_it_decays(module: Any, currents: Array) -> Iterator[Any]:
    beta, threshold = values(module, "beta", "threshold")
    recurrent = getattr(module, "recurrent", None)
    v = np.zeros_like(currents[0])
    for i in currents:
        spikes = np.float32(v > threshold)
        charged = beta * (v - spikes * threshold) + i
        if recurrent is not None:
            weight, bias = values(recurrent, "weight", "bias")
            charged = charged + (spikes @ weight.T + bias)
        v = charged
        yield v > threshold


def leaky_to_zero_what_was_charged(module: Any, currents: Array) -> Iterator[Any]:
    beta, threshold = values(module, "beta", "threshold")
    v = np.zeros_like(currents[0])
    for i in currents:
        charged = beta * v + i
        v = charged - np.float32(v > threshold) * charged
        yield v > threshold


def synaptic_charged_by_its_input(module: Any, currents: Array) -> Iterator[Any]:
    beta, threshold = values(module, "beta", "threshold")
    v = np.zeros_like(currents[0])
    for i in currents:
        v = (beta * v + i) - np.float32(v > threshold) * threshold
        yield v > threshold


def synaptic_reset_by_its_current(module: Any, currents: Array) -> Iterator[Any]:
    alpha, beta, threshold = values(module, "alpha", "beta", "threshold")
    v, j = np.zeros_like(currents[0]), np.zeros_like(currents[0])
    for i in currents:
        j = alpha * j + i
        v = (beta * v + i) - np.float32(v > threshold) * (beta * v + j)
        yield v > threshold


def rsynaptic_that_resets_its_current(module: Any, currents: Array) -> Iterator[Any]:
    alpha, beta, threshold = values(module, "alpha", "beta", "threshold")
    weight, bias = values(module.recurrent, "weight", "bias")
    v, j = np.zeros_like(currents[0]), np.zeros_like(currents[0])
    for i in currents:
        late = np.float32(v > threshold)
        arrived = (alpha * j + i) + (late @ weight.T + bias)
        charged = beta * v + arrived
        j, v = arrived - late * arrived, charged - late * charged
        yield v > threshold


def synaptic_whose_current_is_its_membrane(module: Any, currents: Array) -> Iterator[Any]:
    alpha, beta, threshold = values(module, "alpha", "beta", "threshold")
    v = np.zeros_like(currents[0])
    for i in currents:
        late, charged = np.float32(v > threshold), beta * v + (alpha * v + i)
        v = charged - late * {"subtract": threshold, "zero": charged, "none": np.float32(0)}[module.reset_mechanism]
        yield v > threshold


def alpha_that_keeps_its_membrane(module: Any, currents: Array) -> Iterator[Any]:
    alpha, beta, threshold = values(module, "alpha", "beta", "threshold")
    log_alpha, log_beta = (torch.from_numpy(each).log() for each in (alpha, beta))
    gain = (log_alpha / (log_beta - log_alpha) + 1).numpy()
    v, j, k = (np.zeros_like(currents[0]) for _ in range(3))
    for i in currents:
        late, excites, inhibits = np.float32(v > threshold), alpha * j + i, beta * k - i
        v = gain * (excites + inhibits)
        j, k = excites - late * threshold, inhibits - late * inhibits
        yield v > threshold


def norse_network(kind: str) -> Callable[[Generator], nn.Module]:
    def build(rng: Generator) -> nn.Module:
        norse: Any = importlib.import_module("norse.torch")
        numbers = {name: torch.tensor(rng.uniform(*ends)) for name, ends in NORSE_RANGES.items()}
        fields = {name: number.float() for name, number in numbers.items()}
        if kind in ("LI", "LICell"):
            p: Any = norse.LIParameters(**{name: fields[name] for name in ("tau_syn_inv", "tau_mem_inv", "v_leak")})
        else:
            p = norse.LIFParameters(**fields)
        if kind == "LIFRefracCell":
            p = importlib.import_module("norse.torch.functional.lif_refrac").LIFRefracParameters(p, torch.tensor(2.0))
        if kind != "LIFRecurrent":
            return nn.Sequential(linear(rng), getattr(norse, kind)(p=p, dt=0.001))
        made = norse.LIFRecurrent(NEURONS, NEURONS, p=p, dt=0.001)
        made.input_weights.data = dyadic(rng, NEURONS, NEURONS)
        made.recurrent_weights.data = dyadic(rng, NEURONS, NEURONS, most=1)
        return nn.Sequential(linear(rng), made)

    return build


NORSE_RANGES = {
    "tau_syn_inv": (100.0, 400.0), "tau_mem_inv": (80.0, 300.0), "v_leak": (-0.1, 0.1), "v_th": (0.2, 0.6),
    "v_reset": (-0.2, 0.0),
}  # fmt: skip


def late_current(module: Any, currents: Array) -> Iterator[Any]:
    """Norse's LIF, LIFRefrac, LIFRecurrent and LI while a current charged the membrane a step after its input."""
    p = getattr(module.p, "lif", module.p)
    membrane_rate, current_rate = (np.float32(module.dt) * np.float32(rate) for rate in (p.tau_mem_inv, p.tau_syn_inv))
    leak = np.float32(p.v_leak)
    threshold, reset = np.float32(getattr(p, "v_th", np.inf)), np.float32(getattr(p, "v_reset", 0.0))
    rest, recurrent = getattr(module.p, "rho_reset", None), getattr(module, "recurrent_weights", None)
    v, j, z = np.full_like(currents[0], leak), np.zeros_like(currents[0]), np.zeros_like(currents[0])
    waiting = np.zeros_like(v)
    for i in currents:
        charged = v + membrane_rate * ((leak - v) + j)
        arriving = i if recurrent is None else i @ module.input_weights.numpy().T
        j = (j + -current_rate * j) + arriving
        if recurrent is not None:
            j = j + z @ recurrent.numpy().T
        z = np.float32(charged > threshold)
        after = np.where(z > 0, reset, charged)
        if rest is not None:
            holds = waiting > 0
            z, after = np.where(holds, np.float32(0), z), np.where(holds, v, after)
            waiting = np.where(z > 0, np.float32(rest), np.maximum(waiting - 1, 0))
        v = after
        yield z if np.isfinite(threshold) else v


def spikingjelly_network(kind: str, v_reset: float | None) -> Callable[[Generator], nn.Module]:
    def build(rng: Generator) -> nn.Module:
        neuron: Any = importlib.import_module("spikingjelly.activation_based.neuron")
        tau = {"tau" if kind == "LIFNode" else "init_tau": float(rng.uniform(1.2, 5.0))}
        made = [getattr(neuron, kind)(**tau, decay_input=False, v_reset=v_reset, v_threshold=0.9) for _ in range(2)]
        return nn.Sequential(linear(rng), made[0], linear(rng), made[1])

    return build


def decayed_by_a_product(module: Any, currents: Array) -> Iterator[Any]:
    rate = module.w.sigmoid().detach().numpy() if hasattr(module, "w") else 1.0 / module.tau
    decay, threshold = np.float32(1.0 - rate), np.float32(module.v_threshold)
    v = np.zeros_like(currents[0])
    for x in currents:
        charged = decay * v + x
        spikes = charged >= threshold
        v = charged - spikes * threshold if module.v_reset is None else np.where(spikes, np.float32(0), charged)
        yield spikes


class Past(NamedTuple):
    """A network, the release that it is of, and what its neurons computed then."""

    framework: str
    release: str
    build: Callable[[Generator], nn.Module]
    oracle: Oracle


PAST = {
    "Leaky-subtracts": Past("snntorch", "0.7.0", snntorch("Leaky", "subtract"), subtracts_before_it_decays),
    "RLeaky-subtracts": Past("snntorch", "0.5.3", snntorch("RLeaky", "subtract"), subtracts_before_it_decays),
    "Leaky-to-zero": Past("snntorch", "0.7.0", snntorch("Leaky", "zero"), leaky_to_zero_what_was_charged),
    "Leaky-to-zero-kept": Past(
        "snntorch", "0.5.3", snntorch("Leaky", "zero", keeps=True), leaky_to_zero_what_was_charged
    ),
    "Synaptic-subtracts-kept": Past(
        "snntorch", "0.6.0", snntorch("Synaptic", "subtract", keeps=True), synaptic_charged_by_its_input
    ),
    "Synaptic-to-zero-kept": Past(
        "snntorch", "0.7.0", snntorch("Synaptic", "zero", keeps=True), synaptic_reset_by_its_current
    ),
    "RSynaptic-to-zero-kept": Past(
        "snntorch", "0.6.4", snntorch("RSynaptic", "zero", keeps=True), rsynaptic_that_resets_its_current
    ),
    "Synaptic-subtracts": Past(
        "snntorch", "0.9.1", snntorch("Synaptic", "subtract"), synaptic_whose_current_is_its_membrane
    ),
    "Synaptic-to-zero": Past("snntorch", "0.8.0", snntorch("Synaptic", "zero"), synaptic_whose_current_is_its_membrane),
    "Synaptic": Past("snntorch", "0.9.0", snntorch("Synaptic", "none"), synaptic_whose_current_is_its_membrane),
    "Alpha-subtracts": Past("snntorch", "0.7.0", snntorch("Alpha", "subtract"), alpha_that_keeps_its_membrane),
    "LIF": Past("norse", "1.0.0", norse_network("LIF"), late_current),
    "LIFRefracCell": Past("norse", "1.0.0", norse_network("LIFRefracCell"), late_current),
    "LIFRecurrent": Past("norse", "0.0.7", norse_network("LIFRecurrent"), late_current),
    "LI": Past("norse", "0.0.7", norse_network("LI"), late_current),
    "LIFNode-subtracts": Past(
        "spikingjelly", "0.0.0.0.14", spikingjelly_network("LIFNode", None), decayed_by_a_product
    ),
    "LIFNode-to-zero": Past("spikingjelly", "0.0.0.0.12", spikingjelly_network("LIFNode", 0.0), decayed_by_a_product),
    "ParametricLIFNode": Past(
        "spikingjelly", "0.0.0.0.14", spikingjelly_network("ParametricLIFNode", 0.0), decayed_by_a_product
    ),
}  # fmt: skip


def imported(past: Past, network: nn.Module, release: str | None) -> ConvertedNetwork:
    framework = peer(past.framework)
    network.eval().requires_grad_(False)
    return convert(network, framework, Options((NEURONS,), STEPS), None if release is None else Version(release))


def outputs(network: nn.Module, oracle: Oracle, steps: Array) -> dict[str, Array]:
    """Give each neuron's output by its module's path; every second module is a neuron."""
    named, signal = dict(network.named_children()), steps
    found: dict[str, Array] = {}
    for place, (path, module) in enumerate(named.items()):
        if place % 2:
            found[path] = signal = np.stack([*oracle(module, signal)]).astype(np.float32)
        else:
            weight, bias = values(module, "weight", "bias")
            signal = signal @ weight.T + bias
    return found


def drawn_inputs(rng: Generator) -> Array:
    return (rng.random((STEPS, SAMPLES, NEURONS)) < rng.uniform(0.1, 0.6, (1, SAMPLES, 1))).astype(np.float32)


def differing(found: ConvertedNetwork, expected: dict[str, Array], steps: Array) -> int:
    result, _ = ReferenceEngine(found.network).run(DenseInputs(steps, STEPS), record=Record.RASTER | Record.MEMBRANE)
    named = {found.graph.nodes[place].path: node for node, place in found.places.items()}
    assert named.keys() == expected.keys()
    ours = {path: result.rasters.get(node, result.membranes[node]) for path, node in named.items()}
    return sum(int(np.count_nonzero(ours[path] != expected[path])) for path in expected)


@pytest.mark.parametrize("name", PAST)
def test_a_network_computes_what_it_did_in_the_release_that_trained_it(name: str) -> None:
    past = PAST[name]
    peer(past.framework)
    otherwise = 0
    for seed in range(NETWORKS):
        rng = np.random.default_rng([zlib.crc32(name.encode()), seed])
        network, steps = past.build(rng), drawn_inputs(rng)
        found = imported(past, network, past.release)
        expected = outputs(network, past.oracle, steps)
        assert all(array.any() for array in expected.values())
        assert differing(found, expected, steps) == 0
        otherwise += differing(imported(past, network, None), expected, steps)
    rounding_only = past.framework == "spikingjelly"  # whose spikes may all be the same
    assert otherwise > 0 or rounding_only
    assert found.network.spec.nodes != imported(past, network, None).network.spec.nodes


@pytest.mark.parametrize("name", ["snntorch", "spikingjelly", "norse", "sinabs"])
def test_the_installed_release_is_the_last_of_those_that_are_known(name: str) -> None:
    framework = peer(name)
    assert framework.find_release(framework.version) == Version(framework.version)
    assert framework.arithmetic() == framework.arithmetic(framework.releases.groups[-1][-1])


OTHERWISE = "which do not all compute the same, expected one of them in full"
RELEASES = Releases(("0.5.0 0.5.1", "0.5.3", "0.6.0 0.7.0", "0.8.0 0.9.1", "0.9.4 1.0.0"))


@pytest.mark.parametrize(
    ("given", "release", "span"),
    [
        ("0.7", "0.7.0", "0.6.0 to 0.7.0"),
        ("0.5.3", "0.5.3", "0.5.3"),
        ("0.8", "0.8.0", "0.8.0 to 0.9.1"),
        ("1.0", "1.0.0", "0.9.4 to 1.0.0"),
        ("1.1", "1.1.0", "0.9.4 to 1.1.0"),  # the installed one, which came later
    ],
)
def test_a_release_is_named_in_full_or_by_its_first_numbers(given: str, release: str, span: str) -> None:
    found = RELEASES.find("snntorch", given, "1.1.0")
    assert (str(found), RELEASES.span(found)) == (release, span)


def test_releases_that_follow_one_another_are_named_together() -> None:
    found = [Version(text) for text in ("0.5.3", "0.7.0", "0.9.4")]
    assert RELEASES.span(*found) == "0.5.3 to 0.7.0 and 0.9.4 to 1.0.0"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("0.5", f"'0.5' may be snntorch 0.5.0, 0.5.1 or 0.5.3, {OTHERWISE}"),
        ("0.9", f"'0.9' may be snntorch 0.9.1 or 0.9.4, {OTHERWISE}"),
        ("0.7.5", "'0.7.5' is no release of snntorch whose arithmetic is known, expected one from 0.5.0 to 1.0.0"),
        ("0.4.11", "'0.4.11' is no release of snntorch whose arithmetic is known, expected one from 0.5.0 to 1.0.0"),
        ("2.0", "'2.0' is no release of snntorch whose arithmetic is known, expected one from 0.5.0 to 1.0.0"),
        ("latest", "'latest' is no release of snntorch whose arithmetic is known, expected one from 0.5.0 to 1.0.0"),
        ("", "'' is no release of snntorch whose arithmetic is known, expected one from 0.5.0 to 1.0.0"),
    ],
)  # fmt: skip
def test_what_is_no_release_is_refused_by_one_sentence(given: str, sentence: str) -> None:
    with pytest.raises(InvalidEntry) as refused:
        RELEASES.find("snntorch", given, "1.0.0")
    assert str(refused.value) == f"trained-with: {sentence}"


@pytest.mark.parametrize(
    ("release", "fields", "reason"),
    [
        ("0.7.0", {"reset_delay": False}, "reset_delay is False: snntorch 0.7.0 has no reset_delay"),
        ("0.6.4", {"graded_spikes_factor": 2.0}, "graded_spikes_factor is 2.0: snntorch 0.6.4 has none"),
    ],
)
def test_an_option_that_a_release_has_not_yet_is_refused(release: str, fields: dict[str, Any], reason: str) -> None:
    framework = peer("snntorch")
    neuron = importlib.import_module("snntorch").Leaky(0.9, init_hidden=True, **fields)
    network = nn.Sequential(nn.Linear(4, 4), neuron).eval().requires_grad_(False)
    with pytest.raises(NotConvertible, match=re.escape(reason)):
        convert(network, framework, Options((4,), 8), Version(release))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a network whose neurons are handed their states, and what snnTorch 0.7.0 gave of it."""
    peer("snntorch")
    (tmp_path / "past.py").write_text(
        "import numpy as np\n"
        "from tests.training.test_trained_with import snntorch\n\n"
        "def to_zero():\n    return snntorch('Leaky', 'zero')(np.random.default_rng(3))\n"
    )
    rng = np.random.default_rng(3)
    network, steps = snntorch("Leaky", "zero")(rng).eval().requires_grad_(False), drawn_inputs(rng)
    gave = outputs(network, leaky_to_zero_what_was_charged, steps)
    np.savez(tmp_path / "trace.npz", input=steps, lif1=gave["lif1"], lif2=gave["lif2"])
    np.savez(tmp_path / "last.npz", input=steps, lif2=gave["lif2"].astype(bool))
    np.savez(tmp_path / "noise.npz", input=steps, lif2=rng.random(gave["lif2"].shape) < 0.1)
    return tmp_path


def brought_in(home: Path, name: str, *more: str) -> str:
    words = ("past:to_zero", "--input-shape", str(NEURONS), "--time-steps", str(STEPS), "--repository", "r")
    result = training_here("import", "snntorch", *words, "--name", name, *more, cwd=home)
    assert result.returncode == 0, result.stderr
    return result.stdout


def verified(home: Path, bundle: str, *more: str) -> tuple[int, str]:
    result = training_here("verify", bundle, "--against", "snntorch:past:to_zero", *more, cwd=home)
    assert not result.stderr
    return result.returncode, result.stdout


def test_a_trace_of_the_release_that_trained_a_network_verifies_it(home: Path) -> None:
    said = brought_in(home, "past", "--trained-with", "0.7")
    assert "Neurons that compute as in snntorch 0.6.0 to 0.7.0: 'lif1', 'lif2'. Before that the network was" in said
    assert "- **Arithmetic**: that of snntorch 0.6.0 to 0.7.0\n" in ModelRepository(home / "r").read("past").card
    for trace in ("trace.npz", "last.npz"):
        status, found = verified(home, "r/past/1", "--trace", trace)
        assert (status, "\n0 of " in found) == (0, True)
    status, found = verified(home, "r/past/1")
    assert (status, "The bundle computes as snntorch 0.5.0 to 0.7.0" in found) == (1, True)


def test_a_trace_that_differs_says_which_release_it_fits(home: Path) -> None:
    brought_in(home, "now")
    assert "**Arithmetic**: that of snntorch 0.9.4 to " in ModelRepository(home / "r").read("now").card
    status, found = verified(home, "r/now/1", "--trace", "trace.npz")
    assert status == 1
    fits = "The trace fits snntorch 0.5.0 to 0.7.0: import it again with "
    assert f"{fits}--trained-with 0.7.0." in found
    status, found = verified(home, "r/now/1", "--trace", "noise.npz")
    assert (status, "The trace fits no release of snntorch whose arithmetic is known; nearest is" in found) == (1, True)


INPUT = (STEPS, 2, NEURONS)


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"input": INPUT}, "has input, expected 'input' and the spikes of at least one of lif1, lif2"),
        ({"lif1": INPUT}, "has lif1, expected 'input' and the spikes of at least one of lif1, lif2"),
        ({"input": INPUT, "lif3": INPUT}, "'lif3' is no neuron of the network, which has lif1, lif2"),
        (
            {"input": INPUT, "lif1": (STEPS, 2, 5)},
            f"'lif1' has shape {STEPS}×2×5 of float64, expected numbers: steps, samples and {NEURONS}",
        ),
        (
            {"input": INPUT, "lif1": (STEPS, 3, NEURONS)},
            f"'lif1' has {STEPS} steps of 3 samples, expected {STEPS} steps of 2 samples",
        ),
        (
            {"input": (7, 2, NEURONS), "lif1": INPUT},
            f"'input' has 7 steps of 2 samples, expected {STEPS} steps of 2 samples",
        ),
    ],
)
def test_what_is_no_trace_of_a_network_is_refused(
    arrays: dict[str, tuple[int, ...]], sentence: str, tmp_path: Path
) -> None:
    framework = peer("snntorch")
    network = snntorch("Leaky", "zero")(np.random.default_rng(0)).eval().requires_grad_(False)
    found = convert(network, framework, Options((NEURONS,), STEPS))
    np.savez(tmp_path / "trace.npz", **{name: np.zeros(shape) for name, shape in arrays.items()})  # type: ignore[arg-type]
    with pytest.raises(InvalidData, match=re.escape(sentence)):
        read_trace(tmp_path / "trace.npz", found)
