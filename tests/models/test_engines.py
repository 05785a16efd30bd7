"""Every engine on small networks that were worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from spikeserve.models.coding import DenseInputs, encode
from spikeserve.models.engines import EngineName, create
from spikeserve.models.spec.network import Network
from tests.networks import network_of, toy
from tests.same import EVERYTHING, assert_same


@pytest.mark.parametrize("engine", list(EngineName))
def test_two_lif_neurons_step_as_worked_out_by_hand(engine: EngineName) -> None:
    # decay 0.5, threshold 1, input 0.75: charges 0.75, then 0.375 + 0.75 = 1.125 (spike, 0.125 left), then
    # 0.0625 + 0.75 = 0.8125. Input 1.0: fires at once (at_threshold), leaves 0, and so at each step.
    network = toy()
    result, _ = create(engine, network).run(
        encode(np.array([[0.75, 1.0]], np.float32), network.spec), record=EVERYTHING
    )
    assert result.rasters["out"][:, 0].tolist() == [[0, 1], [1, 1], [0, 1]]
    assert result.membranes["out"][:, 0].tolist() == [[0.75, 0.0], [0.125, 0.0], [0.8125, 0.0]]
    assert result.spike_counts.tolist() == [[1, 3]]
    assert result.class_index.tolist() == [1]
    # The direct current meets its 2 × 2 weights once, since it is the same at every step.
    np.testing.assert_array_equal(result.synaptic_operations, [4])
    assert result.spikes_per_node["out"].tolist() == [4]


@pytest.mark.parametrize("engine", list(EngineName))
@pytest.mark.parametrize(
    ("fields", "membrane", "spikes"),
    [
        # one IF neuron, threshold 1, a current of 0.5 at each of four steps
        ({}, [0.5, 0.0, 0.5, 0.0], [0, 1, 0, 1]),
        ({"fire": "above_threshold"}, [0.5, 1.0, 0.5, 1.0], [0, 0, 1, 0]),
        ({"reset": "value", "reset_value": -0.5}, [0.5, -0.5, 0.0, 0.5], [0, 1, 0, 0]),
        ({"reset": "none"}, [0.5, 1.0, 1.5, 2.0], [0, 1, 1, 1]),
        ({"start": 0.75}, [0.25, 0.75, 0.25, 0.75], [1, 0, 1, 0]),
        # charges 2 * 0.5 + 0.25 = 1.25 (spike, 0.25), 1.5 (0.5), 1.75 (0.75), 2.0 (one spike a step: 1.0 stays)
        ({"gain": 2.0, "drive": 0.25}, [0.25, 0.5, 0.75, 1.0], [1, 1, 1, 1]),
        ({"threshold": 0.75, "gain": 0.5}, [0.25, 0.5, 0.0, 0.25], [0, 0, 1, 0]),
    ],
)
def test_each_field_does_what_its_equation_says(
    engine: EngineName, fields: dict[str, object], membrane: list[float], spikes: list[int]
) -> None:
    network = network_of(
        [{"type": "IF", "name": "out"} | fields],
        {},
        input={"shape": [1]},
        time_steps=4,
        labels=["only"],
    )
    result, _ = create(engine, network).run(encode(np.array([[0.5]], np.float32), network.spec), record=EVERYTHING)
    assert result.membranes["out"][:, 0, 0].tolist() == membrane
    assert result.rasters["out"][:, 0, 0].tolist() == spikes


@pytest.mark.parametrize("engine", list(EngineName))
def test_a_recurrent_layer_hears_its_spikes_one_step_later_and_its_bias_from_step_0(engine: EngineName) -> None:
    # Neuron a gets 1 from outside at step 0 only and fires; b hears it with weight 1 at step 1 and fires; a hears b
    # with weight 0.5 at step 2. The recurrent bias 0.25 charges both from step 0 on.
    network = network_of(
        [{"type": "IF", "name": "out", "recurrent": {"bias": True}, "reset": "value"}],
        {"out.recurrent.weight": [[0, 0.5], [1, 0]], "out.recurrent.bias": [0.25, 0.25]},
        input={"shape": [2]},
        coding="spikes",
        time_steps=3,
        labels=["a", "b"],
    )
    raster = np.array([[[1, 0], [0, 0], [0, 0]]], np.float32)
    result, _ = create(engine, network).run(encode(raster, network.spec), record=EVERYTHING)
    assert result.rasters["out"][:, 0].tolist() == [[1, 0], [0, 1], [1, 0]]
    assert result.membranes["out"][:, 0].tolist() == [[0.0, 0.25], [0.25, 0.0], [0.0, 0.25]]
    # Two spikes come back (a's at step 0, b's at step 1; a's at step 2 has no step after it), two weights each.
    np.testing.assert_array_equal(result.synaptic_operations, [4])


@pytest.mark.parametrize("engine", list(EngineName))
def test_a_convolution_counts_fewer_operations_at_its_border(engine: EngineName) -> None:
    # 3×3 kernel, padding 1, 2 channels out, on 3×3: a corner lies under 4 windows, an edge under 6, the centre under 9.
    network = network_of(
        [
            {"type": "Conv2d", "name": "conv", "in_channels": 1, "out_channels": 2, "kernel_size": 3, "padding": 1},
            {"type": "IF", "name": "hidden", "threshold": 100},
            {"type": "Flatten", "name": "flat"},
            {"type": "Linear", "name": "fc", "in_features": 18, "out_features": 1},
            {"type": "IF", "name": "out"},
        ],
        {
            "conv.weight": np.ones((2, 1, 3, 3)),
            "conv.bias": [0, 0],
            "fc.weight": np.ones((1, 18)),
            "fc.bias": [0],
        },
        input={"shape": [1, 3, 3]},
        coding="spikes",
        time_steps=1,
        labels=["only"],
    )
    images = np.zeros((3, 1, 1, 3, 3), np.float32)
    images[0, 0, 0, 0, 0] = images[1, 0, 0, 0, 1] = images[2, 0, 0, 1, 1] = 1
    result, _ = create(engine, network).run(encode(images, network.spec))
    np.testing.assert_array_equal(result.synaptic_operations, [8, 12, 18])


@pytest.mark.parametrize("engine", list(EngineName))
def test_ties_go_to_the_lowest_index(engine: EngineName) -> None:
    network = toy()
    result, _ = create(engine, network).run(encode(np.array([[0, 0], [1, 1]], np.float32), network.spec))
    assert result.class_index.tolist() == [0, 0]


@pytest.mark.parametrize("engine", list(EngineName))
def test_a_run_starts_from_rest_whatever_ran_before(engine: EngineName, digits_like: Network) -> None:
    rng = np.random.default_rng(0)
    runner = create(engine, digits_like)
    quiet = encode(rng.random((3, 64), np.float32), digits_like.spec)
    alone, _ = runner.run(quiet, record=EVERYTHING)
    for batch in (1, 64, 7):
        runner.run(encode(np.ones((batch, 64), np.float32), digits_like.spec))
        assert_same(runner.run(quiet, record=EVERYTHING)[0], alone)


def test_one_step_stands_for_all_only_where_it_is_one_or_all() -> None:
    with pytest.raises(ValueError, match=r"shape is 2×1×4, expected 1 or 3 steps"):
        DenseInputs(np.zeros((2, 1, 4), np.float32), 3)
