"""Dropout: spikes are dropped as often as is set, and each batch and layer has draws of its own."""

import pytest
import torch
from torch import Tensor

from spikeserve.models.engines.torch.operations import HardThreshold
from spikeserve.models.spec.nodes import IF
from spikeserve.training.fit.architecture import NodeTraining
from spikeserve.training.fit.batch_norm import WholeBatch
from spikeserve.training.fit.layers import Neurons
from spikeserve.training.fit.operators import dense

STEPS, BATCH, SIZE = 4, 6, 500


def kept(layer: Neurons, steps: int, whole: WholeBatch | None) -> Tensor:
    """Run a layer in which every neuron fires at each step, and give its output after dropout, (steps, rows, SIZE)."""
    rows = BATCH if whole is None else len(range(*whole.rows.indices(whole.size)))
    leaving, passed = layer(torch.ones(steps, rows, SIZE), steps, HardThreshold(), whole)
    assert (dense(leaving) == 1).all()  # of which firing rates are
    return dense(passed)


def dropping(name: str = "neuron1") -> Neurons:
    return Neurons(IF(name=name), (SIZE,), NodeTraining(dropout=0.2))


def whole(seed: int = 7, rows: slice = slice(0, BATCH)) -> WholeBatch:
    return WholeBatch(seed, BATCH, rows)


@pytest.mark.parametrize("batch", [whole(), None])
def test_a_fifth_of_the_spikes_is_dropped_and_the_others_make_up_for_it(batch: WholeBatch | None) -> None:
    passed = kept(dropping(), STEPS, batch)
    assert set(passed.ravel().tolist()) == {0, 1.25}
    assert float((passed == 0).float().mean()) == pytest.approx(0.2, abs=0.02)


def test_none_is_dropped_where_the_layer_is_not_trained() -> None:
    assert (kept(dropping().eval(), STEPS, whole()) == 1).all()


def test_a_seed_gives_the_same_draws_and_each_layer_has_its_own() -> None:
    first = kept(dropping(), STEPS, whole())
    assert torch.equal(first, kept(dropping(), STEPS, whole()))
    assert not torch.equal(first, kept(dropping("neuron2"), STEPS, whole()))
    assert not torch.equal(first, kept(dropping(), STEPS, whole(seed=8)))


def test_a_process_that_runs_some_rows_drops_what_is_dropped_of_them_in_the_whole_batch() -> None:
    part = kept(dropping(), STEPS, whole(rows=slice(2, 5)))
    assert torch.equal(part, kept(dropping(), STEPS, whole())[:, 2:5])
