"""A graph of others is given one sample at a time, unless it promises to keep them apart, which is tried at load."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from spikeserve.models.bundle.dry_run import verify
from spikeserve.models.coding import encode
from spikeserve.models.engines.onnx.external import ContractEngine
from spikeserve.models.errors import InvalidBundle
from spikeserve.models.spec.onnx_contract import OnnxContract
from tests.external import contract, of_spikes, scores, spikes
from tests.mixing import TAILS, close_only, mixing

PROMISED = contract(independent_rows=True)
SAMPLES = np.array([[0.25, 1.0], [0.5, 0.0], [0.0, 0.0], [1.0, 1.0], [0.125, 0.75]], np.float32)


def verified(model: Any, said: OnnxContract) -> ContractEngine:
    engine = ContractEngine(said, model.SerializeToString())
    verify(said, engine)
    return engine


def test_a_contract_promises_nothing_unless_it_says_so() -> None:
    fields = contract().model_dump(mode="json")
    del fields["independent_rows"]  # as in the bundles that were made before there was the field
    assert not OnnxContract.of(fields).independent_rows


@pytest.mark.parametrize("tail", TAILS)
def test_without_the_promise_no_sample_meets_another(tail: str) -> None:
    engine = verified(mixing(tail), contract())
    inputs = encode(SAMPLES, contract())
    together, _ = engine.run(inputs)
    alone = [engine.run(inputs[index : index + 1])[0].readout[0] for index in range(len(SAMPLES))]
    np.testing.assert_array_equal(together.readout, alone)


@pytest.mark.parametrize("tail", TAILS)
def test_a_false_promise_is_found_at_load(tail: str) -> None:
    with pytest.raises(InvalidBundle, match=r"for a sample alone and .* in a batch of \d+, but the contract says ind"):
        verified(mixing(tail), PROMISED)


@pytest.mark.parametrize("axis", [0, 1])
def test_what_keeps_its_promise_is_batched(axis: int) -> None:
    assert verified(scores(), PROMISED).batch_sizes == (1, 2, 4, 8, 16, 32, 64)
    said = of_spikes(independent_rows=True, input_layout=["batch_time", "time_batch"][axis])
    assert max(verified(spikes(axis=axis), said).batch_sizes) == 64


def test_scores_that_are_merely_close_are_not_batched() -> None:
    # Each other sample of a batch adds a millionth, well within the tolerance; the answer would still depend on it.
    assert verified(close_only(), PROMISED).batch_sizes == (1,)


def test_a_graph_of_one_sample_at_a_time_stays_so() -> None:
    assert verified(scores(batch=1), PROMISED).batch_sizes == (1,)


def test_the_graph_meets_no_batch_of_a_size_that_was_not_tried() -> None:
    # Scores of 9 for every sample of a batch of 7: it would be run as 4, 2 and 1.
    model = scores()
    model.graph.node[0].output[0] = "own"
    model.graph.node.extend(
        [
            helper.make_node("Shape", ["own"], ["size"], start=0, end=1),
            helper.make_node("Equal", ["size", "seven"], ["odd"]),
            helper.make_node("Where", ["odd", "nine", "own"], ["scores"]),
        ]
    )
    for name, value in (("seven", np.array([7], np.int64)), ("nine", np.float32(9))):
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    engine = verified(model, PROMISED)
    result, _ = engine.run(encode(np.full((7, 2), 0.5, np.float32), PROMISED))
    assert result.readout.tolist() == [[0.5, 0.5, 0.5]] * 7


def test_batches_that_are_large_or_slow_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two values at each of four steps: four samples have 32.
    monkeypatch.setattr("spikeserve.models.bundle.dry_run.MAX_BATCH_VALUES", 32)
    assert verified(scores(), PROMISED).batch_sizes == (1, 2, 4)
    monkeypatch.setattr("spikeserve.models.bundle.dry_run.LONG_SECONDS", 0.0)
    assert verified(scores(), PROMISED).batch_sizes == (1,)


def test_a_sample_without_an_answer_breaks_no_promise() -> None:
    # 1 / (scores - 1): not finite at the range's high end, which is left out of the batches.
    model = scores()
    model.graph.node[0].output[0] = "own"
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1), "one"))
    model.graph.node.append(helper.make_node("Sub", ["own", "one"], ["less"]))
    model.graph.node.append(helper.make_node("Reciprocal", ["less"], ["scores"]))
    assert max(verified(model, PROMISED).batch_sizes) == 64


@pytest.mark.parametrize("outputs", [["scores", "mean", "variance"], ["scores", "", "variance"]])
def test_a_batch_normalisation_in_training_mode_is_refused(outputs: list[str]) -> None:
    # ONNX Runtime keeps its mean and variance from run to run, and so from client to client.
    model = scores()
    model.graph.node[0].output[0] = "own"
    inputs = ["own", "ones", "nil", "nil", "ones"]
    model.graph.node.append(helper.make_node("BatchNormalization", inputs, outputs, training_mode=1))
    for name, value in (("ones", 1), ("nil", 0)):
        model.graph.initializer.append(numpy_helper.from_array(np.full(3, value, np.float32), name))
    with pytest.raises(InvalidBundle, match="has a BatchNormalization with 3 outputs, which is in training mode"):
        verified(model, contract())


def test_a_graph_that_differs_from_run_to_run_by_a_bit_is_refused() -> None:
    model = scores()
    model.graph.node[0].output[0] = "own"
    model.graph.node.append(
        helper.make_node("RandomUniformLike", ["own"], ["noise"], high=1e-5, dtype=TensorProto.FLOAT)
    )
    model.graph.node.append(helper.make_node("Add", ["own", "noise"], ["scores"]))
    with pytest.raises(InvalidBundle, match="for the same sample twice in a row"):
        verified(model, contract())
