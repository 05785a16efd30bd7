"""Each release's bundles serve, and its states go on, on every engine (docs/versions.md)."""

import json
from pathlib import Path

import numpy as np
import pytest

from spikeserve.models.bundle import Bundle
from spikeserve.models.engines import available, blob, create
from spikeserve.models.version import VERSION
from tests.releases.write import BEFORE, FOLDER, STATE, STEPS, write

RELEASES = sorted(folder.name for folder in FOLDER.glob("[0-9]*"))
BUNDLES = [f"{release}/{name}/1" for release in RELEASES for name in ("named", "program")]


def test_the_release_that_this_is_has_written_its_own() -> None:
    assert VERSION in RELEASES, "run python -m tests.releases.write"


@pytest.mark.parametrize("place", BUNDLES)
@pytest.mark.parametrize("engine", available())
def test_a_releases_bundle_serves_and_its_state_goes_on(place: str, engine: str) -> None:
    folder = FOLDER / place
    assert json.loads((folder / "bundle.json").read_text())["producer"] == f"spikeserve {place.partition('/')[0]}"
    bundle = Bundle.read(folder)
    made = create(engine, bundle.network)
    bundle.verify(made)
    golden = bundle.golden
    state = blob.from_bytes((folder.parent / STATE).read_bytes(), bundle.network, bundle.digest)
    assert state.steps.tolist() == [BEFORE] * golden.inputs.batch
    result, _ = made.run(golden.inputs.between(BEFORE, STEPS), state)
    np.testing.assert_array_equal(result.spike_counts, golden.spike_counts)
    np.testing.assert_array_equal(result.readout, golden.readout)


def test_what_is_written_today_is_read_today_and_its_answers_vary(tmp_path: Path) -> None:
    write(tmp_path)
    for name in ("named", "program"):
        golden = Bundle.read(tmp_path / name / "1").golden
        assert len(np.unique(golden.readout)) > 2
