"""Learned delays of synapses: what only they can tell apart is learned, and served as it was trained."""

import json
from pathlib import Path

import numpy as np

from spikeserve.models.bundle.bundle import Bundle
from spikeserve.models.coding import encode
from spikeserve.models.engines.reference import ReferenceEngine
from tests.training.command_line import training_here

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
