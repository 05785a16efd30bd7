"""Networks whose neurons are their author's own PyTorch code, in the style of published repositories."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as f
from torch import Tensor, nn

from tests.zoo.weights import lively


class Boxcar(torch.autograd.Function):
    """Fires above 0; its gradient is a box."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.gt(0).float()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * (x.abs() < 0.5)


fires_above: Callable[[Tensor], Tensor] = Boxcar.apply


def straight_through(x: Tensor) -> Tensor:
    """Fires above 0, with the gradient of a Gaussian added and taken away again."""
    spikes = (x > 0).float().detach()
    height = torch.exp(-((x - 0.0) ** 2) / (2 * 0.5**2)) / torch.sqrt(2 * torch.tensor(math.pi)) / 0.5
    slope = 0.5 * height.detach() * x
    return slope - slope.detach() + spikes


class ClampedLayer(nn.Module):
    """Adaptive neurons whose parameters are clamped in the forward, and whose states begin at random."""

    def __init__(self, inputs: int, outputs: int, *, adapts: bool = False, recurrent: bool = False) -> None:
        super().__init__()
        self.adapts, self.batch_size, self.threshold = adapts, 1, 1.0
        self.W = nn.Linear(inputs, outputs, bias=False)
        self.V = nn.Linear(outputs, outputs, bias=False) if recurrent else None
        self.norm = nn.BatchNorm1d(outputs, momentum=0.05)
        self.drop = nn.Dropout(0.1)
        self.spike_fct = fires_above
        self.alpha_lim, self.beta_lim = [np.exp(-1 / 5), np.exp(-1 / 25)], [np.exp(-1 / 30), np.exp(-1 / 120)]
        random = torch.Generator().manual_seed(outputs)

        def uniform(low: float, high: float) -> nn.Parameter:
            return nn.Parameter(low + (high - low) * torch.rand(outputs, generator=random))

        self.alpha, self.beta = uniform(0.5, 1.0), uniform(0.9, 1.0)
        self.a, self.b = uniform(-1.2, 1.2), uniform(-0.2, 2.2)

    def forward(self, x: Tensor) -> Tensor:
        if self.batch_size != x.shape[0]:
            self.batch_size = x.shape[0]
        current = self.W(x)
        normed = self.norm(current.reshape(current.shape[0] * current.shape[1], current.shape[2]))
        current = normed.reshape(current.shape[0], current.shape[1], current.shape[2])
        return self.drop(self._cell(current))

    def _cell(self, current: Tensor) -> Tensor:
        device = current.device
        ut = torch.rand(current.shape[0], current.shape[2]).to(device)
        wt = torch.rand(current.shape[0], current.shape[2]).to(device)
        st = torch.rand(current.shape[0], current.shape[2]).to(device)
        alpha = torch.clamp(self.alpha, min=self.alpha_lim[0], max=self.alpha_lim[1])
        beta = torch.clamp(self.beta, min=self.beta_lim[0], max=self.beta_lim[1])
        a, b = torch.clamp(self.a, min=-1.0, max=1.0), torch.clamp(self.b, min=0.0, max=2.0)
        v = None if self.V is None else self.V.weight.clone().fill_diagonal_(0)
        spikes = []
        for t in range(current.shape[1]):
            drive = current[:, t, :] if v is None else current[:, t, :] + torch.matmul(st, v)
            if self.adapts:
                wt = beta * wt + a * ut + b * st
                drive = drive - wt
            ut = alpha * (ut - st) + (1 - alpha) * drive
            st = self.spike_fct(ut - self.threshold)
            spikes.append(st)
        return torch.stack(spikes, dim=1)


class ClampedReadout(nn.Module):
    """Leaky integrators whose softmax is added up over time."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.W = nn.Linear(inputs, outputs)
        self.alpha = nn.Parameter(torch.linspace(0.7, 1.0, outputs))

    def forward(self, x: Tensor) -> Tensor:
        current = self.W(x)
        ut, out = torch.rand(len(x), current.shape[2]), torch.zeros(len(x), current.shape[2])
        alpha = torch.clamp(self.alpha, min=math.exp(-1 / 5), max=math.exp(-1 / 25))
        for t in range(current.shape[1]):
            ut = alpha * ut + (1 - alpha) * current[:, t, :]
            out = out + f.softmax(ut, dim=1)
        return out


class Clamped(nn.Module):
    """Layers one after another, and how often each neuron fires beside the answer."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.snn = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        spikes = []
        for layer in self.snn:
            x = layer(x)
            if x.dim() == 3:
                spikes.append(x)
        return x, torch.cat(spikes, dim=2).mean(dim=(0, 1))


