"""Live parity: each framework's own modules against ours, on random networks, in every neuron and every step.

Weights, biases and inputs are dyadic, so that every sum is exact in any order; decays, time constants and thresholds
are any floats. What is left is each framework's equation and its order of rounding, and there no spike may differ.

On any weights, ours differ from a framework by its rounding alone: as often as it differs from itself.

A framework adds up in float32, in an order that its convolution chooses. Another choice of it, as another machine or
number of threads may make, moves some spikes; ours, whose sums are exact, stay about as far from either.
"""

import importlib
import warnings
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines import create
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.engines.torch.operations import exponential
from spikeserve.models.spec.sums import Summation, sums_of
from spikeserve.plugins.frameworks.compare import LayerParity, compare, random_encoded, run_framework
from spikeserve.plugins.frameworks.convert import ConvertedNetwork, convert
from spikeserve.plugins.frameworks.framework import Framework, find
from spikeserve.plugins.frameworks.options import FrameworkOptions
from spikeserve.training.errors import NotConvertible

INPUTS, NEURONS, STEPS, SAMPLES = 24, 130, 40, 25
LEAST_NEURON_STEPS = 10**6 // 4
MOST_PER_MILLION = (
    20  # spikes that may differ since torch.exp is not always the nearest float32: none did in 108 million
)

Generator = np.random.Generator
Neurons = Callable[[Generator, int], nn.Module]  # a generator and a layer's size -> its neurons


