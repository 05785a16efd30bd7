"""How much a network is run before it is published: numbers worked out by hand, and networks that ask for too much."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from typing_extensions import override

from spikeserve.models.coding import Inputs
from spikeserve.models.engines import EngineName, RunResult
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.engines.state import State
from spikeserve.models.spec import Spec
from spikeserve.models.spec.network import Network
from spikeserve.training.data.dataset import Split
from spikeserve.training.errors import ExportRefused
from spikeserve.training.publish.golden import AT_ONCE, CANDIDATES, Effort
from spikeserve.training.report.evaluate import evaluate
from spikeserve.training.report.parity import compare_engines

LINEAR: dict[str, Any] = {"type": "Linear", "name": "fc", "in_features": 2, "out_features": 2}
LIF: dict[str, Any] = {"type": "LIF", "name": "lif", "decay": 0.5}


def spec_of(time_steps: int, nodes: list[dict[str, Any]], width: int = 2) -> Spec:
    labels = [str(label) for label in range(width)]
    return Spec.read(
        {"input": {"shape": [width]}, "coding": "spikes", "time_steps": time_steps, "labels": labels, "nodes": nodes}
    )


def test_a_small_network_is_tried_on_all_candidates() -> None:
    assert Effort.of(spec_of(100, [LINEAR, LIF])) == Effort(AT_ONCE, CANDIDATES)


def test_fewer_samples_are_tried_where_each_has_many_steps() -> None:
    # Per step: 4 stepped runs of 25,000 for one layer, and for each of 16 samples 10 runs of 6 + 2 operations (4
    # weights and 2 outputs, and 2 neurons): 101,280. For 100,000 steps that is 1.01e10, of which 5e10 holds four: all
    # 64 samples.
    assert Effort.of(spec_of(100_000, [LINEAR, LIF])) == Effort(16, 64)
    # Three layers make it 3.01e10: one batch is enough.
    layers = [LINEAR, LIF, {**LIF, "name": "b"}, {**LIF, "name": "c"}]
    assert Effort.of(spec_of(100_000, layers)) == Effort(16, 16)


def test_fewer_samples_run_at_once_where_each_is_large() -> None:
    # 12 bytes of each of 100,000 inputs and neurons for 1000 steps are 2.4e9 bytes of a sample: more than 2**30.
    assert Effort.of(spec_of(1000, [LIF], 100_000)).at_once == 1
    # For 100 steps 2.4e8, of which four fit.
    assert Effort.of(spec_of(100, [LIF], 100_000)).at_once == 4


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
    compare_engines(network, {EngineName.REFERENCE: Seen(network)}, split)
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
