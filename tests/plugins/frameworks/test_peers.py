"""Live parity: each framework's own modules against ours, on random networks, in every neuron and every step.

Weights, biases and inputs are dyadic, so that every sum is exact in any order; decays, time constants and thresholds
are any floats. What is left is each framework's equation and its order of rounding, and there no spike may differ.
"""

import importlib
import warnings
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines import create
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.engines.torch.operations import exponential
from spikeserve.plugins.frameworks.compare import LayerParity, compare, random_run, run_framework
from spikeserve.plugins.frameworks.convert import ConvertedNetwork, convert
from spikeserve.plugins.frameworks.framework import Framework, find
from spikeserve.plugins.frameworks.options import FrameworkOptions
from spikeserve.training.errors import NotConvertible
from tests.zoo.networks import NETWORKS
from tests.zoo.weights import CONNECTIONS

INPUTS, NEURONS, STEPS, SAMPLES = 24, 130, 40, 25
LEAST_NEURON_STEPS = 10**6 // 4
MOST_PER_MILLION = (
    20  # spikes that may differ since torch.exp is not always the nearest float32: none did in 108 million
)

Generator = np.random.Generator
Row = tuple[str, str]  # a framework, and its neurons as its author writes them, with the names of `neurons`
MODULES = {
    "snntorch": ("snntorch",),
    "spikingjelly": tuple(f"spikingjelly.activation_based{part}" for part in ("", ".neuron", ".layer")),
    "norse": ("norse.torch", "norse.torch.module.lif_box", "norse.torch.functional.reset",
        "norse.torch.functional.lif_box", "norse.torch.functional.iaf", "norse.torch.functional.lsnn",
        "norse.torch.functional.leaky_integrator", "norse.torch.functional.leaky_integrator_box"),
    "sinabs": ("sinabs.layers", "sinabs.layers.alif", "sinabs.activation", "sinabs.network"),
}  # fmt: skip


