"""What every importer promises: a network comes in under its author's names, spikes as it did there, and is served.

Each entry of `importers.py` is taken in by its command, in this process. All models go into one repository, and one
service answers for all of them on its default engine. tests/zoo/README.md says where the zoo's networks are from.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from spikeserve.models import door
from spikeserve.models.bundle import Bundle
from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.coding import DenseInputs, encode
from spikeserve.models.engines import available, create
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec import Readout
from spikeserve.models.spec.network import FloatArray
from spikeserve.plugins.c.compiled import CompiledC
from spikeserve.training.data.datasets import random_samples
from spikeserve.training.report.parity import against_reference
from tests.contracts.importers import ENTRIES, FACTORIES, SMALL, words_of
from tests.serving import serving
from tests.sources import ROOT
from tests.training.command_line import training_here
from tests.zoo import runs
from tests.zoo.networks import NETWORKS
from tests.zoo.registry import Entry

if TYPE_CHECKING:
    from fastapi.testclient import TestClient

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # of frameworks, about themselves
    pytest.mark.timeout(900),  # the first test waits for all imports
]
SAMPLES = 4  # for each network over HTTP, which is also the batch of those that know no other
COMING = [entry for entry in ENTRIES if not entry.refusal]
REFUSED = [entry for entry in ENTRIES if entry.refusal]


def each(entries: list[Entry]) -> pytest.MarkDecorator:
    marks: dict[bool, Any] = {True: (), False: pytest.mark.deep}
    rows = [pytest.param(entry, id=entry.name, marks=marks[entry.name in SMALL]) for entry in entries]
    return pytest.mark.parametrize("entry", rows)


class Imports:
    """The networks of this run of the tests in one repository, each taken in once it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.files, self.repository = folder, ModelRepository(folder / "repository")
        self.done: dict[str, CompletedProcess[str]] = {}

    def take_in(self, entry: Entry) -> CompletedProcess[str]:
        if entry.name not in self.done:
            if entry.framework in FACTORIES[:4]:
                pytest.importorskip(entry.framework, reason="it is not installed: ./scripts/install peers")
            words = (*words_of(entry, self.files), "--name", entry.name, "--repository", str(self.repository.root))
            with fresh_door():
                self.done[entry.name] = training_here(*words)
        return self.done[entry.name]

    def bundle(self, entry: Entry) -> Bundle:
        assert self.take_in(entry).returncode == 0, self.done[entry.name].stderr
        return self.repository.read(entry.name)


@contextmanager
def fresh_door() -> Iterator[None]:
    """Let --plugins-dir count, for as long as this lasts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(door.FOLDER, os.environ.get(door.FOLDER, ""))
        door.opened.cache_clear()
        yield
    door.opened.cache_clear()


@pytest.fixture(scope="module")
def imports(tmp_path_factory: pytest.TempPathFactory) -> Imports:
    return Imports(tmp_path_factory.mktemp("imports"))


@pytest.fixture(scope="module")
def client(request: pytest.FixtureRequest, imports: Imports) -> Iterator[TestClient]:
    calls: list[Any] = [getattr(item, "callspec", None) for item in request.session.items]
    for entry in (call.params["entry"] for call in calls if call and "entry" in call.params):
        imports.take_in(entry)
    with serving(imports.repository.root) as client:
        yield client


def drawn(spec: Any) -> FloatArray:
    """Return random raw samples; spikes are 0 or the range's highest value."""
    return random_samples(spec, SAMPLES, seed=9)


