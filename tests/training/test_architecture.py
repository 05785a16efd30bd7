"""Architectures from a line of text.

Scales, joins and the connections that PyTorch has no module for, as training sees them.
"""

from functools import partial
from typing import Any

import numpy as np
import pytest

from spikeserve.models.door import Plugin
from spikeserve.models.spec import Input, Readout
from spikeserve.training.config import AUTHORS, NetworkConfig
from spikeserve.training.errors import InvalidConfig
from spikeserve.training.fit.architecture import Architecture, build_architecture
from spikeserve.training.fit.exact import round_to_grid
from tests.networks import network_of, task
from tests.training.test_custom_neurons import recurrent_lif

IMAGE = Input(shape=(1, 8, 8))


def built(text: str, declared: Input = IMAGE, **config: Any) -> Architecture:
    return build_architecture(NetworkConfig.model_validate({"architecture": text} | config), declared, ("a", "b"), 4)


OVER_TIME = "Flatten Delay Linear LIF Delay Linear LIF Linear LIF"
OWN_NEURONS = "16R:cubalif(syn_decay=0.25,decay=1e-3)-8:alif(adapt_gain=0.5,reset=value)"


@pytest.mark.parametrize(
    ("text", "config", "types", "says"),
    [
        (
            "12C5-MP2-6C3-AP2-FC20R", {}, "Conv2d LIF MaxPool2d Conv2d LIF AvgPool2d Flatten Linear LIF Linear LIF",
            {"nodes[0].out_channels": 12, "nodes[0].kernel_size": (5, 5), "nodes[0].padding": (2, 2),
             "output_shapes['conv3']": (6, 4, 4), "nodes[8].recurrent.bias": False},
        ),
        ("none", {}, "Flatten Linear LIF", {}),
        ("8", {"readout": Readout.MAX_MEMBRANE}, "Flatten Linear LIF Linear LI", {}),
        ("8", {"readout": Readout.MEAN}, "Flatten Linear LIF Linear", {}),
        ("8R", {"neuron": "CubaLIF", "readout": Readout.MAX_MEMBRANE}, "Flatten Linear CubaLIF Linear CubaLI",
         {"nodes[2].syn_decay": 0.5}),
        (
            "4C3-BN-DO0.25-AP2-D7-16-DO0.5", {}, "Conv2d LIF AvgPool2d Delay Flatten Linear LIF Linear LIF",
            {"training['conv1'].batch_norm": True, "training['neuron1'].dropout": 0.25,
             "training['delay5'].longest_delay": 7, "training['neuron6'].dropout": 0.5},
        ),
        # (8 + 2*1 - 2*(3 - 1) - 1) // 2 + 1 = 3
        ("4C3-8C3s2p1d2g4", {}, "Conv2d LIF Conv2d LIF Flatten Linear LIF",
         {"nodes[2].stride": (2, 2), "nodes[2].padding": (1, 1), "nodes[2].dilation": (2, 2), "nodes[2].groups": 4,
          "output_shapes['conv2']": (8, 3, 3)}),
        ("6C5g3", {"declared": Input(shape=(3, 20))}, "Conv1d LIF Flatten Linear LIF",
         {"nodes[0].kernel_size": 5, "nodes[0].padding": 2, "nodes[0].groups": 3}),
        (
            OWN_NEURONS, {"decay": 0.5}, "Flatten Linear CubaLIF Linear ALIF Linear LIF",
            {"nodes[2].syn_decay": 0.25, "nodes[2].decay": 1e-3, "nodes[2].recurrent.bias": False,
             "nodes[4].adapt_gain": 0.5, "nodes[4].reset": "value", "nodes[4].decay": 0.5},
        ),
        # A layer over time is a delay of taps and a connection.
        (
            "6T3d2-BN-4T2R", {}, OVER_TIME,
            {"nodes[1].taps": (0, 2, 4), "nodes[4].taps": (0, 1), "tensor_shapes['dense1.weight']": (6, 3 * 64),
             "tensor_shapes['dense3.weight']": (4, 2 * 6), "training['dense1'].batch_norm": True},
        ),
        # Synapses with delays have taps at each step, and plain thresholds no memory.
        (
            "6S3Th-BN-4S2R:alif-8Th", {},
            "Flatten Delay Linear Threshold Delay Linear ALIF Linear Threshold Linear LIF",
            {"nodes[1].taps": (0, 1, 2), "nodes[4].taps": (0, 1), "tensor_shapes['dense1.weight']": (6, 3 * 64),
             "training['dense1'].longest_delay": 2, "training['dense1'].batch_norm": True},
        ),
        # Learned parameters are one for each neuron, and one for a convolution.
        ("4C3-16", {"learn": ("decay",)}, "Conv2d LIF Flatten Linear LIF Linear LIF",
         {"nodes[1].decay": 0.75, "nodes[4].decay": "per_neuron", "training['neuron1'].learned": {"decay": 0.75}}),
    ],
)  # fmt: skip
def test_a_line_of_text_is_nodes(text: str, config: dict[str, Any], types: str, says: dict[str, Any]) -> None:
    architecture = built(text, **config)
    assert " ".join(node.type for node in architecture.spec.nodes) == types
    for name, value in says.items():
        place = architecture if name.startswith("training") else architecture.spec
        assert eval(f"place.{name}", {"place": place}) == value, name  # noqa: S307  (names of our own)


class Own:
    states, learn = {}, ()  # type: ignore[var-annotated]
    step = staticmethod(partial(recurrent_lif, decay=0.5, threshold=1.0))  # type: ignore[arg-type]


def test_a_neuron_of_a_plugin_is_recurrent_where_its_layer_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(AUTHORS, "own", Plugin("neuron", "own", f"{__name__}:Own", "a neuron"))
    assert built("8R:own").spec.nodes[2].recurrent  # type: ignore[union-attr]


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
        ("20K", "coding: is 'direct', but '20K' is over time, expected current or spikes"),
        ("20K coding=current", "readout: is 'spike_count', but the rates of '20K'"),
        ("20K-8 coding=current", "'20K' is not a layer"),
        ("8 readout=first_spike", "readout: is 'first_spike', which has no gradient to train by"),
    ],
)
def test_a_layer_that_is_none_or_does_not_fit_is_refused(architecture: str, sentence: str) -> None:
    text, *typed = architecture.split(" ")
    fields: dict[str, Any] = dict(field.split("=") for field in typed)
    with pytest.raises(InvalidConfig, match=sentence):
        built(text, **fields)


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
