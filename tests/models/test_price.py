"""What loading takes is reckoned before anything is made: numbers worked out by hand, and bundles that ask too much."""

import json
import math
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spikeserve.models.bundle import Bundle
from spikeserve.models.errors import InvalidBundle, InvalidSpec
from spikeserve.models.spec import Spec
from spikeserve.models.spec.neuron_parameters import ROWS
from spikeserve.models.spec.price import LoadLimits, Price
from tests.bundles import publish, rewrite
from tests.hostile_bundles.specs import HugeSpec, huge_specs
from tests.networks import node_of, toy

MAX_ALLOCATED = 2**22  # bytes that a refusal may allocate: a spec's own, and nothing of what it calls for


def spec_of(nodes: list[dict[str, Any]], shape: list[int], labels: int = 1, **fields: Any) -> Spec:
    named = [str(label) for label in range(labels)]
    return Spec.read({"input": {"shape": shape}, "time_steps": 4, "labels": named, "nodes": nodes, **fields})


def test_a_small_network_costs_what_is_worked_out_by_hand() -> None:
    nodes = [
        {"type": "Linear", "name": "fc", "in_features": 3, "out_features": 2},
        {"type": "LIF", "name": "out", "decay": 0.5},
    ]
    price = Price.of(spec_of(nodes, [3], 2))
    arrives, fc, out = price.nodes
    # 3 inputs: a place of 32 bytes and a signal of 12 for each.
    assert (arrives.tables, arrives.per_step, arrives.running) == (96, 36, 0)
    # 6 weights and 2 biases of 16 bytes, 2 outputs of 32; 6 products and 2 outputs at each step.
    assert (fc.tables, fc.per_step, fc.making, fc.running) == (8 * 16 + 2 * 32, 24, 8, 8)
    # 2 neurons: five bytes for each possible parameter, a place, and a membrane that is carried.
    assert (out.tables, out.carried, out.running) == (2 * (5 * len(ROWS) + 32), 8, 2)
    # Four steps of 36 + 24 + 24 bytes, and for each of three samples 8 bytes.
    total = sum(price.bytes_of(node, samples=3) for node in price.nodes)
    assert total == arrives.tables + fc.tables + out.tables + 4 * 84 + 3 * 8
    # Making: 8 weights. Running: 12 sample-steps of 8 + 2 operations.
    assert sum(price.operations_of(node, samples=3) for node in price.nodes) == 8 + 12 * 10


def test_weights_of_few_bits_cost_what_they_do_multiplied_out_but_a_byte_in_the_file_and_in_the_table() -> None:
    nodes = [{"type": "Linear", "name": "fc", "in_features": 2**20, "out_features": 2**14, "weight_bits": 4}]
    few = spec_of(nodes, [2**20], 2**14, readout="mean")
    narrow, wide = (Price.of(each).nodes[1] for each in (few, few.with_weight_bits({})))
    assert narrow == replace(wide, tables=wide.tables - 2 * 3 * 2**34)
    with pytest.raises(InvalidSpec, match=r"node 'fc': with its .* parameters it takes 1718\d+ of the"):
        Price.of(few).check(LoadLimits())


def program(*lines: str, states: dict[str, Any], **parameters: Any) -> dict[str, Any]:
    text = {"states": states, "step": lines, "spikes": "s"}
    return {"type": "Neuron", "name": "out", "program": text, "parameters": parameters}


def test_a_program_costs_its_states_its_parameters_and_its_operations() -> None:
    lines = ["w = w + a * current", "s = fire(v + w, h)", "v = current - s"]
    node = program(*lines, states={"v": 0.0, "w": 0.0}, a=1.0, h="per_neuron")
    _, out = Price.of(spec_of([node], [3], 3)).nodes
    # 3 neurons of two states, and of two parameters of 5 bytes, beside a place of 32 and three thresholds of 16.
    assert (out.carried, out.tables) == (3 * 2 * 4, 3 * (2 * 5 + 32 + 16))
    # + * + fire - of each neuron, and what leaves it.
    assert out.running == 3 * 5 + 3


