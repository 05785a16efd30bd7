"""Networks as people write them: each is imported, asked over HTTP and compared with its author's own run.

`networks.py` is the table, README.md says where each is from. The commands of training run in this process,
all models go into one repository, and one service answers for all of them on its default engine.

Take a network of the zoo in by `import`, in this process.
"""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nir
import numpy as np
import pytest
import torch

from spikeserve.models.bundle import Bundle
from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.coding import DenseInputs, encode
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec import Readout
from spikeserve.models.spec.network import FloatArray
from spikeserve.plugins.c.compiled import CompiledC
from spikeserve.training.data.datasets import random_samples
from spikeserve.training.report.parity import against_reference
from tests.serving import serving
from tests.training.command_line import training_here
from tests.zoo.registry import FRAMEWORKS, Entry


@dataclass(frozen=True)
class Imported:
    """What came of a network: an import's sentence where it is refused; else what its card counts of its framework."""

    refusal: str = ""
    differing: int = 0
    neuron_steps: int = 0


def take_in(entry: Entry, repository: Path, files: Path) -> Imported:
    """Import a network into a repository; its card says how it compares with the framework's modules."""
    words = [word for name, value in entry.options.items() for word in (f"--{name}", value)]
    given = {"--batch": entry.batch, "--answer": entry.answer, "--start": entry.start}
    traced = [word for flag, value in given.items() if value is not None for word in (flag, str(value))]
    words += ["--repository", str(repository), "--name", entry.name, "--input-shape", ",".join(map(str, entry.shape))]
    words += ["--time-steps", str(entry.time_steps), "--coding", str(entry.coding)]
    source = entry.place if entry.framework in FRAMEWORKS else str(_file(entry, files))
    done = training_here("import", entry.framework, source, *words, *traced)
    if done.returncode or entry.framework not in FRAMEWORKS:
        return Imported(refusal=done.stderr if done.returncode else "")
    card = (repository / entry.name / "1" / "card.md").read_text()
    agreement = card.partition(f"## Agreement with {entry.framework}")[2].partition("\n## ")[0]
    counted = re.findall(r"\| (\d+) of (\d+) \|$", agreement, re.MULTILINE)
    return Imported("", *(sum(map(int, counts)) for counts in zip(*counted, strict=True)))


def _file(entry: Entry, folder: Path) -> Path:
    nir.write(path := folder / f"{entry.name}.nir", entry.source())
    return path


if TYPE_CHECKING:
    from fastapi.testclient import TestClient

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # of frameworks, about themselves
    pytest.mark.timeout(900),  # the first test waits for all imports: under a minute on a core of its own
]
for _name in ("snntorch", "spikingjelly", "norse", "sinabs", "nir"):
    pytest.importorskip(_name, reason=f"{_name} is not installed: ./scripts/install dev peers", exc_type=ImportError)

with warnings.catch_warnings():  # of frameworks, about themselves
    warnings.simplefilter("ignore")
    from tests.zoo import runs
    from tests.zoo.networks import NETWORKS
    from tests.zoo.registry import FRAMEWORKS, Entry
    from tests.zoo.test_zoo import Imported, take_in

SAMPLES = 4  # for each network over HTTP, which is also the batch of those that know no other
CLOSE = 1e-4  # of membranes and probabilities; sums round in another order

PAGE = Path(__file__).with_name("README.md")
GUIDE = Path(__file__).parents[2] / "docs/interop.md"

COMING = [entry for entry in NETWORKS if not entry.refusal]
REFUSED = [entry for entry in NETWORKS if entry.refusal]


