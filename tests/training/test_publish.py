"""From a run to a version in a repository: what was rounded, samples without a tie, engines that agree, one rename.

How much a network is run before it is published: numbers worked out by hand, and networks that ask for too much.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any

import numpy as np
import pytest
from typing_extensions import override

from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.coding import Inputs
from spikeserve.models.engines import RunResult, create
from spikeserve.models.engines.anytime import Calibration
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.engines.state import State
from spikeserve.models.spec import Spec
from spikeserve.models.spec.network import Network
from spikeserve.training.config import TrainingConfig
from spikeserve.training.data.datasets import Dataset, Split
from spikeserve.training.errors import ExportRefused
from spikeserve.training.fit.exact import round_to_grid
from spikeserve.training.fit.folder import RunFolder
from spikeserve.training.fit.job import TrainedRun, run_job
from spikeserve.training.publish.golden import AT_ONCE, CANDIDATES, Effort, choose_golden
from spikeserve.training.publish.publish import export, publish_imported
from spikeserve.training.report.card import training_card
from spikeserve.training.report.epochs import Watcher
from spikeserve.training.report.evaluate import evaluate
from spikeserve.training.report.parity import Parity, compare_engines, engines_of
from tests.networks import network_of, task


@pytest.fixture(scope="module")
def run(
    config: TrainingConfig, data: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunFolder, TrainedRun]:
    folder = RunFolder.fresh(tmp_path_factory.mktemp("runs"), "stripes")
    return folder, run_job(config, data, folder, Watcher())


def same(found: Network, expected: Network) -> bool:
    return found.spec == expected.spec and all(
        np.array_equal(found.tensors[name], tensor) for name, tensor in expected.tensors.items()
    )


def test_training_exports_what_it_rounded(run: tuple[RunFolder, TrainedRun], data: Dataset, tmp_path: Path) -> None:
    folder, job = run
    rounded = round_to_grid(job.fitted.network)
    assert not same(job.fitted.network, rounded.network)
    assert same(job.network, rounded.network)
    assert same(folder.network(), rounded.network)
    assert rounded.exact is folder.metrics["exact"] is True
    # What was just trained is neither read again, nor tested again: seven operations are those that are published.
    tested = replace(job.evaluation, synaptic_operations=np.full_like(job.evaluation.synaptic_operations, 7))
    rest = copytree(folder.path, tmp_path / "rest", ignore=ignore_patterns("spec.json", "network.safetensors"))
    export(folder, data, ModelRepository(tmp_path), "stripes")
    export(RunFolder(rest), data, ModelRepository(tmp_path), "stripes", job=replace(job, evaluation=tested))
    for version, operations in ((1, job.evaluation.synaptic_operations.mean()), (2, 7)):
        bundle = ModelRepository(tmp_path).read("stripes", version)
        assert same(bundle.network, rounded.network)
        assert "Weights lie on a dyadic grid" in bundle.card
        assert bundle.manifest.metrics["synaptic_operations"] == operations


def test_the_card_says_what_a_run_found_of_sums(run: tuple[RunFolder, TrainedRun], config: TrainingConfig) -> None:
    _, job = run
    row = Parity("event", other_predictions=0, differing_spikes=80, spikes=3_008_246)
    calibration = Calibration(
        threshold=0, first=4, then=4, time_steps=4, samples=13, accuracy=1, target=0, lost=0, changed=0, mean_steps=4
    )
    parts = (config, (115, 13, 32), job.evaluation, [row], calibration)
    assert "Sums may round in another order" in training_card("x", job.network, *parts, exact=False)
    assert "| event | 0 | 80 of 3008246 | 26.6 |" in training_card("x", job.network, *parts, exact=True)


@pytest.mark.parametrize("per_neuron", [False, True])
def test_a_sample_that_ties_with_a_threshold_that_spikes_have_raised_is_no_golden_one(per_neuron: bool) -> None:
    # Every sample fires in the first step, which raises the threshold from 1 to 1024: there 1024 ties in the second.
    # Only the gain can show it: a threshold of 1 + 2**-18 is one of 1024 again once 1023 is added.
    network = network_of(
        [
            {"type": "ALIF", "name": "out", "decay": 0.0, "adapt_decay": 0.5}
            | {"adapt_gain": "per_neuron" if per_neuron else 1023.0}
        ],
        {"out.adapt_gain": [1023.0]} if per_neuron else {},
        **task(1, 2, 1, high=2048),
    )
    split = Split(np.array([[1024.0], [512.0], [2048.0]], np.float32), np.zeros(3, np.int64))
    golden = choose_golden(network, engines_of(network), split, count=2)
    assert golden.inputs.steps.ravel().tolist() == [512.0, 2048.0]
    assert golden.spike_counts.tolist() == [[1], [2]]


def test_engines_must_agree(
    run: tuple[RunFolder, TrainedRun], data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On the grid no engine differs, so one of them is given the network with its classes swapped: it is never right.
    folder, job = run
    swapped = {
        name: np.ascontiguousarray(value[::-1]) if name.startswith("classes") else value
        for name, value in job.network.tensors.items()
    }

    def create_with_one_that_differs(name: str, network: Network, **options: Any) -> Any:
        return create(name, Network(network.spec, swapped) if name == "onnx" else network, **options)

    monkeypatch.setattr("spikeserve.training.report.parity.create", create_with_one_that_differs)
    with pytest.raises(ExportRefused, match="engine 'onnx' predicts another class than 'reference' for"):
        export(folder, data, ModelRepository(tmp_path / "repository"), "stripes")
    assert not (tmp_path / "repository").exists()


def one_weight(*, per_neuron: bool = False) -> Network:
    return network_of(
        [
            {"type": "Linear", "name": "fc", "in_features": 1, "out_features": 1, "bias": False},
            {"type": "IF", "name": "out", "threshold": "per_neuron" if per_neuron else 1.0},
        ],
        {"fc.weight": [[1.0]]} | ({"out.threshold": [1.0]} if per_neuron else {}),
        **task(1, 1, 1, high=4),
    )


def with_one_that_differs(differs: str, factor: float) -> Callable[..., Any]:
    """Return `create` with one engine whose weights are smaller by a factor."""

    def create_with_it(name: str, network: Network, **options: Any) -> Any:
        tensors = {key: np.float32(factor) * value for key, value in network.tensors.items()}
        return create(name, Network(network.spec, tensors) if name is differs else network, **options)

    return create_with_it


@pytest.mark.parametrize("engine", ["event", "onnx", "torch"])
def test_a_sample_on_which_engines_differ_is_no_golden_one(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Threshold 1 and weight 1, or 0.5 on the engine that differs: 1.5 fires on the others only; 0.5 and 3 are alike.
    monkeypatch.setattr("spikeserve.training.report.parity.create", with_one_that_differs(engine, 0.5))
    network, values = one_weight(), np.array([[1.5], [0.5], [3.0]], np.float32)
    engines = engines_of(network)
    golden = choose_golden(network, engines, Split(values, np.zeros(3, np.int64)))
    assert golden.inputs.steps.ravel().tolist() == [0.5, 3.0]
    with pytest.raises(ExportRefused, match="differ on each of the 1 samples that were tried, so none can be golden"):
        choose_golden(network, engines, Split(values[:1], np.zeros(1, np.int64)))


def test_a_bundle_the_default_engine_refuses_is_not_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Every random sample fires at a weight of 1e9 and none at 0, so that the server's engine cannot replay any.
    network = Network(one_weight().spec, {"fc.weight": np.array([[1e9]], np.float32)})
    repository = ModelRepository(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr("spikeserve.models.bundle.bundle.create", with_one_that_differs("event", 0))
        patched.setattr("spikeserve.training.publish.publish.preferred", lambda _: ("missing", "event"))
        with pytest.raises(
            ExportRefused, match=r"^a server could not serve 'toy', so it is not published: golden\..*'event'"
        ):
            publish_imported(network, repository, "toy", lambda _: "# toy")
        assert list(tmp_path.iterdir()) == []
    assert publish_imported(network, repository, "toy", lambda _: "# toy").version == 1


@pytest.mark.parametrize("per_neuron", [False, True])
def test_golden_samples_are_looked_for_beyond_ties_with_the_threshold_which_fill_up(per_neuron: bool) -> None:
    # Weight 1, threshold 1: an input of 1 lies on the threshold in its only step. 30 such ties come first, of which two
    # fill up beside the six samples that are none.
    network = one_weight(per_neuron=per_neuron)
    values = np.array([1.0] * 30 + [0.5, 2.0] * 3, np.float32)[:, np.newaxis]
    golden = choose_golden(network, engines_of(network), Split(values, np.zeros(36, np.int64)))
    assert golden.inputs.steps.ravel().tolist() == [0.5, 2.0] * 3 + [1.0, 1.0]
    assert golden.spike_counts.ravel().tolist() == [0, 1] * 3 + [1, 1]


LINEAR: dict[str, Any] = {"type": "Linear", "name": "fc", "in_features": 2, "out_features": 2}
LIF: dict[str, Any] = {"type": "LIF", "name": "lif", "decay": 0.5}


def spec_of(time_steps: int, nodes: list[dict[str, Any]], width: int = 2) -> Spec:
    labels = [str(label) for label in range(width)]
    return Spec.read(
        {"input": {"shape": [width]}, "coding": "spikes", "time_steps": time_steps, "labels": labels, "nodes": nodes}
    )


def test_fewer_samples_are_tried_and_run_at_once_where_each_takes_longer_or_more() -> None:
    assert Effort.of(spec_of(100, [LINEAR, LIF])) == Effort(AT_ONCE, CANDIDATES)
    # Per step: 4 stepped runs of 25,000 for one layer, and for each of 16 samples 10 runs of 6 + 2 operations (4
    # weights and 2 outputs, and 2 neurons): 101,280. For 100,000 steps that is 1.01e10, of which 5e10 holds four: all
    # 64 samples. Three layers make it 3.01e10: one batch is enough.
    assert Effort.of(spec_of(100_000, [LINEAR, LIF])) == Effort(16, 64)
    assert Effort.of(spec_of(100_000, [LINEAR, LIF, LIF | {"name": "b"}, LIF | {"name": "c"}])) == Effort(16, 16)
    # 12 bytes of each of 100,000 inputs and neurons for 1000 steps are 2.4e9 bytes of a sample: more than 2**30. For
    # 100 steps 2.4e8, of which four fit.
    assert [Effort.of(spec_of(steps, [LIF], 100_000)).at_once for steps in (1000, 100)] == [1, 4]


def test_an_evaluation_and_a_comparison_run_as_many_samples_at_once_as_fit_into_memory() -> None:
    # As above 2.4e6 bytes of a step, 2.4e7 of a sample of ten: 2**28 has room for eleven.
    network, sizes = Network(spec_of(10, [LIF], 100_000), {}), list[int]()

    class Seen(ReferenceEngine):
        @override
        def run(self, inputs: Inputs, *arguments: Any, **how: Any) -> tuple[RunResult, State]:
            sizes.append(inputs.batch)
            return super().run(inputs, *arguments, **how)

    split = Split(np.zeros((13, 10, 100_000), np.uint8), np.zeros(13, np.int64))
    evaluate(Seen(network), split)
    compare_engines(network, {"reference": Seen(network)}, split)
    assert sizes == [11, 2, 11, 2]


def test_a_network_of_which_one_sample_takes_hours_is_refused_before_it_runs() -> None:
    # 4 x 25,000 for each of 1,000 layers and 10 x 1,000 x 2 operations, for 100,000 steps: just over 1e13.
    chain = [{**LIF, "name": f"lif{layer}"} for layer in range(1000)]
    with pytest.raises(ExportRefused) as refused:
        Effort.of(spec_of(100_000, chain))
    assert str(refused.value) == (
        "time_steps: before a network is published, a sample runs 10 times, which for 100000 steps through 1000 nodes "
        "takes as long as 10002000000000 operations, expected at most 10000000000000"
    )