@each(COMING)
def test_it_comes_in_as_it_is_named_and_no_spike_differs_from_its_frameworks(entry: Entry, imports: Imports) -> None:
    bundle = imports.bundle(entry)
    assert f"Published {entry.name} version 1" in imports.take_in(entry).stdout
    spec = bundle.network.spec
    assert entry.names in ((), tuple(node.name for node in spec.nodes))
    assert (spec.time_steps, spec.input.shape) == (entry.time_steps, entry.shape)
    assert spec.coding == entry.coding or entry.framework == "convert"
    assert ",".join(spec.labels) == entry.options.get("labels", ",".join(spec.labels))
    for engine in available():
        bundle.verify(create(engine, bundle.network))
    if entry.framework in FACTORIES:  # whose own modules each import runs
        agreement = bundle.card.partition(f"## Agreement with {entry.framework}")[2].partition("\n## ")[0]
        counts = re.findall(r"\| (\d+) of (\d+) \|$", agreement, re.MULTILINE)
        assert sum(int(neuron_steps) for _, neuron_steps in counts) > 0
        assert {differing for differing, _ in counts} == {"0"}


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler: apt-get install gcc")
@each(COMING[::5])  # `python -m benchmarks.targets` takes a repository of all
def test_its_c_file_has_the_bits_of_the_reference(entry: Entry, imports: Imports) -> None:
    network = imports.bundle(entry).network
    inputs = encode(drawn(network.spec)[:1], network.spec)
    assert against_reference(network, CompiledC(network).run, inputs)[:2] == (0, 0)


@each(REFUSED)
def test_it_is_refused_with_its_sentence_and_nothing_is_written(entry: Entry, imports: Imports) -> None:
    done = imports.take_in(entry)
    assert (done.returncode, done.stderr.startswith("error: "), entry.refusal in done.stderr) == (1, True, True)
    assert not (imports.repository.root / entry.name).exists()


@each(COMING)
def test_over_http_the_default_engine_answers_as_its_author(entry: Entry, imports: Imports, client: TestClient) -> None:
    network = imports.bundle(entry).network
    samples = drawn(network.spec)
    inputs = encode(samples, network.spec)
    result, _ = ReferenceEngine(network).run(inputs)
    assert all(spikes.any() for spikes in result.spikes_per_node.values())
    answer = client.post(f"/models/{entry.name}/predict", json={"inputs": samples.tolist()})
    assert answer.status_code == 200, answer.text
    answers, scores = answer.json()["predictions"], network.spec.scores
    assert [each["spike_counts"] for each in answers] == result.spike_counts.tolist()
    field, read = "values", result.readout
    if scores.has_classes:
        field, read = "probabilities", scores.probabilities(result.readout)
    assert np.allclose([each[field] for each in answers], read, atol=1e-4)
    if entry.run is None:
        return
    own = author_run(entry, inputs)
    if network.spec.readout is Readout.SPIKE_COUNT:
        assert np.allclose(own, result.spike_counts, atol=entry.close)
    elif own.shape[1] > 1:  # a log softmax has lost how high its scores were
        assert np.allclose(softmax(own), softmax(result.readout), atol=entry.close)
    else:
        assert np.allclose(own, result.readout, atol=entry.close)


def author_run(entry: Entry, inputs: DenseInputs) -> FloatArray:
    """Return (batch, classes): what the author's own forward makes of inputs, with no part of an importer."""
    assert entry.run is not None
    assert entry.read is not None
    network = entry.function(entry.layers or entry.source)().eval().requires_grad_(requires_grad=False)
    steps = np.broadcast_to(inputs.steps, (inputs.time_steps, *inputs.steps.shape[1:])).copy()
    runs.reset(network)
    with torch.no_grad():
        output = entry.read(entry.run(network, torch.from_numpy(steps)))
    return np.asarray(output.numpy(), np.float32)


def softmax(scores: FloatArray) -> FloatArray:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def test_the_pages_count_and_list_the_networks_of_the_zoo() -> None:
    refused = sum(entry in REFUSED for entry in NETWORKS)
    counts = (
        f"Of {len(NETWORKS)} networks in the style",
        f", {len(NETWORKS) - refused} are exact and {refused} refused.",
    )
    assert [count in (ROOT / "docs/interop.md").read_text() for count in counts] == [True, True]
    rows = re.findall(r"^\| ([\w-]+) \| .+ \| .+ \|$", (ROOT / "tests/zoo/README.md").read_text(), re.MULTILINE)
    assert [name for name in rows if name != "network"] == [entry.name for entry in NETWORKS]