def each(entries: list[Entry]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("entry", entries, ids=[entry.name for entry in entries])


@dataclass(frozen=True)
class Zoo:
    """What came of each network, in one repository."""

    repository: ModelRepository
    imported: dict[str, Imported]

    def bundle(self, entry: Entry) -> Bundle:
        return self.repository.read(entry.name)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    folder = tmp_path_factory.mktemp("zoo")
    (files := folder / "files").mkdir()
    repository = folder / "repository"
    return Zoo(ModelRepository(repository), {entry.name: take_in(entry, repository, files) for entry in NETWORKS})


@pytest.fixture(scope="module")
def client(zoo: Zoo) -> Iterator[TestClient]:
    with serving(zoo.repository.root) as client:
        yield client


def drawn(spec: Any) -> FloatArray:
    """Return random raw samples; spikes are 0 or the range's highest value."""
    return random_samples(spec, SAMPLES, seed=9)


def asked(client: TestClient, name: str, samples: FloatArray) -> list[dict[str, Any]]:
    answer = client.post(f"/models/{name}/predict", json={"inputs": samples.tolist()})
    assert answer.status_code == 200, answer.text
    return answer.json()["predictions"]


@each(COMING)
def test_it_comes_in_and_spikes_as_in_its_framework(entry: Entry, zoo: Zoo) -> None:
    came = zoo.imported[entry.name]
    assert came.refusal == ""
    assert came.differing == 0
    assert came.neuron_steps > 0 or entry.framework not in FRAMEWORKS


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler: apt-get install gcc")
@each(COMING[::5])  # `python -m benchmarks.targets` takes a repository of all
def test_its_c_file_has_the_bits_of_the_reference(entry: Entry, zoo: Zoo) -> None:
    network = zoo.bundle(entry).network
    inputs = encode(drawn(network.spec)[:1], network.spec)
    assert against_reference(network, CompiledC(network).run, inputs)[:2] == (0, 0)


@each(REFUSED)
def test_it_is_refused_with_its_sentence_and_nothing_is_written(entry: Entry, zoo: Zoo) -> None:
    assert entry.refusal in zoo.imported[entry.name].refusal
    assert zoo.imported[entry.name].refusal.startswith("error: ")
    assert not (zoo.repository.root / entry.name).exists()


@each(COMING)
def test_over_http_the_default_engine_answers_as_its_author(entry: Entry, zoo: Zoo, client: TestClient) -> None:
    network = zoo.bundle(entry).network
    samples = drawn(network.spec)
    inputs = encode(samples, network.spec)
    result, _ = ReferenceEngine(network).run(inputs)
    assert all(spikes.any() for spikes in result.spikes_per_node.values())
    answers = asked(client, entry.name, samples)
    assert [answer["spike_counts"] for answer in answers] == result.spike_counts.tolist()
    scores = network.spec.scores
    read = scores.probabilities(result.readout) if scores.has_classes else result.readout
    assert np.allclose(
        [answer["probabilities" if scores.has_classes else "values"] for answer in answers], read, atol=CLOSE
    )
    if entry.run is None:
        return
    own = author_run(entry, inputs)
    if network.spec.readout is Readout.SPIKE_COUNT:
        assert np.allclose(own, result.spike_counts, atol=CLOSE)
    elif own.shape[1] > 1:  # a log softmax has lost how high its scores were
        assert np.allclose(softmax(own), softmax(result.readout), atol=CLOSE)
    else:
        assert np.allclose(own, result.readout, atol=CLOSE)


def author_run(entry: Entry, inputs: DenseInputs) -> FloatArray:
    """Return (batch, classes): what the author's own forward makes of inputs, with no part of an importer."""
    assert entry.run is not None
    assert entry.read is not None
    network = (entry.layers or entry.source)().eval().requires_grad_(requires_grad=False)
    steps = np.broadcast_to(inputs.steps, (inputs.time_steps, *inputs.steps.shape[1:])).copy()
    runs.reset(network)
    with torch.no_grad():
        output = entry.read(entry.run(network, torch.from_numpy(steps)))
    return np.asarray(output.numpy(), np.float32)


def softmax(scores: FloatArray) -> FloatArray:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def test_the_guide_counts_them() -> None:
    counted = f"Of {len(NETWORKS)} networks in the style", f", {len(COMING)} are exact and {len(REFUSED)} refused."
    assert [each in GUIDE.read_text() for each in counted] == [True, True]
    assert len({entry.name for entry in NETWORKS}) == len(NETWORKS)


def test_the_readme_says_of_each_network_where_it_is_from() -> None:
    rows = re.findall(r"^\| ([\w-]+) \| .+ \| .+ \|$", PAGE.read_text(), re.MULTILINE)
    assert [name for name in rows if name != "network"] == [entry.name for entry in NETWORKS]