def clamped_recurrent() -> nn.Module:
    layers = [ClampedLayer(12, 16, adapts=True, recurrent=True), ClampedLayer(16, 5, recurrent=True)]
    return lively(Clamped(*layers), seed=303, gain=4.0)


def clamped_readout() -> nn.Module:
    return lively(Clamped(ClampedLayer(12, 16), ClampedReadout(16, 4)), seed=304)


class LeakyReadout(nn.Module):
    """Leaky integrators as a class of their own."""

    def __init__(self, inputs: int, outputs: int, tau: float = 15.0) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.tau_mem = nn.Parameter(tau + torch.arange(outputs, dtype=torch.float32))

    def forward(self, x: Tensor, u: Tensor) -> Tensor:
        alpha = torch.exp(-1 / self.tau_mem.abs())
        return u.mul(alpha) + self.linear(x).mul(1.0 - alpha)


class ResonatorCell(nn.Module):
    """Resonate-and-fire neurons: a complex state as two real ones, and a refractory one that raises the threshold."""

    def __init__(self, inputs: int, outputs: int, *, balanced: bool) -> None:
        super().__init__()
        self.balanced, self.dt = balanced, 0.01
        self.linear = nn.Linear(inputs, outputs, bias=False)
        self.omega = nn.Parameter(torch.linspace(-10.0, 10.0, outputs))
        self.b_offset = nn.Parameter(torch.linspace(0.1, 1.0, outputs))

    def forward(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        current = self.linear(x)
        z, u, v, q = state
        omega = torch.abs(self.omega)
        dt = self.dt
        if not self.balanced:
            b = -torch.abs(self.b_offset)
            u_ = u + b * u * dt - omega * v * dt + current * dt
            v = v + omega * u * dt + b * v * dt
            return straight_through(u_ - 0.05), u_, v, q
        divergence = (-1 + torch.sqrt(1 - torch.square(dt * omega))) / dt
        b = divergence - torch.abs(self.b_offset) - q
        u_ = u + b * u * dt - omega * v * dt + current * dt
        v = v + omega * u * dt + b * v * dt
        z = fires_above(u_ - 0.05 - q)
        return z, u_, v, q.mul(0.9) + z


class Resonators(nn.Module):
    """Such neurons that hear themselves, for their Linear takes the input and their spikes side by side."""

    def __init__(self, *, balanced: bool, recurrent: bool) -> None:
        super().__init__()
        self.recurrent = recurrent
        self.hidden = ResonatorCell(12 + 14 * recurrent, 14, balanced=balanced)
        self.out = LeakyReadout(14, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        num_spikes = torch.tensor(0.0)
        hidden_z = torch.zeros((x.shape[1], 14))
        hidden: tuple[Tensor, ...] = (hidden_z, *(torch.zeros_like(hidden_z) for _ in range(3)))
        out_u, outputs = torch.zeros((x.shape[1], 3)), []
        for t in range(x.shape[0]):
            given = torch.cat((x[t], hidden_z), dim=1) if self.recurrent else x[t]
            hidden_z, *rest = self.hidden(given, hidden)
            hidden = hidden_z, *rest
            num_spikes += hidden_z.sum()
            out_u = self.out(hidden_z, out_u)
            outputs.append(out_u)
        return torch.stack(outputs), hidden, num_spikes


def balanced_resonators() -> nn.Module:
    return lively(Resonators(balanced=True, recurrent=True), seed=308, gain=24.0)


class DendriticLayer(nn.Module):
    """Each neuron has four branches with time constants of their own, whose sum drives its soma; masked weights."""

    mask: Tensor

    def __init__(self, inputs: int, outputs: int, branches: int = 4) -> None:
        super().__init__()
        self.outputs, self.branches = outputs, branches
        self.dense = nn.Linear(inputs, outputs * branches)
        self.tau_m = nn.Parameter(torch.linspace(0.0, 4.0, outputs))
        self.tau_n = nn.Parameter(torch.linspace(2.0, 6.0, outputs * branches).reshape(outputs, branches))
        mask = torch.rand(outputs * branches, inputs, generator=torch.Generator().manual_seed(inputs)) < 0.5
        self.register_buffer("mask", mask.float())

    def set_neuron_state(self, batch: int) -> None:
        self.mem = torch.zeros(batch, self.outputs)
        self.spike = torch.zeros(batch, self.outputs)
        self.d_input = torch.zeros(batch, self.outputs, self.branches)

    def forward(self, x: Tensor) -> Tensor:
        beta, alpha = torch.sigmoid(self.tau_n), torch.sigmoid(self.tau_m)
        current = f.linear(x.float(), self.dense.weight * self.mask, self.dense.bias)
        self.d_input = beta * self.d_input + (1 - beta) * current.reshape(-1, self.outputs, self.branches)
        total = self.d_input.sum(dim=2)
        self.mem = self.mem * alpha + (1 - alpha) * total - 1.0 * self.spike
        self.spike = fires_above(self.mem - 1.0)
        return self.spike


class Dendritic(nn.Module):
    """Sets its states in the forward, and reads the mean rate."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = DendriticLayer(12, 10), DendriticLayer(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.first, self.second):
            layer.set_neuron_state(x.shape[0])
        total: Any = sum(self.second(self.first(x[:, t])) for t in range(x.shape[1]))
        return total / x.shape[1]


def dendritic() -> nn.Module:
    return lively(Dendritic(), seed=311, gain=20.0)


class IntegerNeuron(nn.Module):
    """Fires up to four times a step: the membrane clamped and rounded, and that much is taken away."""

    def forward(self, x: Tensor) -> Tensor:
        mem, spikes = torch.zeros(x.shape[1:]), []
        for step in x:
            mem = mem * 0.25 + step
            spike = torch.round(torch.clamp(mem, 0, 4))
            mem = mem - spike.detach()
            spikes.append(spike)
        return torch.stack(spikes) / 4


class Integer(nn.Module):
    """Such neurons between Linear layers; ends in a Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(12, 16), IntegerNeuron(), nn.Linear(16, 8), IntegerNeuron())
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x)).mean(0)


