"""Networks in the style of projects and papers that build on SpikingJelly: attention, gates, membranes, own classes."""

from typing import Any

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn
from torch.nn import functional as f

from tests.zoo.weights import lively


def many_steps() -> Any:
    return neuron.LIFNode(tau=2.0, surrogate_function=surrogate.ATan(), detach_reset=True, step_mode="m")


class TokenAttention(nn.Module):
    """Self-attention of tokens (time, batch, tokens, channels), whose channels are split into heads."""

    def __init__(self, channels: int = 12, heads: int = 3) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(channels, channels) for _ in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm1d(channels) for _ in range(3))
        self.fires = nn.ModuleList(many_steps() for _ in range(3))
        self.attends, self.project, self.out = many_steps(), nn.Linear(channels, channels), many_steps()

    def _split(self, x: Tensor, linear: nn.Module, norm: nn.Module, fire: nn.Module) -> Tensor:
        steps, batch, tokens, channels = x.shape
        made = norm(linear(x.flatten(0, 1)).transpose(-1, -2)).reshape(steps, batch, channels, tokens)
        spikes = fire(made.contiguous()).transpose(-1, -2)
        heads = spikes.reshape(steps, batch, tokens, self.heads, channels // self.heads)
        return heads.permute(0, 1, 3, 2, 4).contiguous()

    def forward(self, x: Tensor) -> Tensor:
        linears = (self.query, self.key, self.value)
        query, key, value = (
            self._split(x, *parts) for parts in zip(linears, self.norms, self.fires, strict=True)
        )  # fmt: skip
        mixed = (query @ key.transpose(-2, -1)) @ value * 0.5
        joined = self.attends(mixed.transpose(2, 3).reshape(x.shape).contiguous())
        return self.out(self.project(joined.flatten(0, 1)).reshape(x.shape))


class TokenNetwork(nn.Module):
    """Patches of an image become tokens; the head reads their mean, and that over time."""

    def __init__(self, channels: int = 12) -> None:
        super().__init__()
        self.patch, self.norm, self.fire = nn.Conv2d(2, channels, 2, 2), nn.BatchNorm2d(channels), many_steps()
        self.attention, self.head = TokenAttention(channels), nn.Linear(channels, 5)

    def forward(self, x: Tensor) -> Tensor:
        functional.reset_net(self)
        steps, batch = x.shape[:2]
        patches = self.norm(self.patch(x.flatten(0, 1)))
        tokens = self.fire(patches.reshape(steps, batch, *patches.shape[1:])).flatten(-2).transpose(-1, -2)
        tokens = tokens + self.attention(tokens)
        return self.head(tokens.mean(2).mean(0))


def tokens() -> nn.Module:
    return lively(TokenNetwork(), seed=130, gain=6.0)


class GlobalMaximum(nn.AdaptiveMaxPool2d):
    """A pool of the author's own, over steps too."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.seq_to_ann_forward(x, super().forward)


class Gated(nn.Module):
    """Channels and places of an image are gated by spikes: of their maxima and means, as in CBAM."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.conv, self.fire = layer.Conv2d(2, channels, 3, padding=1), neuron.IFNode()
        self.most, self.mean = GlobalMaximum(1), layer.AdaptiveAvgPool2d(1)
        self.mix, self.opens = layer.Linear(channels, channels), neuron.IFNode()
        self.look, self.shows = layer.Conv2d(2, 1, 3, padding=1), neuron.IFNode()
        self.head = nn.Sequential(layer.Flatten(), layer.Linear(channels * 6 * 6, 5), neuron.IFNode())
        functional.set_step_mode(self, "m")

    def forward(self, x: Tensor) -> Tensor:
        x = self.fire(self.conv(x))
        gates = self.opens(self.mix(self.most(x).flatten(2)) + self.mix(self.mean(x).flatten(2)))
        x = gates[..., None, None] * x
        most, mean = torch.max(x, dim=-3).values, torch.mean(x, dim=-3)
        return self.head(self.shows(self.look(torch.stack([most, mean], dim=2))) * x)


class UpAndDown(nn.Module):
    """Down and up again: by a padded convolution, nearest values and a transposed convolution, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(1, 4, 3, stride=2), neuron.LIFNode())
        self.pad, self.smooth = nn.ConstantPad2d(1, 0.0), nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3))
        self.mid, self.up = neuron.LIFNode(), layer.ConvTranspose2d(4, 2, 2, 2)
        self.out = nn.Sequential(nn.Conv2d(6, 1, 3, padding=1), neuron.LIFNode())

    def forward(self, x: Tensor) -> Tensor:
        low = self.mid(self.smooth(self.pad(self.down(x))))
        return self.out(torch.cat([f.interpolate(low, scale_factor=2, mode="nearest"), self.up(low)], dim=1))


def gated() -> nn.Module:
    return lively(Gated(), seed=132, gain=4.0)


def up_and_down() -> nn.Module:
    return lively(UpAndDown(), seed=133, gain=4.0)


class LIF(neuron.LIFNode):  # type: ignore[misc]
    """The author's own defaults, and nothing else."""

    def __init__(self, tau: float = 4.0) -> None:
        super().__init__(tau, decay_input=False, v_reset=None, detach_reset=True)


def own_defaults() -> nn.Module:
    """Layers of the newer releases: weights that are standardised, a pool over a length, and a delay."""
    network = nn.Sequential(
        layer.WSConv2d(2, 4, 3, padding=1), LIF(), layer.MaxPool2d(2), layer.Delay(delay_steps=2),
        layer.Flatten(), layer.Linear(4 * 3 * 3, 6), LIF(2.0),
    )  # fmt: skip
    functional.set_step_mode(network, "m")
    return lively(network, seed=134)


class Membranes(nn.Module):
    """Reads the membranes that its last neurons kept."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(layer.Linear(12, 10), neuron.ParametricLIFNode(init_tau=2.0))
        self.head = nn.Sequential(layer.Linear(10, 4), neuron.LIFNode(tau=4.0, store_v_seq=True))
        functional.set_step_mode(self, "m")

    def forward(self, x: Tensor) -> Tensor:
        functional.reset_net(self)
        self.head(self.body(x))
        last: Any = self.head[-1]
        return last.v_seq.mean(0)


def membranes() -> nn.Module:
    return lively(Membranes(), seed=135, gain=4.0)


def norms_over_time() -> nn.Module:
    """Return a network with tdBN, TEBN and BNTT, the batch norms that papers on directly trained networks brought."""
    network: Any = nn.Sequential(
        *(layer.Conv2d(2, 4, 3, bias=False), layer.ThresholdDependentBatchNorm2d(1.0, 1.0, 4), neuron.LIFNode()),
        *(layer.Conv2d(4, 4, 3, bias=False), layer.TemporalEffectiveBatchNorm2d(6, 4), neuron.LIFNode()),
        *(layer.Flatten(), layer.Linear(16, 8), layer.BatchNormThroughTime1d(6, 8), neuron.IFNode(v_threshold=0.5)),
    )
    functional.set_step_mode(network, "m")
    with torch.no_grad():
        network[4].scale.copy_(torch.linspace(0.5, 1.5, 6))
    return lively(network, seed=138, gain=4.0)
