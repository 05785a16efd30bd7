"""The metrics of NeuroBench's own harness, and ours, of networks that run the same samples: equal whole numbers.

The command `report`: what it prints and writes, and what it refuses.
"""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.neurobench import CASES, NUMBERS, Case, Compared, compare, main
from spikeserve.models.engines import create
from spikeserve.plugins.report.complexity import Complexity
from spikeserve.plugins.report.neurobench import measure
from spikeserve.training.data.datasets import Split
from spikeserve.training.errors import InvalidData
from spikeserve.training.report.evaluate import ACCURACY_VARIES
from tests.apps import app
from tests.bundles import publish
from tests.networks import votes
from tests.plugins.frameworks.test_peers import peer


def compared(case: Case) -> Compared:
    peer("snntorch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("neurobench", reason="neurobench is not installed: ./scripts/install peers")
    return compare(case)


@pytest.mark.parametrize("name", list(CASES))
def test_the_harness_counts_the_same_whole_numbers(name: str) -> None:
    found = compared(CASES[name])
    assert {metric: theirs for metric, (theirs, _) in found.whole_numbers.items()} == {
        metric: ours for metric, (_, ours) in found.whole_numbers.items()
    }
    operations = {"Effective Neuron Ops", "Neuron Dense Ops"}
    expected = {*NUMBERS} - (set() if CASES[name].operations_of_neurons else operations)
    assert found.whole_numbers.keys() == expected
    theirs, metrics, counted = found.theirs, found.ours.metrics, found.ours.counted
    assert counted["Effective_ACs"] > 1000
    only_spikes = ("dense", "pruned and recurrent", "every neuron and reset")
    assert (counted["Effective_MACs"] > 100) == (name not in only_spikes)
    # The harness divides whole numbers by the number of samples, as we do.
    for metric in ("SynapticOperations", "MembraneUpdates", "ConnectionSparsity"):
        assert theirs[metric] == metrics[metric], metric
    assert theirs.get("NeuronOperations") == metrics.get("NeuronOperations")
    by_layer = metrics["ActivationSparsityByLayer"]
    assert list(theirs["ActivationSparsityByLayer"].values()) == pytest.approx(list(by_layer.values()), abs=1e-12)


def test_the_command_prints_both_and_finds_no_difference(capsys: pytest.CaptureFixture[str]) -> None:
    compared(CASES["dense"])  # or the test is skipped
    assert main() == 0
    printed = capsys.readouterr().out
    table = printed.partition("\n\n")[0]
    assert len(table.splitlines()) == 2 + len(CASES)  # a case has two rows where a number differs


NETWORK = votes("ab", 2, "spikes")  # a weight of each neuron is 0


def arrays(path: Path, labels: list[int]) -> Path:
    """Write three test samples, whose first input fires at both steps, their second at both, and none."""
    x = np.array([[[1, 0], [1, 0]], [[0, 1], [0, 1]], [[0, 0], [0, 0]]], np.float32)
    y_train = np.array([0, 1, 0] * 4)
    np.savez(path / "data.npz", x_test=x, y_test=np.array(labels), x_train=x.repeat(4, 0), y_train=y_train)
    return path / "data.npz"


def test_what_is_written_is_worked_out_by_hand(tmp_path: Path) -> None:
    publish(tmp_path, NETWORK)
    file = arrays(tmp_path, [0, 1, 1])
    words = ["report", str(tmp_path / "toy" / "1"), "--data", str(file)]
    outcome = CliRunner().invoke(app, [*words, "--output", str(tmp_path / "out.json")], catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    written = json.loads((tmp_path / "out.json").read_text())
    assert (written["model"], written["version"], written["engine"], written["samples"]) == ("toy", 1, "event", 3)
    # Four of the twelve outputs fire, and each was met by one weight that is not 0. The third sample is no spikes: its
    # class is the first, and so wrong. All six membranes count in the first step, and none is changed later, since a
    # neuron that fires is reset to 0.
    assert written["counted"] == {
        "samples": 3,
        "Effective_MACs": 0,
        "Effective_ACs": 4,
        "Dense": 3 * 2 * 4,
        "MembraneUpdates": 6,
        "activations": 12,
        "activations_not_0": 4,
        "right": 2,
    }
    assert ACCURACY_VARIES in " ".join(outcome.output.split())
    assert "NeuronOperations" not in written["NeuroBench"]  # the harness has no number for an IF
    assert written["notes"]["NeuronOperations"].endswith("like that of these nodes: out")
    assert written["NeuroBench"]["ActivationSparsityByLayer"] == {"out": pytest.approx(8 / 12)}
    assert written["NeuroBench"]["ClassificationAccuracy"] == pytest.approx(2 / 3)
    assert written["synaptic_operations"]["per_sample"] == pytest.approx(8 / 3)  # both weights of each input that fired


def test_the_parts_in_which_samples_are_run_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    split = Split(np.random.default_rng(0).integers(0, 2, (9, 2, 2)).astype(np.float32), np.zeros(9, np.int64))
    engine = create("reference", NETWORK)
    whole = measure(Complexity(NETWORK), engine, split)
    monkeypatch.setattr("spikeserve.plugins.report.complexity.complexity.GROUP_BYTES", 1)
    assert measure(Complexity(NETWORK), engine, split).counted == whole.counted


def test_data_of_other_samples_is_refused_by_a_sentence(tmp_path: Path) -> None:
    publish(tmp_path, NETWORK)
    with pytest.raises(
        InvalidData, match=r"dataset 'digits': has 10 classes and samples of shape .*, but model 'toy' has"
    ):
        CliRunner().invoke(app, ["report", str(tmp_path / "toy" / "1"), "--data", "digits"], catch_exceptions=False)