def peer(name: str) -> Framework:
    """Return a framework, or skip the test with a reason; what it warns of as it is imported is its own business."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip(name, reason=f"{name} is not installed: ./scripts/install peers")
        return find(name)


def names_of(framework: str) -> dict[str, Any]:
    """Return the names that an author imports to write a neuron of a framework, with their values."""
    peer(framework)
    return {
        name: value for module in MODULES[framework] for name, value in vars(importlib.import_module(module)).items()
    }


def dyadic(rng: Generator, *shape: int, most: int = 8) -> Tensor:
    return torch.from_numpy((rng.integers(-most, most + 1, shape) / 8).astype(np.float32))


def linear(rng: Generator, inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    layer.weight.data, layer.bias.data = dyadic(rng, outputs, inputs, most=4), dyadic(rng, outputs, most=2)
    return layer


def neurons(rng: Generator, row: Row, size: int = NEURONS) -> nn.Module:
    """Make neurons of a row: `each(low, high)` is an array with a float of its own for each, `one(low, high)` a number.

    Their own connections are dyadic.
    """

    def each(low: float, high: float) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, size).astype(np.float32))

    def weights(*shape: int) -> Tensor:
        return dyadic(rng, *shape, most=1)

    names = {"each": each, "one": lambda low, high: float(rng.uniform(low, high)), "weights": weights, "size": size}
    names |= {"eighths": lambda low, high: torch.from_numpy(rng.integers(low, high, size).astype(np.float32) / 8)}
    made: nn.Module = eval(row[1], names_of(row[0]) | {"torch": torch, "nn": nn} | names)  # noqa: S307  (written below)
    for part in made.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            part.weight.data = dyadic(rng, *part.weight.shape, most=1)
            if part.bias is not None:
                part.bias.data = dyadic(rng, *part.bias.shape, most=2)
    for name, parameter in made.named_parameters():
        if name.endswith(("input_weights", "recurrent_weights")):
            parameter.data = dyadic(rng, *parameter.shape, most=2 if name.endswith("input_weights") else 1)
    return made


def sequential(rng: Generator, row: Row, last: Row | None = None) -> nn.Sequential:
    """Two layers of neurons, NEURONS each, the last of which may be of another row."""
    first, second = linear(rng, INPUTS, NEURONS), linear(rng, NEURONS, NEURONS)
    return nn.Sequential(first, neurons(rng, row), second, neurons(rng, last or row))


def spikes(rng: Generator) -> DenseInputs:
    rates = rng.uniform(0, 0.6, (1, SAMPLES, 1))
    return DenseInputs((rng.random((STEPS, SAMPLES, INPUTS)) < rates).astype(np.float32), STEPS)


def converted(name: str, network: nn.Module) -> tuple[Framework, ConvertedNetwork]:
    framework = peer(name)
    network.eval().requires_grad_(False)
    return framework, convert(network, framework, FrameworkOptions(input_shape=(INPUTS,), time_steps=STEPS))


def require_parity(rows: list[LayerParity]) -> None:
    """Nothing differs, in enough neurons and steps, of which enough spike."""
    for row in rows:
        assert row.differing == 0, row
        assert row.membrane in (None, 0.0), row
    assert (rows[0].spikes or 0) > rows[0].neuron_steps / 100, rows[0]
    assert sum(row.neuron_steps for row in rows) >= LEAST_NEURON_STEPS


# Some betas are out of range, and so clamped.
LEAKY = "beta=each(0.3, 1.05), threshold=each(0.5, 2.0)"
ALPHA = ", alpha=each(0.0, 0.9)"
ALL, ONE = ", linear_features=size", ", all_to_all=False, V=weights(size)"
SNNTORCH = [
    *(f"{kind}({LEAKY}, reset_mechanism='{mechanism}', reset_delay={delay}{more})" for kind,
        more in (*(("Leaky", ""), ("Synaptic", ALPHA), ("RLeaky", ALL), ("RLeaky", ONE)),
        *(("RSynaptic", ALPHA + ALL), ("RSynaptic", ALPHA + ONE))) for mechanism in ("subtract", "zero",
        "none") for delay in ((True,) if mechanism == "none" else (True, False))),
    *(
        f"{kind}, reset_mechanism='{mechanism}')"
        for kind in (
            "Lapicque(beta=0.8125, threshold=each(0.1, 0.5)",
            "Alpha(alpha=each(0.8, 1.05), beta=each(0.2, 0.7), threshold=each(0.5, 2.0)",  # an alpha above its beta
        )
        for mechanism in ("subtract", "zero", "none")
    ),
    f"Leaky({LEAKY}, reset_mechanism='subtract', reset_delay=True, graded_spikes_factor=eighths(1, 13))",
    f"Leaky({LEAKY}, reset_mechanism='zero', reset_delay=False, graded_spikes_factor=eighths(1, 13))",
]  # fmt: skip
FIRES, TAU, QUADRATIC = "v_threshold=one(0.1, 0.6)", "tau=one(1.1, 4.0)", "v_c=one(0.3, 0.9), v_rest=one(0.0, 0.1)"
HARD, RESETS = (0.0, -0.3), (None, 0.0, -0.3)
# A subtraction does not keep a large membrane from growing by its square, so that there a0 is small.
KINDS: list[tuple[str, str, tuple[float | None, ...]]] = [
    *(("IFNode", f"step_mode='{mode}'", RESETS) for mode in "sm"),
    ("SimpleIFNode", "", RESETS),
    *(("LIFNode", f"{TAU}, decay_input={decays}, step_mode='{mode}'", RESETS) for decays in (True,
        False) for mode in "sm"),
    ("SimpleLIFNode", f"{TAU}, decay_input=True", HARD),
    ("SimpleLIFNode", f"{TAU}, decay_input=False", (0.0,)),
    *(("ParametricLIFNode", f"init_{TAU}, decay_input={decays}", RESETS) for decays in (True, False)),
    ("CUBALIFNode", "c_decay=one(0.1, 0.9), v_decay=one(0.1, 0.9)", RESETS),
    ("OTTTLIFNode", TAU, (None, 0.0)),
    ("SLTTLIFNode", TAU, (0.0,)),
    *(("QIFNode", f"{TAU}, a0=one(0.05, 0.5), {QUADRATIC}, step_mode='{mode}'", HARD) for mode in "sm"),
    *(("QIFNode", f"{TAU}, a0=one(0.0001, 0.0003), {QUADRATIC}, step_mode='{mode}'", (None,)) for mode in "sm"),
    *(("RAFNode", f"b=one(-0.5, -0.1), omega=one(0.2, 2.0), step_mode='{mode}'", RESETS) for mode in "sm"),
]  # fmt: skip
LIF_NODE = f"LIFNode({TAU}, v_threshold=0.4)"
SPIKINGJELLY = [
    *(f"{kind}({FIRES}, v_reset={reset}, {more})" for kind, more, resets in KINDS for reset in resets),
    "HalfThresholdIFNode(one(0.1, 0.6))",
    *(f"LinearRecurrentContainer({LIF_NODE}, size, size, step_mode='{mode}')" for mode in "sm"),
    f"LinearRecurrentContainer(nn.Sequential(nn.Linear(size, size), {LIF_NODE}), size, size)",
    "ElementWiseRecurrentContainer(IFNode(v_threshold=one(0.5, 1.5)), element_wise_function=lambda x, y: x + y)",
    *(  # a filter of spikes, with no connection between them, whose sums are exact
        f"nn.Sequential(IFNode(v_threshold=0.75, step_mode='{mode}'), SynapseFilter(one(1.5, 8), {learns}, step_mode="
        f"'{mode}'), LIFNode({TAU}, v_threshold=0.5, step_mode='{mode}'))"
        for learns, mode in ((False, "s"), (True, "m"))
    ),
]  # fmt: skip
# A layer that runs over time starts from one number for all neurons, so that its v_leak is one, and an LSNN's v_th.
MEMBRANE = "tau_mem_inv=each(100, 1500), v_leak=torch.tensor(0.125), v_reset=each(-0.5, 0.1)"
CUBA = f"{MEMBRANE}, tau_syn_inv=each(100, 1500), v_th="
NORSE_LIF = f"LIFParameters({CUBA}each(0.2, 1.0))"
LSNN = f"LSNNParameters({CUBA}torch.tensor(one(0.2, 0.6)), tau_adapt_inv=each(10, 500), beta=each(0.05, 0.5))"
REFRACTORY = f"LIFRefracParameters({NORSE_LIF}, rho_reset=eighths(0, 8) * 4)"  # steps, some of them half ones
LIF_EX = f"LIFExParameters({CUBA}each(0.2, 1.0), delta_T=each(0.1, 1.0))"
LIF_ADEX = (
    f"LIFAdExParameters({CUBA}each(0.2, 1.0), delta_T=each(0.1, 1.0), tau_ada_inv=each(10, 500), "
    "adaptation_current=each(-0.5, 1), adaptation_spike=each(0.05, 0.5))"
)


def in_norse(kind: str, parameters: str) -> str:
    return f"{kind}({'size, size, ' if 'Recurrent' in kind else ''}{parameters}, dt=5e-4)"


BOX = "LIFBoxCell(LIFBoxParameters({}, v_th=each(0.2, 1.0), reset_method=reset_{}), dt=5e-4)"
NORSE = [
    *(BOX.format(MEMBRANE, reset) for reset in ("value", "subtract")),
    *(f"{kind}(IAFParameters(v_th=each(0.2, 1.0), v_reset=torch.tensor(-0.25)))" for kind in ("IAFCell", "IAF")),
    *(in_norse(kind, NORSE_LIF) for kind in ("LIFCell", "LIF", "LIFRecurrentCell", "LIFRecurrent")),
    *(in_norse(kind, REFRACTORY) for kind in ("LIFRefracCell", "LIFRefracRecurrentCell", "LIFRefracRecurrent")),
    *(in_norse(kind, LSNN) for kind in ("LSNNCell", "LSNN", "LSNNRecurrentCell", "LSNNRecurrent")),
]  # fmt: skip
MULTIPLE, SINGLE = (
    "spike_fn=MultiSpike, reset_fn=MembraneSubtract()",
    "spike_fn=SingleSpike, reset_fn=MembraneSubtract()",
)  # fmt: skip
TO_ZERO, SINGLE_TO_ZERO = (
    "spike_fn=MultiSpike, reset_fn=MembraneReset()",
    "spike_fn=SingleSpike, reset_fn=MembraneReset()",
)  # fmt: skip
LOW, HIGH = "spike_threshold=each(0.1, 0.5)", "spike_threshold=each(0.7, 2.0), norm_input=False"
IAF, FLOOR, SYNAPSE = "spike_threshold=each(0.7, 2.0)", "min_v_mem=each(-0.7, 0.1)", "tau_syn=each(0.5, 5)"
RATES, SQUEEZE, LOOP = "tau_mem=each(1, 20)", f"num_timesteps={STEPS}", "rec_connect=nn.Linear(size, size)"
ADAPTS = f"{RATES}, tau_adapt=each(1, 20), adapt_scale=each(0.1, 2)"
SINABS = [
    *(f"LIF({RATES}, {MULTIPLE}, {more})" for more in (LOW, HIGH, f"{HIGH}, {FLOOR}", f"{LOW}, {SYNAPSE}")),
    f"LIF({RATES}, {TO_ZERO}, {HIGH}, {SYNAPSE})",
    f"LIF({RATES}, {SINGLE}, {LOW}, {FLOOR}, {SYNAPSE})",
    f"LIF({RATES}, {SINGLE_TO_ZERO}, {HIGH})",
    f"LIFSqueeze({RATES}, {MULTIPLE}, {LOW}, {SQUEEZE})",
    f"ALIF({ADAPTS}, {SINGLE}, {LOW})",
    f"ALIF({ADAPTS}, {MULTIPLE}, {HIGH}, {FLOOR})",
    f"ALIF({ADAPTS}, {SINGLE_TO_ZERO}, {HIGH}, tau_syn=torch.tensor(one(0.5, 5)))",  # it asks whether that is true
    f"ALIFSqueeze({ADAPTS}, {SINGLE}, {LOW}, {SQUEEZE})",
    f"ALIFRecurrent({ADAPTS}, {SINGLE}, {HIGH}, {LOOP})",
    f"ALIFRecurrent({ADAPTS}, {TO_ZERO}, {LOW}, {LOOP})",
    f"IAF({MULTIPLE}, {IAF})",
    f"IAF({MULTIPLE}, {IAF}, {FLOOR})",
    f"IAF({SINGLE_TO_ZERO}, {IAF}, {SYNAPSE})",
    f"IAFSqueeze({SINGLE}, {IAF}, {FLOOR}, {SQUEEZE})",
    f"LIFRecurrent({RATES}, {SINGLE}, {HIGH}, {LOOP})",
    f"LIFRecurrent({RATES}, {TO_ZERO}, {LOW}, {SYNAPSE}, {LOOP})",
    f"IAFRecurrent({SINGLE}, {IAF}, {FLOOR}, {LOOP})",
    f"IAFRecurrent({SINGLE_TO_ZERO}, {IAF}, {LOOP})",
]  # fmt: skip
EIF = f"EIFNode({TAU}, {FIRES}, v_rest=0.1, delta_T=one({{}}), theta_rh=one({{}}), v_reset={{}}, step_mode='{{}}')"
EXPONENTIAL: list[Row] = [
    ("spikingjelly", EIF.format("0.1, 1.0", "0.2, 0.8", 0.0, "s")),
    ("spikingjelly", EIF.format("0.1, 1.0", "0.2, 0.8", -0.3, "m")),
    # A subtraction does not keep a large membrane from growing, so that there it grows late.
    ("spikingjelly", EIF.format("2.0, 4.0", "20.0, 30.0", None, "m")),
    *(("norse", in_norse(kind + over, parameters)) for kind,
        parameters in (("LIFEx", LIF_EX), ("LIFAdEx", LIF_ADEX)) for over in ("Cell", "", "RecurrentCell",
        "Recurrent")),
]  # fmt: skip
ROWS: list[Row] = [
    *(("snntorch", row) for row in SNNTORCH),
    *(("spikingjelly", row) for row in SPIKINGJELLY),
    *(("norse", row) for row in NORSE),
    *(("sinabs", row) for row in SINABS),
]  # fmt: skip
LI = "each(100, 1500), each(100, 1500)"
READOUTS: list[tuple[str, str, str]] = [
    *(("norse", NORSE[0], f"{kind}(LIParameters({LI}), dt=5e-4)") for kind in ("LICell", "LI")),
    ("norse", NORSE[0], "LIBoxCell(LIBoxParameters(tau_mem_inv=each(100, 1500)), dt=5e-4)"),
    ("norse", NORSE[0], f"LILinearCell(size, size, LIParameters({LI}), dt=5e-4)"),
    *(("spikingjelly", f"IFNode({FIRES}, v_reset=0.0, step_mode='m')", kind) for kind in ("NonSpikingIFNode()",
        "NonSpikingLIFNode()")),
    *(("sinabs", f"IAF({MULTIPLE}, {IAF})", f"ExpLeak(each(1, 20), norm_input={normed})") for normed in (True, False)),
]  # fmt: skip


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> Generator:
    return np.random.default_rng(zlib.crc32(request.node.name.encode()))


def require_the_frameworks_own(name: str, network: nn.Module) -> None:
    """No spike and no membrane of the reference and the event engine differs from those of the framework's modules."""
    framework, found = converted(name, network)
    inputs = spikes(np.random.default_rng(1))
    theirs = run_framework(found, framework, inputs)
    for engine in ("reference", "event"):
        require_parity(compare(found, theirs, create(engine, found.network), inputs))


