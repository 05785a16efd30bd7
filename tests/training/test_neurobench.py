"""The metrics of NeuroBench's own harness, and ours, of networks that run the same samples: equal whole numbers."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest

from benchmarks.neurobench import CASES, NUMBERS, Case, Compared, compare, main
from tests.training.test_peers import peer


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


def test_the_harness_has_no_number_of_operations_for_a_recurrent_neuron_and_we_give_none() -> None:
    # It has a number for each of the network's neurons but RLeaky, and then answers 0 for all of them.
    case = replace(CASES["pruned and recurrent"], operations_of_neurons=True)
    with_operations = compared(case)
    assert with_operations.theirs["NeuronOperations"] == 0
    ours = with_operations.ours
    assert "NeuronOperations" not in ours.metrics
    assert "Effective Neuron Ops" not in ours.counted
    recurrent = ours.complexity.network.spec.nodes[1].name
    assert ours.notes["NeuronOperations"].endswith(f"like that of these nodes: {recurrent}")


def test_the_command_prints_both_and_finds_no_difference(capsys: pytest.CaptureFixture[str]) -> None:
    compared(CASES["dense"])  # or the test is skipped
    assert main() == 0
    printed = capsys.readouterr().out
    table = printed.partition("\n\n")[0]
    assert len(table.splitlines()) == 2 + len(CASES)  # a case has two rows where a number differs
