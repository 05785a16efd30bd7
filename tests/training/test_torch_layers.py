"""PyTorch's layers beyond the usual ones: what each computes is what the network that it becomes computes."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn

from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines.event.engine import EventEngine
from spikeserve.models.spec.nodes import IF, Concatenate, Flatten, MatMul, Multiply, Permute, Reshape
from spikeserve.training.errors import InvalidGraph, NotConvertible
from spikeserve.training.importers import connections
from spikeserve.training.importers.builder import Builder, Draft, Options
from tests.same import EVERYTHING
from tests.training.plain_network import Spike, taken_in

LAYERS = {
    "average over a length": (nn.AvgPool1d(4, stride=2, padding=1), (2, 9)),
    "maximum over a length": (nn.MaxPool1d(3, stride=1, padding=1), (2, 9)),
    "averages that overhang": (nn.AvgPool1d(3, stride=2, padding=1, ceil_mode=True), (2, 8)),
    "averages that overhang without padding": (
        nn.AvgPool2d(3, stride=2, padding=1, ceil_mode=True, count_include_pad=False),
        (2, 8, 7),
    ),
    "averages that leave the padding out": (
        nn.AvgPool2d((2, 4), 1, padding=(1, 2), count_include_pad=False),
        (2, 4, 4),
    ),
    "maxima that overhang": (nn.MaxPool2d(3, stride=2, ceil_mode=True), (2, 8, 6)),
    "maxima whose last window would begin in the padding": (nn.MaxPool1d(3, 3, padding=1, ceil_mode=True), (2, 8)),
    "global average over a length": (nn.AdaptiveAvgPool1d(1), (2, 8)),
    "adaptive average": (nn.AdaptiveAvgPool2d((2, None)), (2, 4, 3)),
    "global average": (nn.AdaptiveAvgPool2d(1), (2, 4, 4)),
    "transposed convolution over a length": (
        nn.ConvTranspose1d(2, 4, 3, stride=2, padding=1, output_padding=1, groups=2),
        (2, 5),
    ),
    "transposed convolution": (
        nn.ConvTranspose2d(4, 6, (2, 3), stride=(1, 2), padding=(0, 1), dilation=(2, 1), groups=2, bias=False),
        (4, 3, 4),
    ),
    "adaptive maximum": (nn.AdaptiveMaxPool2d((2, 1)), (2, 4, 3)),
    "zeros around": (nn.ConstantPad2d(2, 0.0), (2, 3, 4)),
    "zeros at some ends": (nn.ZeroPad2d((0, 2, 3, 1)), (2, 3, 4)),
    "zeros before a length": (nn.ConstantPad1d((4, 0), 0.0), (2, 5)),
    "nearest values": (nn.Upsample(scale_factor=(2, 3), mode="nearest"), (2, 3, 4)),
    "nearest values of a length": (nn.Upsample(size=8), (2, 4)),
    "linear along the last of three axes": (nn.Linear(4, 3), (2, 3, 4)),
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


def test_a_batch_norm_behind_no_connection_becomes_a_scale_of_each_channel() -> None:
    # Mean 3, variance 4 - eps, so a standard deviation of 2; gamma 4, beta -1: 4 * (x - 3) / 2 - 1 = 2 x - 7.
    norm = nn.BatchNorm2d(1).eval()
    norm.running_mean, norm.running_var = torch.tensor([3.0]), torch.tensor([4.0 - norm.eps])
    norm.weight.data.fill_(4.0)
    norm.bias.data.fill_(-1.0)
    found = taken_in(nn.Sequential(norm, Spike(), nn.Flatten()), 1, 2, 2)
    tensors = {name: tensor.item() for name, tensor in found.network.tensors.items()}
    assert tensors == pytest.approx({"batchnorm2d_0.scale": 2.0, "batchnorm2d_0.offset": -7.0}, abs=1e-5)
    assert "batch norm `0` is a factor and an offset of each channel" in found.notes[0]


def test_what_the_nodes_cannot_do_is_refused_by_name() -> None:
    network = nn.Sequential(nn.MaxPool1d(2, dilation=2), nn.AdaptiveAvgPool1d(3))
    with pytest.raises(NotConvertible) as refused:
        taken_in(nn.Sequential(*network, Spike(), nn.Flatten()), 1, 20)
    for reason in ("dilation is 2: a pool has no gaps",):
        assert reason in str(refused.value)
    for module, reason in (
        (nn.ConstantPad2d(1, 0.5), "value is 0.5: only zeros are padded"),
        (nn.ConstantPad2d(-1, 0.0), "padding is (-1, -1, -1, -1): its input has shape 2×4×6, expected"),
        (nn.Upsample(scale_factor=2, mode="bilinear"), "mode is 'bilinear': expected 'nearest', or a ConvTranspose2d"),
        (nn.Upsample(scale_factor=1.5), "it scales 4×6 by (1.5, 1.5): expected whole factors"),
    ):
        with pytest.raises(NotConvertible, match=re.escape(reason)):
            taken_in(nn.Sequential(module, Spike(), nn.Flatten()), 2, 4, 6)
    with pytest.raises(NotConvertible, match="output_size is 3: windows of several sizes would cover an input of sh"):
        taken_in(nn.Sequential(nn.AdaptiveAvgPool1d(3), Spike(), nn.Flatten()), 1, 20)
    with pytest.raises(
        InvalidGraph, match=r"^node 'pool': averages an input of shape 1×6×5 into 3×2, expected outputs"
    ):
        connections.adaptive_average("pool", (1, 6, 5), (3, 2))


def test_joins_are_added_with_the_names_of_their_inputs() -> None:
    # 1 * 3 = 3 for each of two values, then the products behind the input: (3, 3, 1, 1).
    builder = Builder((2,))
    three = builder.add(connections.linear("three", np.eye(2) * 3, None))
    product = builder.add(Draft("product", Multiply), [three, "input"])
    builder.add(Draft("both", Concatenate, {"axis": 0}), [product, "input"])
    assert builder.shape == (4,)
    square = builder.add(Draft("square", Reshape, {"shape": (2, 2)}))
    turned = builder.add(Draft("turned", Permute, {"order": (1, 0)}))
    builder.add(Draft("matrix", MatMul), [square, turned])
    builder.add(Draft("flat", Flatten))
    builder.add(connections.affine("norm", np.array([1.0, 2, 3, 4]), np.zeros(4)))
    builder.add(Draft("out", IF))
    network = builder.network(Options(time_steps=1), dt=None)
    # (3, 3; 1, 1) times its transposed is (18, 6; 6, 2), each scaled by its own.
    run, _ = EventEngine(network).run(DenseInputs(np.ones((1, 1, 2), np.float32), 1), record=EVERYTHING)
    assert run.membranes["out"][0, 0].tolist() == [17, 11, 17, 7]
    with pytest.raises(InvalidGraph, match="node 'one': inputs"):
        builder.add(Draft("one", Multiply), ["out"])


def test_a_batch_norm_behind_a_transposed_convolution_scales_its_outputs() -> None:
    # As many channels in as out, so that the weight's first axis, its inputs, could be mistaken for the other.
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(2).eval()
    norm.weight.data, norm.running_mean = torch.tensor([2.0, -3.0]), torch.tensor([0.5, 0.25])
    module = nn.Sequential(nn.ConvTranspose2d(2, 2, 2), norm, Spike())
    converted = taken_in(module, 2, 3, 3)
    x = torch.randint(0, 2, (1, 4, 2, 3, 3)).float()
    result, _ = EventEngine(converted.network).run(DenseInputs(x.numpy(), 1), record=EVERYTHING)
    np.testing.assert_array_equal(list(result.rasters.values())[-1][0], module(x[0]).detach().numpy())
