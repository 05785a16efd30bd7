"""The builder that every importer fills: names, inputs, parameters rounded once, and one sentence for what is wrong.

PyTorch's layers beyond the usual ones: what each computes is what the network that it becomes computes.
"""

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines.event.engine import EventEngine
from spikeserve.models.errors import InvalidSpec
from spikeserve.models.spec import Readout, nodes
from spikeserve.models.spec.network import Network
from spikeserve.training.errors import InvalidGraph, NotConvertible
from spikeserve.training.importers import connections
from spikeserve.training.importers.builder import Builder, Draft
from spikeserve.training.importers.options import Options
from tests.plugins.frameworks.plain_network import Spike, taken_in
from tests.same import EVERYTHING


def threshold(value: Any, shape: tuple[int, ...] = (2,)) -> Network:
    """Return a network of one IF with that threshold."""
    builder = Builder(shape)
    builder.add(Draft("if", nodes.IF, {"threshold": value}))
    if len(shape) > 1:
        builder.add(Draft("flat", nodes.Flatten))
        builder.add(Draft("last", nodes.IF))
    return builder.network(Options(), dt=None)


def test_names_are_made_such_as_a_spec_can_have_and_that_are_free() -> None:
    builder = Builder((1,))
    names = [builder.add(Draft(name, nodes.IF)) for name in ("a.b", "a_b", "0", "é", "input", "x" * 80)]
    assert names == ["a_b", "a_b_2", "node_0", "node__", "input_2", "x" * 60]


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (np.array([1.0, 2.0, 3.0]), "node 'if': threshold has shape 3, which does not spread over 2 neurons"),
        (-1.0, "node 'if': threshold"),
        (np.array(1e39), "node 'if': threshold"),  # beyond float32
        (np.array([]), "node 'if': threshold has shape 0, which does not spread over 2 neurons"),
    ],
)
def test_a_parameter_that_cannot_be_served_names_the_node(value: Any, sentence: str) -> None:
    with pytest.raises(InvalidGraph) as refused:
        threshold(value)
    assert str(refused.value).startswith(sentence)
    assert "\n" not in str(refused.value)


def test_a_layer_that_is_too_large_or_does_not_fit_or_is_missing_is_one_sentence() -> None:
    with pytest.raises(InvalidGraph, match="the input has shape 100000000, expected at most 67,108,864 values"):
        Builder((10**8,))
    builder = Builder((2**10,))
    with pytest.raises(InvalidSpec, match="node 'fc': in_features is 3, but its input has shape 1024"):
        builder.add(connections.linear("fc", np.ones((2, 3)), None))
    with pytest.raises(InvalidGraph, match="the network has no layer"):
        builder.network(Options(), dt=None)


def test_after_a_node_of_unknown_shape_only_a_nodes_own_faults_are_found() -> None:
    builder = Builder((2,))
    builder.shapes[builder.last] = None
    builder.add(connections.linear("fc", np.ones((2, 3)), None))  # it does not fit the input, which is not known now
    with pytest.raises(InvalidGraph, match=r"^node 'lif': threshold"):
        builder.add(Draft("lif", nodes.LIF, {"decay": 0.5, "threshold": -1.0}))


def test_the_options_win_over_the_source_and_the_source_over_the_usual() -> None:
    def readout(options: Options, said: Readout | None) -> Readout:
        builder = Builder((3,))
        builder.add(Draft("li", nodes.LI, {"decay": 0.5}))
        network = builder.network(options, dt=1e-3, readout=said)
        assert (network.spec.dt, network.spec.labels) == (1e-3, ("0", "1", "2"))
        return network.spec.readout

    assert readout(Options(), None) is Readout.MAX_MEMBRANE
    assert readout(Options(), Readout.MEAN_MEMBRANE) is Readout.MEAN_MEMBRANE
    assert readout(Options(readout=Readout.LAST_MEMBRANE), Readout.MEAN_MEMBRANE) is Readout.LAST_MEMBRANE


@pytest.mark.parametrize("flattened", [False, True])
@pytest.mark.parametrize(
    ("last", "usual"),
    [
        (Draft("last", nodes.LI, {"decay": 0.5}), Readout.MAX_MEMBRANE),
        (Draft("last", nodes.LIF, {"decay": 0.5}), Readout.SPIKE_COUNT),
        (Draft("last", nodes.Scale, {"scale": 2.0}), Readout.MEAN),
    ],
)
def test_what_no_source_says_is_read_as_fits_the_last_node(last: Draft, usual: Readout, flattened: bool) -> None:
    builder = Builder((3, 1, 1))
    builder.add(last)
    if flattened:
        builder.add(Draft("flat", nodes.Flatten))
    spec = builder.network(Options(), dt=None).spec
    assert (spec.readout, spec.labels) == (usual, ("0", "1", "2"))


