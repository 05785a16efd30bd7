"""What released versions wrote is read by this one: bundles, and the states of samples half-way, on every engine.

Each folder of `released` holds two small bundles that the release published, a state of each after five steps, and the
steps that were sent, with the spike counts and the readout of the reference engine at the end.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spikeserve.models.bundle import Bundle
from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines import EngineName, blob

RELEASED = Path(__file__).with_name("released")
BEFORE = 5  # steps that lie before the state


@pytest.mark.parametrize("engine", EngineName)
@pytest.mark.parametrize("name", ["image", "sequence"])
@pytest.mark.parametrize("release", sorted(folder.name for folder in RELEASED.iterdir()))
def test_a_sample_goes_on_from_the_state_that_a_release_wrote_and_ends_as_it_did_there(
    release: str, name: str, engine: EngineName
) -> None:
    folder = RELEASED / release
    bundle = Bundle.read(folder / name / "1")
    state = blob.from_bytes((folder / f"{name}.state").read_bytes(), bundle.network, bundle.digest)
    there = np.load(folder / f"{name}.npz")
    steps = there["steps"][BEFORE:].astype(np.float32)
    result, _ = bundle.engine(engine).run(DenseInputs(steps, len(steps)), state)
    np.testing.assert_array_equal(result.spike_counts, there["spike_counts"])
    if engine is EngineName.REFERENCE:
        np.testing.assert_array_equal(result.readout, there["readout"])
    else:  # a mean is divided by each engine's own library
        np.testing.assert_allclose(result.readout, there["readout"], rtol=1e-6)
