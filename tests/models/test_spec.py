"""The spec: what loads can run, and what cannot is refused by name with both values."""

import re
from copy import deepcopy
from typing import Any

import numpy as np
import pytest

from spikeserve.models.errors import InvalidSpec
from spikeserve.models.spec import Scores, Spec
from spikeserve.models.spec.network import Network
from tests.networks import toy

STACK: dict[str, Any] = {
    "input": {"shape": [2, 6, 6]},
    "time_steps": 4,
    "labels": ["a", "b", "c"],
    "nodes": [
        {"type": "Conv2d", "name": "conv", "in_channels": 2, "out_channels": 4, "kernel_size": 3, "padding": 1},
        {"type": "LIF", "name": "lif", "decay": 0.5},
        {"type": "MaxPool2d", "name": "pool", "kernel_size": 2},
        {"type": "Flatten", "name": "flat"},
        {"type": "Linear", "name": "fc", "in_features": 36, "out_features": 3},
        {"type": "IF", "name": "out"},
    ],
}


def changed(node: str | None = None, **fields: Any) -> dict[str, Any]:
    spec = deepcopy(STACK)
    if node is None:
        return spec | fields
    target = next(entry for entry in spec["nodes"] if entry["name"] == node)
    target.update(fields)
    return spec


def test_a_plain_stack_reads_as_a_stack_and_knows_its_shapes() -> None:
    spec = Spec.read(STACK)
    assert spec.sources["pool"] == ("lif",)
    assert spec.output_shapes == {
        "input": (2, 6, 6), "conv": (4, 6, 6), "lif": (4, 6, 6), "pool": (4, 3, 3), "flat": (36,), "fc": (3,),
        "out": (3,),
    }  # fmt: skip
    assert spec.tensor_shapes == {"conv.weight": (4, 2, 3, 3), "conv.bias": (4,), "fc.weight": (3, 36), "fc.bias": (3,)}