LAYERS = {
    "average over a length": (nn.AvgPool1d(4, stride=2, padding=1), (2, 9)),
    "maximum over a length": (nn.MaxPool1d(3, stride=1, padding=1), (2, 9)),
    "averages that overhang": (nn.AvgPool1d(3, stride=2, padding=1, ceil_mode=True), (2, 8)),
    "over the end without padding": (nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False), (2, 8, 7)),
    "averages without padding": (nn.AvgPool2d((2, 4), 1, padding=(1, 2), count_include_pad=False), (2, 4, 4)),
    "maxima that overhang": (nn.MaxPool2d(3, stride=2, ceil_mode=True), (2, 8, 6)),
    "maxima whose last window would begin in the padding": (nn.MaxPool1d(3, 3, padding=1, ceil_mode=True), (2, 8)),
    "global average over a length": (nn.AdaptiveAvgPool1d(1), (2, 8)),
    "adaptive average": (nn.AdaptiveAvgPool2d((2, None)), (2, 4, 3)),
    "global average": (nn.AdaptiveAvgPool2d(1), (2, 4, 4)),
    "transposed over a length": (nn.ConvTranspose1d(2, 4, 3, 2, padding=1, output_padding=1, groups=2), (2, 5)),
    "transposed": (nn.ConvTranspose2d(4, 6, (2, 3), (1, 2), (0, 1), 0, 2, False, (2, 1)), (4, 3, 4)),
    "adaptive maximum": (nn.AdaptiveMaxPool2d((2, 1)), (2, 4, 3)),
    "zeros around": (nn.ConstantPad2d(2, 0.0), (2, 3, 4)),
    "zeros at some ends": (nn.ZeroPad2d((0, 2, 3, 1)), (2, 3, 4)),
    "zeros before a length": (nn.ConstantPad1d((4, 0), 0.0), (2, 5)),
    "nearest values": (nn.Upsample(scale_factor=(2, 3), mode="nearest"), (2, 3, 4)),
    "nearest values of a length": (nn.Upsample(size=8), (2, 4)),
    "linear along the last of three axes": (nn.Linear(4, 3), (2, 3, 4)),
    # As many channels in as out, so that the weight's first axis, its inputs, could be mistaken for the other.
    "a batch norm behind a transposed one": (
        nn.Sequential(nn.ConvTranspose2d(2, 2, 2), nn.BatchNorm2d(2, eps=0)),
        (2, 3, 3),
    ),
    "unflatten": (nn.Unflatten(1, (2, -1, 3)), (12,)),
    "unflatten of the last axis": (nn.Unflatten(-1, (2, 2)), (3, 4)),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_becomes_the_node_that_computes_the_same(layer: str) -> None:
    # Weights are multiples of 1/8 and windows have a power of two of values, or a maximum: every sum is exact.
    module, shape = LAYERS[layer]
    with torch.no_grad():
        for values in module.parameters():
            values.copy_(torch.randint(-8, 9, values.shape, generator=torch.Generator().manual_seed(0)) / 8)
    network = nn.Sequential(module, Spike(), nn.Flatten()).eval()
    rng = np.random.default_rng(0)
    steps = (rng.random((5, 3, *shape)) < 0.1).astype(np.float32)
    expected = torch.stack([network(torch.from_numpy(step)) for step in steps]).detach().numpy()
    found = taken_in(network, *shape).network
    run, _ = EventEngine(found).run(DenseInputs(steps, 5), record=EVERYTHING)
    assert 0 < expected.mean() < 1
    assert run.rasters[found.spec.readout_node.name].reshape(expected.shape).tolist() == expected.tolist()


def test_a_batch_norm_is_folded_in_float64_or_becomes_a_scale_of_each_channel() -> None:
    # Mean 3, variance 4 - eps, so a standard deviation of 2; gamma 4, beta -1: 4 * (x - 3) / 2 - 1 = 2 x - 7.
    # Behind a weight of 0.5 and a bias of 1 that is 2 * (0.5 x + 1) - 7 = x - 5.
    linear, behind, alone = nn.Linear(1, 1), nn.BatchNorm1d(1), nn.BatchNorm2d(1)
    for module, weight, bias in ((linear, 0.5, 1.0), (behind, 4.0, -1.0), (alone, 4.0, -1.0)):
        module.weight.data.fill_(weight)
        module.bias.data.fill_(bias)
    for norm in (behind, alone):
        norm.running_mean, norm.running_var = torch.tensor([3.0]), torch.tensor([4.0 - norm.eps])
    for layers, shape, tensors, note in (
        ([linear, behind], [1], {"linear_0.weight": 1.0, "linear_0.bias": -5.0}, "`1` is folded into `linear_0`"),
        ([alone], [1, 2, 2], {"batchnorm2d_0.scale": 2.0, "batchnorm2d_0.offset": -7.0}, "`0` is a factor and an offs"),
    ):
        found = taken_in(nn.Sequential(*layers, Spike(), nn.Flatten()), *shape)
        assert {name: each.item() for name, each in found.network.tensors.items()} == pytest.approx(tensors, abs=1e-6)
        assert f"batch norm {note}" in found.notes[0]


def test_what_the_nodes_cannot_do_is_refused_by_name() -> None:
    for module, reason in (
        (nn.ConstantPad2d(1, 0.5), "value is 0.5: only zeros are padded"),
        (nn.ConstantPad2d(-1, 0.0), "padding is (-1, -1, -1, -1): its input has shape 2×4×6, expected"),
        (nn.Upsample(scale_factor=2, mode="bilinear"), "mode is 'bilinear': expected 'nearest', or a ConvTranspose2d"),
        (nn.Upsample(scale_factor=1.5), "it scales 4×6 by (1.5, 1.5): expected whole factors"),
        (nn.AdaptiveAvgPool2d(4), "output_size is 4: windows of several sizes would cover an input of sh"),
    ):
        with pytest.raises(NotConvertible, match=re.escape(reason)):
            taken_in(nn.Sequential(module, Spike(), nn.Flatten()), 2, 4, 6)
