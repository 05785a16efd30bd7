"""Architectures from a line of text.

Scales, joins and the connections that PyTorch has no module for, as training sees them.
"""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings

from benchmarks.training.ours import module_of
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec import Input, Readout
from spikeserve.models.spec.nodes import ALIF, LIF, Conv1d, Conv2d, CubaLIF, Delay, Scale
from spikeserve.models.spec.rules import Reset
from spikeserve.training.config import NetworkConfig, Surrogate
from spikeserve.training.errors import InvalidConfig
from spikeserve.training.fit.architecture import Architecture, build_architecture
from spikeserve.training.fit.exact import round_to_grid
from spikeserve.training.fit.surrogate import SurrogateThreshold
from tests.networks import Case, dyadic_cases, network_of, task

IMAGE = Input(shape=(1, 8, 8))


def built(text: str, declared: Input = IMAGE, **config: Any) -> Architecture:
    return build_architecture(NetworkConfig(architecture=text, **config), declared, ("a", "b"), 4)


@pytest.mark.parametrize(
    ("text", "config", "types"),
    [
        (*("12C5-MP2-6C3-AP2-FC20R", {}), "Conv2d LIF MaxPool2d Conv2d LIF AvgPool2d Flatten Linear LIF Linear LIF"),
        ("none", {}, "Flatten Linear LIF"),
        ("8", {"readout": Readout.MAX_MEMBRANE}, "Flatten Linear LIF Linear LI"),
        ("8", {"readout": Readout.MEAN}, "Flatten Linear LIF Linear"),
        ("8R", {"neuron": "CubaLIF", "readout": Readout.MAX_MEMBRANE}, "Flatten Linear CubaLIF Linear CubaLI"),
        ("4C3-BN-DO0.25-AP2-D7-16-DO0.5", {}, "Conv2d LIF AvgPool2d Delay Flatten Linear LIF Linear LIF"),
    ],
)
def test_a_line_of_text_is_nodes(text: str, config: dict[str, Any], types: str) -> None:
    assert " ".join(node.type for node in built(text, **config).spec.nodes) == types


def test_the_short_form_reads_as_it_is_written() -> None:
    spec = built("12C5-MP2-6C3-AP2-FC20R").spec
    first, dense = spec.nodes[0], spec.nodes[8]
    assert isinstance(first, Conv2d)
    assert (first.out_channels, first.kernel_size, first.padding) == (12, (5, 5), (2, 2))
    assert spec.output_shapes["conv3"] == (6, 4, 4)
    assert isinstance(dense, LIF)
    assert dense.recurrent is not None


def test_a_readout_without_a_gradient_is_refused_before_any_training() -> None:
    with pytest.raises(InvalidConfig, match="readout: is 'first_spike', which has no gradient to train by"):
        built("8", readout=Readout.FIRST_SPIKE)


def test_a_convolution_says_its_stride_padding_dilation_and_groups() -> None:
    conv = built("4C3-8C3s2p1d2g4").spec.nodes[2]
    assert isinstance(conv, Conv2d)
    assert (conv.stride, conv.padding, conv.dilation, conv.groups) == ((2, 2), (1, 1), (2, 2), 4)
    # (8 + 2*1 - 2*(3 - 1) - 1) // 2 + 1 = 3
    assert built("4C3-8C3s2p1d2g4").spec.output_shapes["conv2"] == (8, 3, 3)


def test_a_convolution_over_a_length_is_one_dimensional() -> None:
    conv = built("6C5g3", Input(shape=(3, 20))).spec.nodes[0]
    assert isinstance(conv, Conv1d)
    assert (conv.kernel_size, conv.padding, conv.groups) == (5, 2, 3)


def test_a_layer_says_its_own_neurons() -> None:
    _, _, first, _, second, _, last = built(
        "16R:cubalif(syn_decay=0.25,decay=1e-3)-8:alif(adapt_gain=0.5,reset=value)", decay=0.5
    ).spec.nodes
    assert isinstance(first, CubaLIF)
    assert (first.syn_decay, first.decay, first.recurrent is not None) == (0.25, 1e-3, True)
    assert isinstance(second, ALIF)
    assert (second.adapt_gain, second.reset, second.decay) == (0.5, Reset.VALUE, 0.5)
    assert isinstance(last, LIF)
    cuba = built("8", neuron="CubaLIF").spec.nodes[2]
    assert isinstance(cuba, CubaLIF)
    assert cuba.syn_decay == 0.5


def test_batch_norm_and_dropout_belong_to_the_layer_before_and_a_delay_is_a_node() -> None:
    architecture = built("4C3-BN-DO0.25-AP2-D7-16-DO0.5")
    assert architecture.training["conv1"].batch_norm
    assert architecture.training["neuron1"].dropout == 0.25
    assert architecture.training["delay5"].longest_delay == 7
    assert architecture.training["neuron6"].dropout == 0.5


def test_a_layer_over_time_is_a_delay_of_taps_and_a_connection() -> None:
    architecture = built("6T3d2-BN-4T2R")
    spec = architecture.spec
    assert " ".join(node.type for node in spec.nodes) == "Flatten Delay Linear LIF Delay Linear LIF Linear LIF"
    first, second = (node for node in spec.nodes if isinstance(node, Delay))
    assert (first.taps, second.taps) == ((0, 2, 4), (0, 1))
    assert spec.tensor_shapes["dense1.weight"] == (6, 3 * 64)
    assert spec.tensor_shapes["dense3.weight"] == (4, 2 * 6)
    assert architecture.training["dense1"].batch_norm


