"""Published NIR graphs, as their authors ran them: each spike, under each rule that somebody ran them by."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines import EngineName, Record, create
from spikeserve.models.spec.nodes import ResetTiming
from spikeserve.training.importers.builder import Options
from spikeserve.training.importers.nir.commands import import_nir
from spikeserve.training.importers.nir.convert import Conversion
from spikeserve.training.importers.nir.dialects import DialectName, GivenRules, GraphReset
from tests.reference_data import reference_data
from tests.serving import serving

DT = 1e-4
BRAILLE = "braille_noDelay_noBias_subtract.nir"


def publish(root: Path, file: str, name: str, rules: GivenRules, options: Options) -> Conversion:
    return import_nir(reference_data() / "nir" / file, rules, options, ModelRepository(root), name)[1]


def run(root: Path, name: str, engine: EngineName, steps: NDArray[Any], record: Record) -> Any:
    """Run the bundle on one sample, (time_steps, *shape)."""
    bundle = ModelRepository(root).read(name)
    runner = create(engine, bundle.network)
    return runner.run(DenseInputs(steps[:, np.newaxis].astype(np.float32), len(steps)), record=record)[0]


@pytest.mark.parametrize("dialect", [DialectName.NIR, DialectName.NORSE])
def test_the_norse_neuron_gives_its_published_spikes_and_membrane(tmp_path: Path, dialect: DialectName) -> None:
    rules = GivenRules(dialect, DT, GraphReset.ZERO)
    conversion = publish(tmp_path, "lif_norse.nir", "lif", rules, Options(time_steps=1000))
    assert conversion.warnings == ()
    current, membrane, spikes = np.loadtxt(reference_data() / "nir/lif_norse.csv", delimiter=",").T
    for engine in EngineName:
        result = run(tmp_path, "lif", engine, current[:, np.newaxis], Record.RASTER | Record.MEMBRANE)
        np.testing.assert_array_equal(result.rasters["node_1"].ravel(), spikes)
        np.testing.assert_allclose(result.membranes["node_1"].ravel(), membrane, atol=1e-6, rtol=0)
    assert spikes.sum() == 4


@pytest.mark.parametrize(
    ("published", "rules", "late"),
    [
        ("hidden_spyx", GivenRules(DialectName.NIR, DT, GraphReset.SUBTRACT), 1),
        ("hidden_spyx", GivenRules(DialectName.SPIKINGJELLY, DT, GraphReset.SUBTRACT), 1),
        ("hidden_snntorch", GivenRules(DialectName.SNNTORCH, DT, GraphReset.SUBTRACT), 0),
        ("hidden_norse", GivenRules(DialectName.NORSE, DT, GraphReset.ZERO), 0),
        # The same rules over another dialect's equations: what tells the rasters apart is the reset.
        ("hidden_norse", GivenRules(DialectName.NIR, DT, GraphReset.ZERO), 0),
        ("hidden_snntorch", GivenRules(DialectName.NIR, DT, GraphReset.SUBTRACT, ResetTiming.CORRECTED), 0),
    ],
)
def test_the_braille_graph_spikes_as_published(tmp_path: Path, published: str, rules: GivenRules, late: int) -> None:
    conversion = publish(tmp_path, BRAILLE, "braille", rules, Options(time_steps=256))
    assert conversion.warnings == ()
    data = np.load(reference_data() / "nir/braille_test0_subtract.npz")
    for engine in EngineName:
        raster = run(tmp_path, "braille", engine, data["x"], Record.RASTER).rasters["lif1_lif"][:, 0]
        # Spyx shows a step's spikes in the step after.
        assert np.count_nonzero(raster[: len(raster) - late] != data[published][late:]) == 0
        assert raster.sum() > 100


def test_the_braille_graph_classifies_its_samples_by_http(tmp_path: Path) -> None:
    data = np.load(reference_data() / "braille7.npz")
    samples, labels = np.unpackbits(data["x"], axis=-1)[..., :12], data["y"]
    publish(tmp_path, BRAILLE, "braille", GivenRules(DialectName.NIR, DT, GraphReset.SUBTRACT), Options(time_steps=256))
    found = []
    with serving(tmp_path) as client:
        for start in range(0, len(samples), 64):
            answer = client.post("/models/braille/predict", json={"inputs": samples[start : start + 64].tolist()})
            assert answer.status_code == 200, answer.text
            found += [prediction["class_index"] for prediction in answer.json()["predictions"]]
    assert (np.array(found) == labels).sum() == 1127  # of 1158: 97.32 %