def by_name(rows: Sequence[Any]) -> pytest.MarkDecorator:
    """Run a test for each row; for the second and further ones of a class only in ./scripts/test-deep."""
    kinds = [(row[0], *(neurons.partition("(")[0] for neurons in row[1:])) for row in rows]
    marks: dict[bool, Any] = {True: pytest.mark.deep, False: ()}
    params = [pytest.param(row, id="-".join(row), marks=marks[kinds[at] in kinds[:at]]) for at, row in enumerate(rows)]
    return pytest.mark.parametrize("row", params)


@by_name(ROWS)
def test_no_spike_and_no_membrane_differs_from_the_frameworks_own(row: Row, rng: Generator) -> None:
    require_the_frameworks_own(row[0], sequential(rng, row))


@by_name(EXPONENTIAL)
def test_with_one_exponential_nothing_differs(row: Row, rng: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    # So every other operation is the framework's, in its order.
    network = sequential(rng, row)
    monkeypatch.setattr(torch, "exp", exponential)
    require_the_frameworks_own(row[0], network)


@by_name([EXPONENTIAL[0], EXPONENTIAL[3], EXPONENTIAL[-1]])
def test_the_frameworks_own_exponential_changes_few_spikes(row: Row, rng: Generator) -> None:
    framework, network = converted(row[0], sequential(rng, row))
    inputs = spikes(rng)
    rows = compare(network, run_framework(network, framework, inputs), ReferenceEngine(network.network), inputs)
    differing, neuron_steps = sum(row.differing for row in rows), sum(row.neuron_steps for row in rows)
    assert neuron_steps >= LEAST_NEURON_STEPS
    assert differing <= MOST_PER_MILLION * neuron_steps / 10**6


@by_name(READOUTS)
def test_a_readouts_membrane_is_theirs(row: tuple[str, str, str], rng: Generator) -> None:
    name, neurons, readout = row
    require_the_frameworks_own(name, sequential(rng, (name, neurons), (name, readout)))


def test_a_recurrent_convolution_of_many_neurons_is_refused() -> None:
    framework = peer("snntorch")
    neuron = importlib.import_module("snntorch").RLeaky(0.5, conv2d_channels=1, kernel_size=(3, 3), init_hidden=True)
    with pytest.raises(NotConvertible, match="the weights of 4225 neurons are written out, at most 4096"):
        convert(nn.Sequential(neuron).eval(), framework, FrameworkOptions(input_shape=(1, 65, 65), time_steps=4))


THRESHOLDS = ("threshold", "v_threshold", "spike_threshold")


def in_units(network: nn.Module, unit: float) -> nn.Module:
    """Multiply all weights, biases and thresholds of a network whose connections take spikes."""
    modules: Iterable[Any] = network.modules()
    for module in modules:
        if isinstance(module, CONNECTIONS):
            for parameter in module.parameters(recurse=False):
                parameter.data *= unit
        for name in THRESHOLDS:
            if (threshold := getattr(module, name, None)) is not None:
                moved = threshold * unit
                setattr(module, name, nn.Parameter(moved) if isinstance(threshold, nn.Parameter) else moved)
        if hasattr(module, "p"):  # Norse's parameters
            module.p = module.p._replace(v_th=module.p.v_th * unit)
    return network


@pytest.mark.parametrize(
    "name", ["snntorch-3-feedforward", "spikingjelly-lif-fc-mnist", "norse-intro", "sinabs-quickstart"]
)
def test_a_network_in_other_units_comes_in_alike_and_spikes_alike(name: str) -> None:
    entry = next(entry for entry in NETWORKS if entry.name == name)
    framework, runs = peer(entry.framework), []
    for unit in (1.0, 2.0**-20, 2.0**20):
        network = in_units(entry.function(entry.source)().eval(), unit)
        found = convert(network, framework, FrameworkOptions(input_shape=entry.shape, time_steps=entry.time_steps))
        inputs, theirs, _ = random_run(found, framework, 4)
        rows = compare(found, theirs, ReferenceEngine(found.network), inputs)
        runs.append([(row.node, row.spikes, row.differing) for row in rows])
    assert not any(differing for _, _, differing in runs[0])
    assert runs[0] == runs[1] == runs[2]