def test_a_long_program_over_a_wide_layer_is_refused_by_its_operations() -> None:
    # 127 lines of two operations, fire, and a difference: as many operations as a program may have.
    lines = ["x0 = 0.5 * v + current", *(f"x{k} = 0.5 * x{k - 1} + current" for k in range(1, 127))]
    node = program(*lines, "s = fire(x126, 1)", "v = x126 - s", states={"v": 0.0})
    price = Price.of(spec_of([node], [10_000], 10_000))
    # Four steps of 10,000 neurons.
    taken = 4 * 10_000 * (256 + 1)
    price.check(LoadLimits(operations=taken))
    why = "^node 'out': with its input of 10000 and output of 10000 and the 256 operations of its program it takes"
    with pytest.raises(InvalidSpec, match=rf"{why} {taken} of .* at most {taken - 1} in all \(the limit of a load\)$"):
        price.check(LoadLimits(operations=taken - 1))


IF: dict[str, Any] = {"type": "IF", "name": "out"}
CONV: dict[str, Any] = {"type": "Conv2d", "name": "conv", "in_channels": 2, "out_channels": 3, "padding": 1}
UP: dict[str, Any] = CONV | {"type": "ConvTranspose2d", "kernel_size": [2, 3]}
POOL: dict[str, Any] = {"type": "AvgPool2d", "name": "pool", "kernel_size": 2}
LATE: dict[str, Any] = {"type": "Delay", "name": "late", "delay": "per_neuron"}
SHORTCUT: list[dict[str, Any]] = [LATE, IF | {"inputs": ["late", "input", "late"]}]
COSTS: list[tuple[list[dict[str, Any]], list[int], int, dict[str, int]]] = [
    # 9 weights and 3 biases of 16 bytes beside three neurons; 9 products and 3 outputs at each step.
    ([IF | {"recurrent": {"bias": True}}], [3], 1, {"making": 12, "running": 9 + 3}),
    ([IF | {"recurrent": {"bias": True}}], [3], 1, {"tables": 12 * 16 + 3 * (5 * len(ROWS) + 32)}),
    # 48 outputs of 9 taps and 2 channels, and the outputs themselves; an output's signal, and an input of 2 channels of
    # 6 by 6 as floats; 57 parameters, 48 outputs and 32 inputs; on each of 4 rows 3 taps of 4 outputs are listed;
    # and a ring of 3 + 1 lines of 4 + 2 * 3 columns, with 16 sums of 8 bytes each.
    ([CONV | {"kernel_size": 3}, IF], [2, 4, 4], 1, {"running": 48 * 18 + 48, "per_step": 48 * 12 + 2 * 36 * 4}),
    ([CONV | {"kernel_size": 3}, IF], [2, 4, 4], 1, {"tables": 57 * 16 + 80 * 32 + 48 * 64 + 40 * 128}),
    # Each of 4 windows covers 4 positions, for 3 channels, and each of the 48 inputs counts for one window.
    ([POOL, IF], [3, 4, 4], 1, {"running": 3 * 16 + 12, "tables": 12 * 32 + 16 * 64 + 48 * 4}),
    # 40 inputs, each of which goes to 6 taps of 3 channels; 45 outputs of 3 by 5, and 3 channels of 5 by 7 with what
    # the padding takes away; 39 parameters, and the interpreter lists 4 rows by 2 taps and 5 columns by 3.
    ([UP, IF], [2, 4, 5], 1, {"running": 40 * 18 + 45, "per_step": 45 * 12 + 3 * 5 * 7 * 4}),
    ([UP, IF], [2, 4, 5], 1, {"making": 39 + 100 * (4 * 2 + 5 * 3)}),
    # The longest delay for each sample, and of each of two edges more a sum.
    (SHORTCUT, [5], 1, {"carried": 5 * 7 * 4}),
    (SHORTCUT, [5], 2, {"running": 5 + 2 * 5}),
]


@pytest.mark.parametrize(("nodes", "shape", "place", "expected"), COSTS)
def test_a_node_costs_what_is_worked_out_by_hand(
    nodes: list[dict[str, Any]], shape: list[int], place: int, expected: dict[str, int]
) -> None:
    outputs: tuple[int, ...] = tuple(shape)
    for node in nodes:
        outputs = node_of(node).output_shape(outputs)
    cost = Price.of(spec_of(nodes, shape, math.prod(outputs)), {"late": 7}).nodes[place]
    assert {name: getattr(cost, name) for name in expected} == expected


def test_the_price_of_taps_is_one_line_of_inputs_and_an_output_for_each_tap() -> None:
    few, many = (
        Price.of(
            spec_of([{"type": "Delay", "name": "seen", "taps": taps}], [10], 10 * len(taps), readout="mean")
        ).nodes[1]
        for taps in ([9], [*range(10)])
    )
    assert few.carried == many.carried == 4 * 9 * 10
    assert (many.per_step, many.running) == (10 * few.per_step, 10 * few.running)


