"""`python -m tests.releases.write`: writes two small bundles and a state of each, in the folder of this version.

Run it once for a release, right after its version was set, and commit the folder, which is never changed again.
"""

import sys
from pathlib import Path

import numpy as np

from spikeserve.models.bundle import Bundle
from spikeserve.models.engines import blob
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec.network import Network
from spikeserve.models.version import VERSION
from tests.bundles import publish
from tests.networks import network_of, task

FOLDER = Path(__file__).parent
STEPS, BEFORE = 6, 3  # of a golden sample; those that a state has behind it
STATE = "state"  # the file of a state, beside the folders of a model's versions
PROGRAM = {
    "states": {"u": 0.0, "w": 0.0},
    "step": ["u = a * u + (current - w)", "s = fire(u, 1)", "w = b * w + 0.25 * s"],
    "spikes": "s",
}


def named() -> Network:
    """Return a network of named neurons, one of them recurrent, read by spike counts; it takes values."""
    grid = np.random.default_rng(1).integers(-8, 9, (4, 3)) / 8
    return network_of(
        [
            {"type": "Linear", "name": "in", "in_features": 3, "out_features": 4},
            {"type": "CubaLIF", "name": "hidden", "decay": 0.75, "syn_decay": 0.5, "recurrent": {}},
            {"type": "Delay", "name": "late", "delay": 1},
            {"type": "Linear", "name": "read", "in_features": 4, "out_features": 2},
            {"type": "LIF", "name": "out", "decay": 0.5, "reset": "value"},
        ],
        {
            "in.weight": grid, "in.bias": [0.5, 0.25, 0.75, 0.5],
            "hidden.recurrent.weight": np.eye(4)[::-1] / 2,
            "read.weight": [[1, -0.5, 0.5, 0.25], [-0.5, 1, 0.25, 0.5]], "read.bias": [0.25, 0.25],
        },
        **task(3, STEPS, ["left", "right"], low=0, high=1)
    )  # fmt: skip


def program() -> Network:
    """Return a network of an author's own neuron, read by a membrane; it takes spikes."""
    return network_of(
        [
            {"type": "Linear", "name": "in", "in_features": 3, "out_features": 4, "bias": False},
            {"type": "Neuron", "name": "own", "program": PROGRAM, "parameters": {"a": 0.75, "b": 0.5}},
            {"type": "Linear", "name": "read", "in_features": 4, "out_features": 2, "bias": False},
            {"type": "LI", "name": "out", "decay": 0.875},
        ],
        {"in.weight": np.tile([[0.75, 0.5, 1.0]], (4, 1)), "read.weight": [[1, 0.5, 0, 0.25], [0, 0.25, 1, 0.5]]},
        **task(3, STEPS, ["left", "right"], "spikes", low=0, high=1, readout="mean_membrane")
    )  # fmt: skip


def write(folder: Path) -> None:
    """Write the bundles of both networks, each with the state of its golden samples after some of their steps."""
    for name, network in (("named", named()), ("program", program())):
        publish(folder, network, name)
        bundle = Bundle.read(folder / name / "1")
        _, state = ReferenceEngine(bundle.network).run(bundle.golden.inputs.between(0, BEFORE))
        (folder / name / STATE).write_bytes(blob.to_bytes(state, bundle.digest))


if __name__ == "__main__":
    if (FOLDER / VERSION).exists():
        sys.exit(f"tests/releases/{VERSION} is there already, expected a version that has written nothing")
    write(FOLDER / VERSION)