def test_synapses_with_delays_have_taps_at_each_step_and_plain_thresholds_no_memory() -> None:
    architecture = built("6S3Th-BN-4S2R:alif-8Th")
    types = "Flatten Delay Linear Threshold Delay Linear ALIF Linear Threshold Linear LIF"
    assert " ".join(node.type for node in architecture.spec.nodes) == types
    assert [node.taps for node in architecture.spec.nodes if isinstance(node, Delay)] == [(0, 1, 2), (0, 1)]
    assert architecture.spec.tensor_shapes["dense1.weight"] == (6, 3 * 64)
    assert architecture.training["dense1"].longest_delay == 2
    assert architecture.training["dense1"].batch_norm


def test_learned_parameters_are_one_for_each_neuron_and_one_for_a_convolution() -> None:
    conv, dense = (built("4C3-16", learn=("decay",)).spec.nodes[place] for place in (1, 4))
    assert isinstance(conv, LIF)
    assert isinstance(dense, LIF)
    assert (conv.decay, dense.decay) == (0.75, "per_neuron")
    assert built("4C3-16", learn=("decay",)).training["neuron1"].learned == {"decay": 0.75}


@pytest.mark.parametrize(
    ("architecture", "sentence"),
    [
        ("8X3", "'8X3' is not a layer"),
        ("8C4", "'8C4' has a kernel of 4, expected an odd one, to keep the size"),
        ("16-8C3", "does not fit its input: .* expected an input of"),
        ("BN-16", "'BN' is batch norm of the layer before, but there is none"),
        ("16-AP2", "does not fit its input"),
        ("16-D2000", "'D2000' is a delay of 2000 steps, expected at most 1024"),
        ("16T99999999d999999", "'16T99999999d999999' is a delay of 99999899000001 steps, expected at most 1024"),
        ("16:izhikevich", "'16:izhikevich' names no neuron, expected if, lif, cubalif, alif, cubaalif"),
        ("16:programneuron", "'16:programneuron' names no neuron, expected if, lif, cubalif, alif, cubaalif"),
        ("16:lif(decay)", "'16:lif.decay.' has 'decay', expected a field as in decay=0.9"),
        ("16:lif(decay=2)", "decay: .*less than or equal to 1"),
        ("16:lif(tempo=2)", "tempo: .*not permitted"),
        ("AP2:lif", "'AP2:lif' is not a layer"),
        ("AP2Th", "'AP2Th' is not a layer"),
        ("16S2000", "'16S2000' is a delay of 2000 steps, expected at most 1024"),
        ("8C4s2", "has a kernel of 4, expected an odd one"),
        ("AP16", "a kernel of 16×16 does not fit"),
        ("0", "architecture"),
    ],
)
def test_a_layer_that_is_none_or_does_not_fit_is_refused(architecture: str, sentence: str) -> None:
    with pytest.raises(InvalidConfig, match=sentence):
        built(architecture)


SURROGATE = SurrogateThreshold(Surrogate.SUPERSPIKE, 10.0)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(case=dyadic_cases())
def test_a_training_network_gives_and_takes_what_any_stack_holds(case: Case) -> None:
    # Whatever is drawn: its tensors come back bit for bit, and its outputs are those of the reference engine.
    spec = case.network.spec
    assume(case.inputs.batch and not any(node.several for node in spec.spiking_nodes))
    before = ["input", *(node.name for node in spec.nodes)]
    assume(all(spec.sources[node.name] == (name,) for name, node in zip(before, spec.nodes, strict=False)))
    assume(not any(isinstance(node, Scale) or (isinstance(node, Delay) and not node.shared) for node in spec.nodes))
    module = module_of(case.network).eval()
    back = module.network()
    assert back.spec == spec
    assert {name: tensor.tolist() for name, tensor in back.tensors.items()} == {
        name: tensor.tolist() for name, tensor in case.network.tensors.items()
    }
    with torch.no_grad():
        activity = module(torch.from_numpy(case.inputs.steps), case.inputs.time_steps, SURROGATE)
    expected, _ = ReferenceEngine(case.network).run(case.inputs)
    if spec.readout == "spike_count":
        assert activity.output.sum(dim=0).tolist() == expected.spike_counts.tolist()


@pytest.mark.parametrize("kind", ["Multiply", "MatMul", "Concatenate"])
def test_sums_behind_a_join_of_spikes_are_exact(kind: str) -> None:
    rng = np.random.default_rng(1)
    side = 8 if kind == "Concatenate" else 4
    network = network_of(
        [
            {"type": "IF", "name": "spikes", "threshold": 0.5},
            {"type": kind, "name": "joined", "inputs": ["spikes", "spikes"]},
            {"type": "Flatten", "name": "flat"},
            {"type": "Linear", "name": "fc", "in_features": side * 4, "out_features": 2},
            {"type": "IF", "name": "out"},
        ],
        {"fc.weight": rng.normal(size=(2, side * 4)), "fc.bias": rng.normal(size=2)},
        **task((4, 4), 3, "ab", "spikes"),
    )
    assert round_to_grid(network).exact
