"""Every neuron can be trained, whatever its rules; and one with a synaptic current is, from data to exact weights.

Learned delays of synapses: what only they can tell apart is learned, and served as it was trained.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spikeserve.models.bundle.bundle import Bundle
from spikeserve.models.coding import encode
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec import Spec
from spikeserve.models.spec.rules import FLOWS, LEAKS, RESET_TIMINGS, Adapt, Charge, Fire, Joins, Reset
from spikeserve.training.config import Surrogate
from spikeserve.training.fit.architecture import Architecture
from spikeserve.training.fit.network import Activity, TrainingNetwork
from spikeserve.training.fit.surrogate import DERIVATIVES, SurrogateThreshold
from tests.networks import FIRING
from tests.training.command_line import training_here
from tests.training.operator_cases import SoftThreshold

VALUES = {"decay": 0.75, "rate": 0.25, "tau": 4.0}
EXPONENTIAL = {"sharpness": 1.0, "critical": 2.0}
GROWTH = {
    Charge.QUADRATIC: {"curvature": 0.125, "critical": 0.5},
    Charge.EXPONENTIAL: EXPONENTIAL,
    Charge.EXPONENTIAL_INPUT_FIRST: EXPONENTIAL,
}

ADAPTS = {"adapt_decay": 0.75, "adapt_gain": 0.25}
RELAXES = {"adapt": Adapt.RELAX, "adapt_rate": 0.125, "adapt_gain": 0.25}


def rules() -> Iterator[dict[str, Any]]:
    """Yield every neuron with each of its rules, one at a time."""
    for charge in Charge:
        for parameter in LEAKS[charge]:
            leaky = {"charge": charge, parameter: VALUES[parameter]} | GROWTH.get(charge, {})
            yield {"type": "LIF"} | leaky
            yield {"type": "LI"} | leaky
    for synapse, parameter in FLOWS.items():
        cuba = {"decay": 0.75, "synapse": synapse, parameter: 0.5}
        yield {"type": "CubaLIF"} | cuba
        yield {"type": "CubaLI"} | cuba
    for reset, timings in RESET_TIMINGS.items():
        for timing in timings:
            yield {"type": "LIF", "decay": 0.75, "reset": reset, "reset_timing": timing}
    for fire in Fire:
        yield {"type": "IF", "fire": fire}
        yield {"type": "Threshold", "fire": fire}
    for joins in Joins:
        yield {"type": "IF", "recurrent": {"bias": True, "bias_at_start": False, "joins": joins}}
    opposes = {"adapt": Adapt.CURRENT, "adapt_rate": 0.125, "adapt_coupling": 0.5, "adapt_gain": 0.25}
    for reset in Reset:
        yield {"type": "ALIF", "charge": Charge.EXPONENTIAL, "rate": 0.25, "reset": reset} | EXPONENTIAL | opposes
    for fire in Fire:
        yield ADAPTS | {"type": "ALIF", "decay": 0.75, "fire": fire}
    for reset in Reset:
        yield ADAPTS | {"type": "CubaALIF", "decay": 0.75, "syn_decay": 0.5, "reset": reset}
    yield ADAPTS | {"type": "ALIF", "decay": 0.75, "adapt_spike": 0.5}
    for reset in Reset:
        yield {"type": "Alpha", "exc_decay": 0.75, "inh_decay": 0.5, "gain": 2.0, "reset": reset}
    for reset in Reset:
        yield {"type": "LIF", "decay": 0.75, "refractory": 2.0, "reset": reset}
    for reset in Reset:
        yield RELAXES | {"type": "ALIF", "decay": 0.75, "reset": reset}
    for reset in Reset:
        follows = {"adapt_decay": 0.75, "adapt_coupling": 2.0, "adapt_spike": 0.5}
        yield {"type": "AdLIF", "decay": 0.75, "reset": reset} | follows
    yield {"type": "IF", "floor": -0.5}
    yield {"type": "I"}


# Several spikes are steps, and so are fractions that are dropped, whose gradient passes as if they were not.
SMOOTH = [node for node in rules() if node.get("fire") != Fire.MULTIPLE and node.get("charge") != Charge.TRUNCATED]


@pytest.mark.parametrize("node", SMOOTH, ids=str)
def test_the_soft_network_of_every_rule_passes_gradcheck(node: dict[str, Any]) -> None:
    fires = node["type"] in FIRING
    spec = Spec.read(
        {
            "input": {"shape": [2]},
            "coding": "spikes",
            "time_steps": 3,
            "nodes": [node | {"name": "node"}],
            "readout": "spike_count" if fires else "last_membrane",
            "labels": ["a", "b"],
        }
    )
    torch.manual_seed(0)
    module = TrainingNetwork(Architecture(spec)).double()

    def run(steps: torch.Tensor) -> torch.Tensor:
        activity: Activity = module(steps, 3, SoftThreshold(4.0))
        return activity.output

    steps = torch.rand(3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (steps,))


def test_several_spikes_a_step_have_a_bump_at_each_multiple_of_the_threshold() -> None:
    # Threshold 0.5, slope 10: the bump is 2.5 high at 0.5, 1.0 and 1.5, and below 0.5 only the first one counts. A
    # threshold that grows moves the k-th multiple k times as far.
    charged = torch.tensor([0.5, 1.0, 1.5, 0.0], requires_grad=True)
    threshold = torch.tensor(0.5, requires_grad=True)
    SurrogateThreshold(Surrogate.SIGMOID, 10.0).fire("fire_multiple", charged, threshold).sum().backward()  # type: ignore[no-untyped-call]
    assert charged.grad is not None
    assert threshold.grad is not None
    far = float(DERIVATIVES[Surrogate.SIGMOID](torch.tensor(-0.5), 10.0))
    assert charged.grad.tolist() == [2.5, 2.5, 2.5, far]
    assert float(threshold.grad) == pytest.approx(-(2.5 + 2 * 2.5 + 3 * 2.5 + far))


def adaptive(neurons: int, time_steps: int, **fields: Any) -> TrainingNetwork:
    """Return a layer of ALIF neurons that takes their currents, decay 0.5 unless given."""
    node = {"type": "ALIF", "name": "out", "decay": 0.5} | dict.fromkeys(ADAPTS, "per_neuron") | fields
    spec: dict[str, Any] = {"input": {"shape": [neurons]}, "coding": "spikes", "time_steps": time_steps}
    whole = Spec.read(spec | {"nodes": [node], "labels": [str(neuron) for neuron in range(neurons)]})
    return TrainingNetwork(Architecture(whole))


def test_the_gradient_of_an_adaptation_reaches_its_gain_and_the_spikes_before() -> None:
    # Nothing is left of the membrane. 1.0 fires at 1, so that the next threshold is 1 + 0.5, which 1.5 just reaches.
    # The bump of slope 10 is 2.5 high there. The last spike falls with the gain by 2.5 * a, a = 1, and with the first
    # current by 2.5 (the first spike) * 0.5 (on the threshold) * 2.5; adapt_decay has acted on nothing yet but a = 0.
    module = adaptive(1, 2, decay=0.0)
    layer: Any = module.layers[0]
    layer.adapt_decay = torch.tensor([0.75], requires_grad=True)
    layer.adapt_gain = torch.tensor([0.5], requires_grad=True)
    currents = torch.tensor([1.0, 1.5]).view(2, 1, 1).requires_grad_()
    activity: Activity = module(currents, 2, SurrogateThreshold(Surrogate.SIGMOID, 10.0))
    assert activity.output.ravel().tolist() == [1, 1]
    activity.output[1].sum().backward()  # type: ignore[no-untyped-call]
    assert layer.adapt_gain.grad.tolist() == [-2.5]
    assert layer.adapt_decay.grad.tolist() == [0.0]
    assert currents.grad is not None
    assert currents.grad.ravel().tolist() == [-2.5 * 0.5 * 2.5, 2.5]


LAGS = np.array([0, 3, 6, 9])


def test_what_only_delays_can_tell_apart_is_learned_by_default_flags_and_served(tmp_path: Path) -> None:
    # Each of two inputs spikes once, the second later by the class's lag. A threshold without a memory sees both spikes
    # at once only where its synapses make up for the lag, and otherwise no class differs from another.
    rng = np.random.default_rng(0)
    y, first = rng.integers(0, len(LAGS), 400), rng.integers(0, 14, 400)
    x = np.zeros((400, 24, 2), np.uint8)
    x[range(400), first, 0] = x[range(400), first + LAGS[y], 1] = 1
    np.savez(tmp_path / "lags.npz", x_train=x[:300], y_train=y[:300], x_test=x[300:], y_test=y[300:])
    result = training_here(
        "fit", "--file", "lags.npz", "--coding", "spikes", "--architecture", "32S10Th", "--repository", "repository",
        cwd=tmp_path, plots=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    accuracy = json.loads((tmp_path / "runs" / "lags-1" / "metrics.json").read_text())["test_accuracy"]
    assert accuracy >= 0.95
    bundle = Bundle.read(tmp_path / "repository" / "lags" / "1")
    network = bundle.network
    taps = network.tensors["dense1.weight"].reshape(32, 10, 2)
    assert np.count_nonzero(taps, axis=1).tolist() == [[1, 1]] * 32  # each synapse has one delay
    inputs = encode(x[300:].astype(np.float32), network.spec)
    defined, _ = ReferenceEngine(network).run(inputs)
    served, _ = bundle.engine("event").run(inputs)
    np.testing.assert_array_equal(served.spikes_per_node["neuron1"], defined.spikes_per_node["neuron1"])
    assert (served.readout.argmax(1) == y[300:]).mean() == accuracy