def test_per_neuron_parameters_and_recurrence_ask_for_tensors() -> None:
    spec = Spec.read(changed("lif", decay="per_neuron", threshold="per_neuron", recurrent={"bias": True}))
    assert spec.tensor_shapes["lif.decay"] == (4, 6, 6)
    assert spec.tensor_shapes["lif.threshold"] == (4, 6, 6)
    assert spec.tensor_shapes["lif.recurrent.weight"] == (144, 144)
    assert spec.tensor_shapes["lif.recurrent.bias"] == (144,)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (changed("conv", in_channels=3), "node 'conv': in_channels is 3, but its input has shape 2×6×6"),
        (changed("conv", kernel_size=9), "node 'conv': a kernel of 9×9 does not fit into an input of 2×6×6"),
        (changed("conv", groups=3), "node 'conv': groups is 3, which must divide in_channels 2 and out_channels 4"),
        (changed("pool", padding=2), "node 'pool': padding is 2×2, expected at most half of the kernel's 2×2"),
        (changed("fc", in_features=35), "node 'fc': in_features is 35, but its input has shape 36"),
        (changed("fc", out_features=4), "node 'out': its output has shape 4, but there are 3 labels"),
        (changed("fc", inputs=["nobody"]), "node 'fc': input 'nobody' is not the name of an earlier node"),
        (changed("fc", inputs=["out"]), "node 'fc': input 'out' is not the name of an earlier node"),
        (changed("flat", inputs=["conv"]), "node 'pool': nothing takes its output, and it is not the last node"),
        (changed("out", inputs=["fc", "flat"]), "inputs 'fc' and 'flat' are summed, but have shapes 3 and 36"),
        (changed("conv", name="input"), "node 'input': another node, or the network's input, has that name already"),
        (changed("conv", name="../x"), "name: string should match pattern"),
        (changed("lif", decay=1.5), "decay.*less than or equal to 1, got 1.5"),
        (changed("lif", threshold=0), "threshold.*greater than 0, got 0"),
        (changed("lif", gain=1e39), "gain.*1e\\+39 does not fit into float32"),
        (changed("lif", decay="fast"), "decay.*"),
        (changed("lif", reset="soft"), "reset: input should be 'subtract', 'value' or 'none', got 'soft'"),
        (changed("lif", reset_value=0.5), "node 'lif': reset_value is 0.5, expected 0, since reset is 'subtract'"),
        (changed("lif", tau=2.0), "charge is 'decay', which needs decay, but it has decay and tau"),
        (changed("lif", charge="euler"), "node 'lif': charge is 'euler', which needs rate, but it has decay"),
        (changed("lif", charge="relax", decay=None), "charge is 'relax', which needs rate or tau, but it has none"),
        (changed("lif", leak=0.5), "node 'lif': leak is 0.5, expected 0, since charge is 'decay'"),
        (changed("lif", charge="euler", decay=None, rate=0.5, drive=0.25), "drive is 0.25, expected 0, since charge i"),
        (changed("lif", charge="quadratic", decay=None, tau=2.0, curvature=0.5), "critical is None, expected a value,"),
        (
            changed("lif", charge="exponential", decay=None, rate=0.5, critical=0.5),
            "node 'lif': sharpness is None, expected a value, since charge is 'exponential'",
        ),
        (changed("lif", sharpness=0.5), "node 'lif': sharpness is 0.5, expected none, since charge is 'decay'"),
        (changed("lif", refractory=2, fire="multiple"), "fire is 'multiple', but a neuron with refractory steps fires"),
        (changed("lif", refractory=2, reset_timing="next_step"), "reset_timing is 'next_step', expected same_step, as"),
        (changed("out", type="Alpha", exc_decay=0.5, inh_decay=0.25, fire="multiple"), "fire is 'multiple', but an Al"),
        (changed("lif", curvature=0.5), "node 'lif': curvature is 0.5, expected none, since charge is 'decay'"),
        (changed("lif", charge="filter", decay=None, rate=0.5, leak=0.5), "leak is 0.5, expected 0, since charge is '"),
        (changed("lif", charge="midpoint"), "charge: input should be 'decay', .* got 'midpoint'"),
        (changed("lif", charge="euler", decay=None, rate=-1), "rate.*greater than or equal to 0, got -1"),
        (changed("lif", type="CubaLIF"), "node 'lif': syn_decay is None, expected a value, since synapse is 'decay'"),
        (changed("lif", type="CubaLIF", synapse="jump", syn_rate=0.5, syn_decay=0.5), "syn_decay is 0.5, expected non"),
        (changed("lif", type="ALIF", adapt_gain=0.5), "adapt_decay is None, expected a value, since adapt is 'count'"),
        (
            changed("lif", type="ALIF", decay=0.5, adapt="current", adapt_rate=0.5, adapt_coupling=1, adapt_gain=0.5),
            "node 'lif': adapt is 'current', which needs charge 'exponential', but charge is 'decay'",
        ),
        (
            changed("lif", type="ALIF", adapt_decay=0.5, adapt_coupling=0.5, adapt_gain=0.5),
            "node 'lif': adapt_coupling is 0.5, expected none, since adapt is 'count'",
        ),
        (
            changed("lif", type="ALIF", adapt="relax", adapt_rate=0.5, adapt_spike=0.5, adapt_gain=0.5),
            "node 'lif': adapt_spike is 0.5, expected 1, since adapt is 'relax'",
        ),
        (changed("lif", type="ALIF", adapt_decay=0.5), "adapt_gain: field required"),
        (changed("lif", adapt_gain=0.5), "adapt_gain: extra inputs are not permitted, got 0.5"),
        (
            changed("lif", type="ALIF", adapt_decay=0.5, adapt_gain=0.5, reset_timing="next_step"),
            "node 'lif': reset_timing is 'next_step', expected same_step, as .* and the other rules of ALIF",
        ),
        (changed("lif", synapse="decay"), "synapse: extra inputs are not permitted"),
        (changed("lif", fire="twice"), "fire: input should be 'at_threshold', .* got 'twice'"),
        (changed("lif", reset_timing="next_step_charged"), "node 'lif': reset_timing is 'next_step_charged', expected"),
        (changed("lif", reset="none", reset_timing="next_step"), "reset_timing is 'next_step', expected same_step, as"),
        (changed("lif", fire="multiple", reset_timing="next_step"), "reset_timing is 'next_step', expected same_step,"),
        (changed("lif", floor=float("inf")), "floor.*finite number"),
        (changed("lif", recurrent={"bias_at_start": False}), "recurrent: bias_at_start is off, but there is no bias"),
        (
            changed("lif", charge="euler", decay=None, rate=0.5, recurrent={"joins": "charge"}),
            "node 'lif': recurrent.joins is 'charge', but charge 'euler' is no sum to join",
        ),
        (
            changed("lif", type="CubaLIF", synapse="sum_then_decay", syn_decay=0.5, recurrent={"joins": "charge"}),
            "node 'lif': recurrent.joins is 'charge', but synapse 'sum_then_decay' is no sum to join",
        ),
        (changed("lif", type="Threshold", decay=None, reset="none"), "extra inputs are not permitted"),
        (changed("lif", type="IF"), "decay: extra inputs are not permitted, got 0.5"),
        (changed("conv", padding="same", stride=2), "padding is 'same' with stride 2×2, expected a stride of 1 or num"),
        (changed("conv", padding="valid"), "padding.*got 'valid'"),
        (changed("conv", dilation=4), "node 'conv': a kernel of 3×3 does not fit into an input of 2×6×6"),
        (changed("conv", dilation=0), "dilation.*greater than or equal to 1, got 0"),
        (changed("conv", type="Conv1d"), "expected an input of \\(channels, length\\), but it has shape 2×6×6"),
        (changed("flat", type="Delay", delay=-1), "delay.*greater than or equal to 0, got -1"),
        (changed("flat", type="Delay", delay=100001), "delay.*less than or equal to 100000, got 100001"),
        (changed("flat", type="Scale", scale=1e39), "scale.*1e\\+39 does not fit into float32"),
        (changed("lif", type="Izhikevich"), "Izhikevich"),
        (changed(time_steps=0), "time_steps: input should be greater than or equal to 1, got 0"),
        (changed(labels=[]), "labels"),
        (changed(nodes=[]), "nodes"),
        (changed(input={"shape": [2, 6, 6], "low": 0, "high": 2}, coding="rate"), "coding 'rate' needs normalised val"),
    ],
)
def test_what_could_not_run_is_refused_by_name_with_both_values(spec: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidSpec, match=sentence):
        Spec.read(spec)