def integer() -> nn.Module:
    return lively(Integer(), seed=314)


class Rectified(nn.Module):
    """A membrane that a learned slope and a ReLU shape before it is compared; masks write over it in place."""

    mem: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.k, self.w = nn.Parameter(torch.tensor(1.2)), nn.Parameter(torch.tensor(0.3))
        self.register_buffer("mem", torch.zeros(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.mem.shape != x.shape:
            self.mem = torch.zeros_like(x)
        self.mem = self.mem + (x - self.mem) * self.w.sigmoid()
        self.mem = f.relu(self.k * self.mem)
        spike = torch.heaviside(self.mem - 1.0, torch.tensor(0.0))
        self.mem[spike > 0] = -0.25
        return spike


def rectified() -> nn.Module:
    network = nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), Rectified(), nn.Flatten(), nn.Linear(32, 5), Rectified())
    return lively(network, seed=316, gain=4.0)


def updated(connection: nn.Module, x: Tensor, membrane: Tensor, spike: Tensor) -> tuple[Tensor, Tensor]:
    """Charge a membrane that the spike of the step before has set to 0."""
    membrane = membrane * 0.25 * (1.0 - spike) + connection(x)
    return membrane, fires_above(membrane - 0.5)


class Shown(nn.Module):
    """One image for a number of steps that the forward takes; several states begin as one tensor of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc, self.out = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(64, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor, time_window: int = 4) -> Tensor:
        c = c_spike = torch.zeros(len(x), 4, 8, 8)
        h = h_spike = h_sum = torch.zeros(len(x), 16)
        o = o_spike = o_sum = torch.zeros(len(x), 4)
        for _ in range(time_window):
            c, c_spike = updated(self.conv, x.float(), c, c_spike)
            h, h_spike = updated(self.fc, f.avg_pool2d(c_spike, 2).view(len(x), -1), h, h_spike)
            h_sum += h_spike
            o, o_spike = updated(self.out, h_spike, o, o_spike)
            o_sum += o_spike
        return o_sum / time_window


def shown() -> nn.Module:
    return lively(Shown(), seed=320)


class Kept(nn.Module):
    """Membranes in a dictionary of the network, with thresholds and leaks that are parameters of it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(12, 16, bias=False), nn.Linear(16, 8, bias=False), nn.Linear(8, 4)])
        self.threshold = nn.ParameterDict({"0": torch.tensor(0.6), "1": torch.tensor(0.45)})
        self.leak = nn.ParameterDict({"0": torch.tensor(0.95), "1": torch.tensor(0.9)})

    def forward(self, x: Tensor) -> Tensor:
        self.membrane = {at: torch.zeros(len(x), size) for at, size in enumerate((16, 8, 4))}
        for _ in range(6):
            spikes = x
            for at, key in enumerate(self.threshold):
                above = self.membrane[at] / self.threshold[key] - 1.0
                late = self.threshold[key] * (above > 0).float()
                self.membrane[at] = self.leak[key] * self.membrane[at] + self.layers[at](spikes) - late
                spikes = (self.membrane[at] / self.threshold[key] - 1.0 > 0).float()
            self.membrane[2] = self.membrane[2] + self.layers[2](spikes)
        return self.membrane[2]


def kept() -> nn.Module:
    return lively(Kept(), seed=321)