def peer(name: str) -> Framework:
    """Return a framework, or skip the test with a reason; what it warns of as it is imported is its own business."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip(name, reason=f"{name} is not installed: ./scripts/install peers")
        return find(name)


def of(module: str) -> ModuleType:
    return importlib.import_module(module)


def dyadic(rng: Generator, *shape: int, most: int = 8) -> Tensor:
    return torch.from_numpy((rng.integers(-most, most + 1, shape) / 8).astype(np.float32))


def uniform(rng: Generator, low: float, high: float, *shape: int) -> Tensor:
    return torch.from_numpy(rng.uniform(low, high, shape).astype(np.float32))


def linear(rng: Generator, inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    layer.weight.data, layer.bias.data = dyadic(rng, outputs, inputs, most=4), dyadic(rng, outputs, most=2)
    return layer


def dyadic_recurrence(rng: Generator, connection: nn.Linear | nn.Conv2d) -> None:
    weight, bias = connection.weight, connection.bias
    assert bias is not None
    weight.data, bias.data = dyadic(rng, *weight.shape, most=1), dyadic(rng, *bias.shape, most=2)


def sequential(rng: Generator, neurons: Neurons) -> nn.Sequential:
    """Two layers of neurons, NEURONS each."""
    return nn.Sequential(
        linear(rng, INPUTS, NEURONS), neurons(rng, NEURONS), linear(rng, NEURONS, NEURONS), neurons(rng, NEURONS)
    )


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


def snntorch_neurons(
    kind: str, mechanism: str, *, delay: bool = True, linear: bool = True, graded: bool = False
) -> Neurons:
    """A snnTorch neuron with an array of betas, some of them out of range and so clamped, and one of thresholds."""

    def build(rng: Generator, size: int) -> nn.Module:
        fields: dict[str, Any] = {
            "beta": uniform(rng, 0.3, 1.05, size),
            "threshold": uniform(rng, 0.5, 2.0, size),
            "reset_mechanism": mechanism,
        }
        if kind == "Alpha":  # whose alpha must be above its beta
            fields |= {"alpha": uniform(rng, 0.8, 1.05, size), "beta": uniform(rng, 0.2, 0.7, size)}
        elif kind != "Lapicque":
            fields["reset_delay"] = delay
        else:
            fields |= {"beta": 0.8125, "threshold": uniform(rng, 0.1, 0.5, size)}
        if graded:
            fields["graded_spikes_factor"] = torch.from_numpy(rng.integers(1, 13, size).astype(np.float32) / 8)
        if "Synaptic" in kind:
            fields["alpha"] = uniform(rng, 0.0, 0.9, size)
        if kind.startswith("R"):
            one_to_one = {"all_to_all": False, "V": dyadic(rng, size)}
            fields |= {"linear_features": size} if linear else one_to_one
        neuron = getattr(of("snntorch"), kind)(**fields)
        if kind.startswith("R") and linear:
            dyadic_recurrence(rng, neuron.recurrent)
        return neuron

    return build


SNNTORCH: dict[str, Neurons] = {
    f"{kind}-{mechanism}-{'late' if delay else 'corrected'}{'' if linear else '-one_to_one'}": snntorch_neurons(
        kind, mechanism, delay=delay, linear=linear
    )
    for kind in ("Leaky", "Synaptic", "RLeaky", "RSynaptic", "Lapicque", "Alpha")
    for mechanism in ("subtract", "zero", "none")
    for delay in ((True,) if kind in ("Lapicque", "Alpha") or mechanism == "none" else (True, False))
    for linear in ((True, False) if kind.startswith("R") else (True,))
} | {
    f"{kind}-{mechanism}-{'late' if delay else 'corrected'}-graded": snntorch_neurons(
        kind, mechanism, delay=delay, graded=True
    )
    for kind, mechanism, delay in (("Leaky", "subtract", True), ("Leaky", "zero", False))
}


def spikingjelly_neurons(kind: str, reset: float | None, **fields: Any) -> Neurons:
    def build(rng: Generator, _: int) -> nn.Module:
        chosen = {name: float(rng.uniform(*bounds)) if bounds else value for name, (value, bounds) in given.items()}
        neuron = getattr(of("spikingjelly.activation_based.neuron"), kind)
        return neuron(v_threshold=float(rng.uniform(0.1, 0.6)), v_reset=reset, **chosen)

    given = {name: (None, value) if isinstance(value, tuple) else (value, None) for name, value in fields.items()}
    return build


QUADRATIC: dict[str, Any] = {"a0": (0.05, 0.5), "v_c": (0.3, 0.9), "v_rest": (0.0, 0.1)}


def half_threshold(rng: Generator, _: int) -> nn.Module:
    return of("spikingjelly.activation_based.neuron").HalfThresholdIFNode(float(rng.uniform(0.1, 0.6)))


def recurrent_container(mode: str, *, inner: bool) -> Neurons:
    """A LinearRecurrentContainer of LIF neurons, with a Linear of 0 and 1 before them where it has an `inner` one."""

    def build(rng: Generator, size: int) -> nn.Module:
        layers, neuron = of("spikingjelly.activation_based.layer"), of("spikingjelly.activation_based.neuron")
        lif: nn.Module = neuron.LIFNode(tau=float(rng.uniform(1.1, 4.0)), v_threshold=0.4)
        if inner:
            lif = nn.Sequential(linear(rng, size, size), lif)
            lif[0].weight.data = torch.eye(size)[torch.from_numpy(rng.permutation(size))]
        container = layers.LinearRecurrentContainer(lif, size, size, step_mode=mode)
        dyadic_recurrence(rng, container.rc)
        return container

    return build


def one_to_one_container(rng: Generator, _: int) -> nn.Module:
    layers, neuron = of("spikingjelly.activation_based.layer"), of("spikingjelly.activation_based.neuron")
    lif = neuron.IFNode(v_threshold=float(rng.uniform(0.5, 1.5)))
    return layers.ElementWiseRecurrentContainer(lif, element_wise_function=lambda x, y: x + y)


def filtered(*, learnable: bool, mode: str) -> Neurons:
    """LIF neurons behind a SynapseFilter of spikes: one with no connection between them, whose sums are exact."""

    def build(rng: Generator, _: int) -> nn.Module:
        layers, neuron = of("spikingjelly.activation_based.layer"), of("spikingjelly.activation_based.neuron")
        fire = neuron.IFNode(v_threshold=0.75, step_mode=mode)
        synapse = layers.SynapseFilter(float(rng.uniform(1.5, 8)), learnable, step_mode=mode)
        lif = neuron.LIFNode(tau=float(rng.uniform(1.1, 4.0)), v_threshold=0.5, step_mode=mode)
        return nn.Sequential(fire, synapse, lif)

    return build


def spikingjelly_rows() -> Iterator[tuple[str, Neurons]]:
    taus: dict[str, Any] = {"tau": (1.1, 4.0)}
    kinds: list[tuple[str, tuple[float | None, ...], list[dict[str, Any]]]] = [
        ("IFNode", (None, 0.0, -0.3), [{"step_mode": mode} for mode in "sm"]),
        ("SimpleIFNode", (None, 0.0, -0.3), [{}]),
        (
            "LIFNode",
            (None, 0.0, -0.3),
            [taus | {"decay_input": decays, "step_mode": mode} for decays in (True, False) for mode in "sm"],
        ),
        ("SimpleLIFNode", (0.0,), [taus | {"decay_input": decays} for decays in (True, False)]),
        ("SimpleLIFNode", (-0.3,), [taus | {"decay_input": True}]),
        (
            "ParametricLIFNode",
            (None, 0.0, -0.3),
            [{"init_tau": (1.1, 4.0), "decay_input": decays} for decays in (True, False)],
        ),
        ("CUBALIFNode", (None, 0.0, -0.3), [{"c_decay": (0.1, 0.9), "v_decay": (0.1, 0.9)}]),
        ("OTTTLIFNode", (None, 0.0), [taus]),
        ("SLTTLIFNode", (0.0,), [taus]),
        ("QIFNode", (0.0, -0.3), [taus | QUADRATIC | {"step_mode": mode} for mode in "sm"]),
        # A subtraction does not keep a large membrane from growing by its square, so that there a0 is small.
        ("QIFNode", (None,), [taus | QUADRATIC | {"a0": (0.0001, 0.0003), "step_mode": mode} for mode in "sm"]),
        ("RAFNode", (None, 0.0, -0.3), [{"b": (-0.5, -0.1), "omega": (0.2, 2.0), "step_mode": mode} for mode in "sm"]),
    ]
    for kind, resets, variants in kinds:
        for reset in resets:
            for fields in variants:
                told = [f"{name}_{value}" for name, value in fields.items() if not isinstance(value, tuple)]
                yield "-".join([kind, f"reset_{reset}", *told]), spikingjelly_neurons(kind, reset, **fields)


SPIKINGJELLY = dict(spikingjelly_rows()) | {
    "HalfThresholdIFNode": half_threshold,
    "LinearRecurrentContainer-s": recurrent_container("s", inner=False),
    "LinearRecurrentContainer-m": recurrent_container("m", inner=False),
    "LinearRecurrentContainer-Linear": recurrent_container("s", inner=True),
    "ElementWiseRecurrentContainer": one_to_one_container,
    "SynapseFilter-s": filtered(learnable=False, mode="s"),
    "SynapseFilter-learnable-m": filtered(learnable=True, mode="m"),
}


def norse_neurons(kind: str, **fields: Any) -> Neurons:
    """A Norse neuron at a dt of half a millisecond, its inverse time constants an array each."""

    def build(rng: Generator, size: int) -> nn.Module:
        norse = of("norse.torch")
        thresholds = {"v_th": uniform(rng, 0.2, 1.0, size)}
        # A layer that runs over time starts from one number for all neurons, so that its v_leak is one.
        membrane = {"tau_mem_inv": uniform(rng, 100, 1500, size), "v_leak": torch.tensor(0.125)}
        current = {"tau_syn_inv": uniform(rng, 100, 1500, size)}
        if kind == "LIFBoxCell":
            method = getattr(of("norse.torch.functional.reset"), fields["reset_method"])
            reset = uniform(rng, -0.5, 0.1, size)
            parameters = of("norse.torch.functional.lif_box").LIFBoxParameters(
                **membrane, **thresholds, v_reset=reset, reset_method=method
            )
            return of("norse.torch.module.lif_box").LIFBoxCell(parameters, dt=5e-4)
        if kind.startswith("IAF"):
            parameters = of("norse.torch.functional.iaf").IAFParameters(**thresholds, v_reset=torch.tensor(-0.25))
            return getattr(norse, kind)(parameters)
        resets = {"v_reset": uniform(rng, -0.5, 0.1, size)}
        if "Ex" in kind:
            growth = {"delta_T": uniform(rng, 0.1, 1.0, size)}
            if "AdEx" in kind:
                growth |= {"tau_ada_inv": uniform(rng, 10, 500, size)}
                growth |= {"adaptation_current": uniform(rng, -0.5, 1, size)}
                growth |= {"adaptation_spike": uniform(rng, 0.05, 0.5, size)}
            named = "LIFAdExParameters" if "AdEx" in kind else "LIFExParameters"
            parameters = getattr(norse, named)(**membrane, **current, **thresholds, **resets, **growth)
        elif "LSNN" in kind:  # which start at v_th, as a number for all neurons, and keep its place
            thresholds = {"v_th": torch.tensor(float(rng.uniform(0.2, 0.6)))}
            adaptation = {"tau_adapt_inv": uniform(rng, 10, 500, size), "beta": uniform(rng, 0.05, 0.5, size)}
            parameters = of("norse.torch.functional.lsnn").LSNNParameters(
                **membrane, **current, **thresholds, **resets, **adaptation
            )
        else:
            parameters = norse.LIFParameters(**membrane, **current, **thresholds, **resets)
        if "Refrac" in kind:
            waits = torch.from_numpy(rng.integers(0, 8, size).astype(np.float32) / 2)  # steps, some of them half ones
            parameters = norse.LIFRefracParameters(parameters, rho_reset=waits)
        if "Recurrent" in kind:
            weights = {
                "input_weights": dyadic(rng, size, size, most=2),
                "recurrent_weights": dyadic(rng, size, size, most=1),
            }
            return getattr(norse, kind)(size, size, parameters, dt=5e-4, **weights)
        return getattr(norse, kind)(parameters, dt=5e-4)

    return build


NORSE: dict[str, Neurons] = {
    "LIFBoxCell-value": norse_neurons("LIFBoxCell", reset_method="reset_value"),
    "LIFBoxCell-subtract": norse_neurons("LIFBoxCell", reset_method="reset_subtract"),
} | {
    kind: norse_neurons(kind)
    for kind in (
        *("LIFCell", "LIF", "LIFRecurrentCell", "LIFRecurrent", "IAFCell", "IAF"),
        *("LIFRefracCell", "LIFRefracRecurrentCell", "LIFRefracRecurrent"),
        *("LSNNCell", "LSNN", "LSNNRecurrentCell", "LSNNRecurrent"),
    )
}  # fmt: skip


def sinabs_neurons(kind: str, spike: str, reset: str, **fields: Any) -> Neurons:
    """A sinabs neuron with arrays of time constants; "synapse" gives it one for its current too."""

    def build(rng: Generator, size: int) -> nn.Module:
        activation = of("sinabs.activation")
        thresholds = (0.1, 0.5) if fields.get("norm_input", "LIF" in kind) else (0.7, 2.0)
        chosen = {
            "spike_fn": getattr(activation, spike),
            "reset_fn": getattr(activation, reset)(),
            "spike_threshold": uniform(rng, *thresholds, size),
        }
        if fields.get("floor"):
            chosen["min_v_mem"] = uniform(rng, -0.7, 0.1, size)
        if fields.get("synapse"):
            # ALIF asks whether its tau_syn is true, which an array is not.
            chosen["tau_syn"] = uniform(rng, 0.5, 5, *(() if "ALIF" in kind else (size,)))
        if "LIF" in kind:
            chosen |= {"tau_mem": uniform(rng, 1, 20, size), "norm_input": fields.get("norm_input", True)}
        if "ALIF" in kind:
            chosen |= {"tau_adapt": uniform(rng, 1, 20, size), "adapt_scale": uniform(rng, 0.1, 2, size)}
        if "Recurrent" in kind:
            chosen["rec_connect"] = nn.Linear(size, size)
            dyadic_recurrence(rng, chosen["rec_connect"])
        if "Squeeze" in kind:
            chosen["num_timesteps"] = STEPS
        layers = of("sinabs.layers.alif" if kind == "ALIFSqueeze" else "sinabs.layers")
        return getattr(layers, kind)(**chosen)

    return build


SINABS: dict[str, Neurons] = {
    "-".join([kind, spike, reset, *(f"{name}_{value}" for name, value in more.items())]): sinabs_neurons(
        kind, spike, reset, **more
    )
    for kind, spike, reset, more in (
        ("LIF", "MultiSpike", "MembraneSubtract", {"norm_input": False}),
        ("LIF", "MultiSpike", "MembraneSubtract", {"norm_input": True}),
        ("LIF", "MultiSpike", "MembraneSubtract", {"floor": True, "norm_input": False}),
        ("LIF", "MultiSpike", "MembraneSubtract", {"synapse": True}),
        ("LIF", "MultiSpike", "MembraneReset", {"synapse": True, "norm_input": False}),
        ("LIF", "SingleSpike", "MembraneSubtract", {"floor": True, "synapse": True}),
        ("LIF", "SingleSpike", "MembraneReset", {"norm_input": False}),
        ("LIFSqueeze", "MultiSpike", "MembraneSubtract", {}),
        ("ALIF", "SingleSpike", "MembraneSubtract", {}),
        ("ALIF", "MultiSpike", "MembraneSubtract", {"norm_input": False, "floor": True}),
        ("ALIF", "SingleSpike", "MembraneReset", {"norm_input": False, "synapse": True}),
        ("ALIFSqueeze", "SingleSpike", "MembraneSubtract", {}),
        ("ALIFRecurrent", "SingleSpike", "MembraneSubtract", {"norm_input": False}),
        ("ALIFRecurrent", "MultiSpike", "MembraneReset", {"norm_input": True}),
        ("IAF", "MultiSpike", "MembraneSubtract", {}),
        ("IAF", "MultiSpike", "MembraneSubtract", {"floor": True}),
        ("IAF", "SingleSpike", "MembraneReset", {"synapse": True}),
        ("IAFSqueeze", "SingleSpike", "MembraneSubtract", {"floor": True}),
        ("LIFRecurrent", "SingleSpike", "MembraneSubtract", {"norm_input": False}),
        ("LIFRecurrent", "MultiSpike", "MembraneReset", {"synapse": True}),
        ("IAFRecurrent", "SingleSpike", "MembraneSubtract", {"floor": True}),
        ("IAFRecurrent", "SingleSpike", "MembraneReset", {}),
    )
}

EIF: dict[str, Any] = {"tau": (1.1, 4.0), "delta_T": (0.1, 1.0), "theta_rh": (0.2, 0.8), "v_rest": (0.0, 0.1)}
EXPONENTIAL: dict[str, tuple[str, Neurons]] = {
    f"EIFNode-reset_{reset}-{mode}": ("spikingjelly", spikingjelly_neurons("EIFNode", reset, step_mode=mode, **EIF))
    for reset, mode in ((0.0, "s"), (-0.3, "m"))
} | {
    # A subtraction does not keep a large membrane from growing, so that there it grows late.
    "EIFNode-reset_None-m": (
        "spikingjelly",
        spikingjelly_neurons("EIFNode", None, step_mode="m", **EIF | {"delta_T": (2.0, 4.0), "theta_rh": (20.0, 30.0)}),
    )
} | {
    kind: ("norse", norse_neurons(kind))
    for kind in (
        *("LIFExCell", "LIFEx", "LIFExRecurrentCell", "LIFExRecurrent"),
        *("LIFAdExCell", "LIFAdEx", "LIFAdExRecurrentCell", "LIFAdExRecurrent"),
    )
}  # fmt: skip

ROWS = [
    pytest.param(name, neurons, id=f"{name}-{row}")
    for name, rows in (("snntorch", SNNTORCH), ("spikingjelly", SPIKINGJELLY), ("norse", NORSE), ("sinabs", SINABS))
    for row, neurons in rows.items()
]


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


@pytest.mark.parametrize(("name", "neurons"), ROWS)
def test_no_spike_and_no_membrane_differs_from_the_frameworks_own(name: str, neurons: Neurons, rng: Generator) -> None:
    peer(name)
    require_the_frameworks_own(name, sequential(rng, neurons))


@pytest.mark.parametrize("kind", EXPONENTIAL)
def test_with_one_exponential_nothing_differs(kind: str, rng: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    # So every other operation is the framework's, in its order.
    name, neurons = EXPONENTIAL[kind]
    peer(name)
    monkeypatch.setattr(torch, "exp", exponential)
    require_the_frameworks_own(name, sequential(rng, neurons))


@pytest.mark.parametrize("kind", ["EIFNode-reset_0.0-s", "LIFExCell", "LIFAdExRecurrent"])
def test_the_frameworks_own_exponential_changes_few_spikes(kind: str, rng: Generator) -> None:
    name, neurons = EXPONENTIAL[kind]
    peer(name)
    framework, network = converted(name, sequential(rng, neurons))
    inputs = spikes(rng)
    rows = compare(network, run_framework(network, framework, inputs), ReferenceEngine(network.network), inputs)
    differing, neuron_steps = sum(row.differing for row in rows), sum(row.neuron_steps for row in rows)
    assert neuron_steps >= LEAST_NEURON_STEPS
    assert differing <= MOST_PER_MILLION * neuron_steps / 10**6


def norse_readout(rng: Generator, size: int, kind: str) -> nn.Module:
    norse, membrane, current = of("norse.torch"), uniform(rng, 100, 1500, size), uniform(rng, 100, 1500, size)
    if kind == "LIBoxCell":
        parameters = of("norse.torch.functional.leaky_integrator_box").LIBoxParameters(tau_mem_inv=membrane)
    else:
        parameters = of("norse.torch.functional.leaky_integrator").LIParameters(current, membrane)
    if kind == "LILinearCell":
        cell: nn.Module = norse.LILinearCell(size, size, parameters, dt=5e-4)
        cell.input_weights.data = dyadic(rng, size, size, most=2)
        return cell
    return getattr(norse, kind)(parameters, dt=5e-4)


READOUTS: list[tuple[str, str, Neurons, Neurons]] = [
    *(
        ("norse", kind, NORSE["LIFBoxCell-value"], partial(norse_readout, kind=kind))
        for kind in ("LICell", "LI", "LIBoxCell", "LILinearCell")
    ),
    *(
        (
            "spikingjelly", kind, SPIKINGJELLY["IFNode-reset_0.0-step_mode_m"],
            lambda _, __, kind=kind: getattr(of("spikingjelly.activation_based.neuron"), kind)(),
        )
        for kind in ("NonSpikingIFNode", "NonSpikingLIFNode")
    ),
    *(
        (
            "sinabs", f"ExpLeak-norm_input_{norm}", SINABS["IAF-MultiSpike-MembraneSubtract"],
            lambda rng, size, norm=norm: of("sinabs.layers").ExpLeak(uniform(rng, 1, 20, size), norm_input=norm),
        )
        for norm in (True, False)
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "neurons", "readout"),
    [pytest.param(name, *layers, id=f"{name}-{kind}") for name, kind, *layers in READOUTS],
)
def test_a_readouts_membrane_is_theirs(name: str, neurons: Neurons, readout: Neurons, rng: Generator) -> None:
    peer(name)
    layers = [*sequential(rng, neurons)][:-1]
    require_the_frameworks_own(name, nn.Sequential(*layers, readout(rng, NEURONS)))


def test_a_recurrent_convolution_of_many_neurons_is_refused() -> None:
    neuron = of("snntorch").RLeaky(0.5, conv2d_channels=1, kernel_size=(3, 3), init_hidden=True)
    with pytest.raises(NotConvertible, match="the weights of 4225 neurons are written out, at most 4096"):
        convert(nn.Sequential(neuron).eval(), peer("snntorch"), FrameworkOptions(input_shape=(1, 65, 65), time_steps=4))


PER_MILLION = 100.0  # 25 of ours and 22 of its own differed over eight networks and 20 million spikes


def test_a_random_convolutional_network_differs_by_its_frameworks_rounding(capsys: pytest.CaptureFixture[str]) -> None:
    framework = peer("snntorch")
    leaky = importlib.import_module("snntorch").Leaky
    torch.manual_seed(3)
    fields = {"beta": 0.9, "threshold": 0.5, "init_hidden": True}
    first, second, last = nn.Conv2d(1, 12, 5), nn.Conv2d(12, 64, 5), nn.Linear(1024, 10)
    with torch.no_grad():  # so that every layer fires
        first.weight *= 2.0
        second.weight *= 3.0
        last.weight *= 3.0
    network = nn.Sequential(
        *(first, leaky(**fields), nn.MaxPool2d(2)),
        *(second, leaky(**fields), nn.MaxPool2d(2), nn.Flatten()),
        *(last, leaky(**fields, output=True)),
    )
    converted = convert(network, framework, FrameworkOptions(input_shape=(1, 28, 28), time_steps=25))
    assert sums_of(converted.network)["conv2d_3"].by is Summation.INTEGER
    inputs = random_encoded(converted.network.spec, 32, seed=3)
    theirs = run_framework(converted, framework, inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some builds of PyTorch warn of other devices here
        with torch.backends.mkldnn.flags(enabled=False):
            otherwise = run_framework(converted, framework, inputs)
    rows = compare(converted, theirs, create("event", converted.network), inputs)
    spikes = sum(row.spikes or 0 for row in rows)
    ours = sum(row.differing for row in rows)
    own = sum(np.count_nonzero(theirs[place][0] != otherwise[place][0]) for place in converted.places.values())
    with capsys.disabled():
        print(f"\n{ours} of {spikes} spikes differ from snnTorch's, and {own} of its own by another convolution")
    assert spikes > 10**6
    assert ours <= PER_MILLION * 1e-6 * spikes