def test_text_that_is_not_json_is_one_sentence() -> None:
    with pytest.raises(InvalidSpec, match="the spec is invalid"):
        Spec.read("{")


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({}, "tensor 'fc.weight': missing; the spec needs it with shape 2×2"),
        ({"fc.weight": np.zeros((2, 2))}, "tensor 'fc.weight': its type is float64, expected float32"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(tensors: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidSpec, match=sentence):
        Network(toy().spec, tensors)


ARRAY = "per_neuron"


@pytest.mark.parametrize(
    ("node", "values", "sentence"),
    [
        ({"type": "LIF", "decay": ARRAY}, [0.5, 1.5], "'out.decay': its values go from 0.5 to 1.5, expected 0 to 1"),
        (
            {"type": "CubaLIF", "decay": 0.5, "synapse": "euler", "syn_rate": ARRAY},
            [-1, 0],
            "'out.syn_rate': its values go from -1 to 0, expected 0 to inf",
        ),
        ({"type": "IF", "threshold": ARRAY}, [0, 1], "'out.threshold': its values go from 0 to 1, expected 1"),
        ({"type": "Delay", "delay": ARRAY}, [-1, 1], "'out.delay': its values go from -1 to 1, expected 0 to 100000"),
        ({"type": "Delay", "delay": ARRAY}, [0, 1.5], "'out.delay': holds 1.5, expected whole numbers"),
    ],
)
def test_an_array_parameter_keeps_to_its_range(node: dict[str, Any], values: list[float], sentence: str) -> None:
    nodes = [node | {"name": "out"}, {"type": "IF", "name": "last"}]
    spec = Spec.read(toy().spec.model_dump() | {"nodes": nodes})
    name = next(f"out.{field}" for field, value in node.items() if value == ARRAY)
    with pytest.raises(InvalidSpec, match=sentence):
        Network(spec, {name: np.array(values, np.float32)})


def test_a_networks_tensors_cannot_be_changed_behind_its_back() -> None:
    weight = np.eye(2, dtype=np.float32)
    network = Network(toy().spec, {"fc.weight": weight})
    weight[:] = 7
    assert network.tensors["fc.weight"].tolist() == [[1, 0], [0, 1]]
    with pytest.raises(ValueError, match="read-only"):
        network.tensors["fc.weight"][0, 0] = 7


def around(*nodes: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return the fields of a spec of four inputs, "b", and the same as two by two, "a", before these nodes."""
    before = [{"type": "Flatten", "name": "b"}, {"type": "Reshape", "name": "a", "inputs": ["input"], "shape": [2, 2]}]
    after = {"type": "IF", "name": "out", "inputs": [nodes[-1]["name"], "b"]}
    return {"input": {"shape": [4]}, "time_steps": 1, "labels": ["a"], "nodes": [*before, *nodes, after]} | fields


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"type": "Reshape", "name": "n", "shape": [5]}, "shape is 5, 5 values, but its input has shape 2×2, 4 values"),
    ({"type": "Permute", "name": "n", "order": [0]}, "order has 1 axes, but its input has shape 2×2"),
    ({"type": "Permute", "name": "n", "order": [0, 0]}, "order is [0, 0], expected each axis from 0 to 1 once"),
    ({"type": "Multiply", "name": "n", "inputs": ["a", "b"]}, "'a' and 'b' are multiplied, but have shapes 2×2 and 4"),
    ({"type": "Concatenate", "name": "n", "inputs": ["a", "b"]}, "'a' and 'b' are joined along axis 0, but have shape"),
    ({"type": "Concatenate", "name": "n", "inputs": ["b", "a"], "axis": 1}, "axis is 1, but its input 'b' has shape 4"),
    (
        {"type": "MatMul", "name": "n", "inputs": ["a", "b"]},
        "'a' and 'b' have shapes 2×2 and 4, expected (heads, rows, inner) and (heads, inner, columns)",
    ),
    ({"type": "MaxPool1d", "name": "n", "kernel_size": 2, "padding": 2}, "padding is 2, expected at most half of"),
    ({"type": "Scale", "name": "n", "scale": 2, "steps": 4}, "4, but scale 2 and offset 0 are the same at each"),
    (
        {"type": "ConvTranspose1d", "name": "n", "in_channels": 2, "out_channels": 1, "kernel_size": 1, "padding": 1},
        "a kernel of 1 with its padding leaves nothing of an input of 2×2",
    ),
    (
        {"type": "ConvTranspose1d", "name": "n", "in_channels": 2, "out_channels": 1, "kernel_size": 1}
        | {"output_padding": 1},
        "output_padding is 1, expected less than the stride 1",
    ),
]
TAPS: list[tuple[dict[str, Any], str]] = [
    ({}, "node 'n': has neither delay nor taps, expected one of them"),
    ({"delay": 1, "taps": [0]}, "node 'n': has delay and taps, expected one of them"),
    ({"taps": []}, "at least 1 item"),
    ({"taps": [-1, 0]}, "greater than or equal to 0"),
    ({"taps": [0, 100_001]}, "less than or equal to 100000"),
    ({"taps": [0, 2, 2]}, "node 'n': taps has 2 after 2, expected ascending steps"),
    ({"taps": [0, 1.5]}, "integer"),
]
REFUSED += [({"type": "Delay", "name": "n"} | fields, sentence) for fields, sentence in TAPS]
REFUSED += [({"type": "Multiply", "name": "n", "inputs": ["a"]}, "inputs")]
LINEAR: dict[str, Any] = {"type": "Linear", "name": "fc", "in_features": 4, "out_features": 2}
OF_THE_LAST: list[tuple[dict[str, Any], str]] = [
    ({"readout": "spike_count"}, "node 'fc': readout 'spike_count' needs a spiking last node, not Linear"),
    ({"readout": "first_spike"}, "node 'fc': readout 'first_spike' needs a spiking last node, not Linear"),
    ({"readout": "last", "units": ["m", "s"]}, "units: ['m', 's'] given, but scores is 'softmax', which has none"),
    ({"readout": "last", "scores": "values", "units": ["m"]}, "units: 1 given, expected one for each of the 2 labels"),
    (
        {"input": {"shape": [30_000]}}
        | {"nodes": [{"type": "Delay", "name": "n", "taps": [*range(100_000)]}, {"type": "IF", "name": "out"}]},
        "node 'n': its output has shape 3000000000, 3000000000 values",
    ),
]


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        *((around(node), sentence) for node, sentence in REFUSED),
        *((around(LINEAR) | {"nodes": [LINEAR], "labels": ["a", "b"]} | each, said) for each, said in OF_THE_LAST),
    ],
    ids=[sentence for _, sentence in REFUSED + OF_THE_LAST],
)
def test_what_does_not_fit_is_refused_in_a_sentence_of_one_line(spec: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidSpec, match=re.escape(sentence)) as refused:
        Spec.read(spec)
    assert "\n" not in str(refused.value)


def test_what_an_older_bundle_says_means_what_it_did() -> None:
    # Of before `scores`: it has neither field, and its readout's name still is one.
    spec = Spec.read(changed(readout="max_membrane"))
    older = spec.model_dump(mode="json", exclude={"scores", "units"})
    assert older["readout"] == "max_membrane"
    assert Spec.read(older) == spec
    assert (spec.scores, spec.units) == (Scores.SOFTMAX, None)


def test_probabilities_are_the_softmax_of_scores_or_are_there_already() -> None:
    readout = np.array([[0.25, 0.75]], np.float32)
    assert Scores.PROBABILITIES.probabilities(readout).tolist() == [[0.25, 0.75]]
    # exp(0.25) / (exp(0.25) + exp(0.75)) = 1 / (1 + exp(0.5))
    np.testing.assert_allclose(Scores.SOFTMAX.probabilities(readout)[0, 0], 1 / (1 + np.exp(0.5)), rtol=1e-6)