@pytest.mark.parametrize("attack", huge_specs(), ids=lambda attack: str(attack[0]))
def test_a_bundle_that_asks_for_too_much_is_refused_before_it_is_made(tmp_path: Path, attack: HugeSpec) -> None:
    _, spec, sentence = attack
    publish(tmp_path, toy())
    folder = tmp_path / "toy" / "1"
    rewrite(folder, lambda manifest: manifest.update(spec=spec))
    size = len((folder / "bundle.json").read_bytes())
    tracemalloc.start()
    try:
        with pytest.raises(InvalidBundle) as refused:
            Bundle.read(folder)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400
    assert peak < MAX_ALLOCATED + 12 * size


def test_golden_samples_cost_their_steps_and_the_limits_are_the_callers() -> None:
    nodes = [{"type": "IF", "name": "out"}]
    price = Price.of(spec_of(nodes, [10], 10))
    # Making is nothing; ten neurons for four steps of each of 100 samples are 4000 operations.
    price.check(LoadLimits(operations=4000), samples=100)
    with pytest.raises(InvalidSpec, match=r"takes 4040 of the 4040 operations .* at most 4000 in all"):
        price.check(LoadLimits(operations=4000), samples=101)
    # 10 inputs and neurons: places, parameters, signals of four steps, and one sample's membranes.
    most = 20 * 32 + 10 * 5 * len(ROWS) + 4 * 20 * 12 + 10 * 4
    price.check(LoadLimits(model_bytes=most))
    with pytest.raises(InvalidSpec, match=rf"of the {most} bytes of memory .* at most {most - 1} in all"):
        price.check(LoadLimits(model_bytes=most - 1))


def test_a_bundle_is_priced_with_all_of_its_golden_samples(tmp_path: Path) -> None:
    publish(tmp_path, toy())  # with three
    price = Price.of(toy().spec)
    one, three = (sum(price.operations_of(node, samples) for node in price.nodes) for samples in (1, 3))
    assert Bundle.read(tmp_path / "toy/1", LoadLimits(operations=three)).golden.inputs.batch == 3
    with pytest.raises(InvalidBundle, match=rf"of the {three} operations .* at most {one} in all"):
        Bundle.read(tmp_path / "toy/1", LoadLimits(operations=one))


def test_a_network_that_people_use_is_far_below_the_default_limits() -> None:
    # One like DVSGestureNet, with 128 channels at 128×128.
    gesture: list[Any] = []
    for layer in range(5):
        conv = {"type": "Conv2d", "name": f"conv{layer}", "out_channels": 128, "kernel_size": 3, "padding": 1}
        gesture.append(conv | {"in_channels": 128 if layer else 2})
        gesture.append({"type": "LIF", "name": f"lif{layer}", "decay": 0.5})
        gesture.append({"type": "MaxPool2d", "name": f"pool{layer}", "kernel_size": 2})
    gesture += [
        {"type": "Flatten", "name": "flat"},
        {"type": "Linear", "name": "fc1", "in_features": 2048, "out_features": 512},
        {"type": "LIF", "name": "hidden", "decay": 0.5},
        {"type": "Linear", "name": "fc2", "in_features": 512, "out_features": 110},
        {"type": "LIF", "name": "out", "decay": 0.5},
    ]
    price, limits = Price.of(spec_of(gesture, [2, 128, 128], 110, time_steps=20, coding="spikes")), LoadLimits()
    assert sum(price.bytes_of(node, 8) for node in price.nodes) < limits.model_bytes / 2
    assert sum(price.operations_of(node, 8) for node in price.nodes) < limits.operations / 4


def test_the_limits_are_written_into_no_sentence_as_text_of_its_own() -> None:
    # A spec whose numbers are long is refused by a short sentence.
    nodes = [{"type": "Conv1d", "name": "conv", "in_channels": 1, "out_channels": 1, "kernel_size": 1, "padding": 1}]
    nodes[0]["padding"] = 10**40
    with pytest.raises(InvalidSpec) as refused:
        Spec.read(json.dumps({"input": {"shape": [1, 1]}, "time_steps": 1, "labels": ["a"], "nodes": nodes}))
    assert "padding" in str(refused.value)
    assert len(str(refused.value)) < 300
