"""Networks whose neurons are their author's own PyTorch code, in the style of published repositories."""

from __future__ import annotations

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


class FastSigmoid(torch.autograd.Function):
    """Fires from 0 on; its gradient is that of a fast sigmoid."""

    scale = 25.0

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x >= 0).float()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad / (FastSigmoid.scale * x.abs() + 1.0) ** 2


fires_above: Callable[[Tensor], Tensor] = Boxcar.apply
fires_from: Callable[[Tensor], Tensor] = FastSigmoid.apply


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


def clamped_lif() -> nn.Module:
    return lively(Clamped(ClampedLayer(12, 16), ClampedLayer(16, 5)), seed=301, gain=6.0)


def clamped_adaptive() -> nn.Module:
    layers = [ClampedLayer(12, 16, adapts=True), ClampedLayer(16, 5, adapts=True)]
    return lively(Clamped(*layers), seed=302, gain=6.0)


def clamped_recurrent() -> nn.Module:
    layers = [ClampedLayer(12, 16, adapts=True, recurrent=True), ClampedLayer(16, 5, recurrent=True)]
    return lively(Clamped(*layers), seed=303, gain=4.0)


def clamped_readout() -> nn.Module:
    return lively(Clamped(ClampedLayer(12, 16), ClampedReadout(16, 4)), seed=304)


class SymplecticLayer(nn.Module):
    """Adaptive neurons whose adaptation takes the new membrane, in a scan; the membranes begin at a learned value."""

    thr: Tensor

    def __init__(self, inputs: int, outputs: int, *, symplectic: bool = True) -> None:
        super().__init__()
        self.symplectic, self.q = symplectic, 12.0
        self.weight = nn.Linear(inputs, outputs)
        self.recurrent = nn.Linear(outputs, outputs, bias=False)
        random = torch.Generator().manual_seed(outputs)
        self.tau_u = nn.Parameter(torch.rand(outputs, generator=random))
        self.tau_w = nn.Parameter(torch.rand(outputs, generator=random))
        self.a, self.b = nn.Parameter(torch.full((outputs,), 0.5)), nn.Parameter(torch.full((outputs,), 1.0))
        self.u0 = nn.Parameter(torch.rand(outputs, generator=random) * 0.9)
        self.register_buffer("thr", torch.tensor([1.0]))

    @staticmethod
    def decay(weight: Tensor, shortest: float, longest: float) -> Tensor:
        return torch.exp(-1.0 / (shortest + weight.clamp(0.0, 1.0) * (longest - shortest)))

    def forward(self, inputs: Tensor) -> Tensor:
        current = f.linear(inputs, self.weight.weight, self.weight.bias)
        alpha, beta = self.decay(self.tau_u, 5.0, 25.0), self.decay(self.tau_w, 60.0, 300.0)

        def step(carry: tuple[Tensor, Tensor, Tensor], cur: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
            u_before, z_before, w = carry
            cur = cur + f.linear(z_before, self.recurrent.weight, None)
            u = alpha * u_before + (1.0 - alpha) * (cur - w)
            z = fires_above(u - self.thr)
            u = u * (1 - z.detach())
            if self.symplectic:
                w = beta * w + (1.0 - beta) * (self.a * u + self.b * z) * self.q
            else:
                w = beta * w + (1.0 - beta) * (self.a * u_before + self.b * z_before) * self.q
            return (u, z, w), z

        zeros = torch.zeros(len(inputs), len(self.u0), requires_grad=True)
        return scan(step, (self.u0.unsqueeze(0), zeros, torch.zeros_like(zeros)), current)


def scan(step: Callable[..., Any], carry: Any, inputs: Tensor) -> Tensor:
    outputs = []
    for each in inputs.unbind(1):
        carry, output = step(carry, each)
        outputs.append(output)
    return torch.stack(outputs, 1)


class LeakyReadout(nn.Module):
    """Leaky integrators as a class of their own."""

    def __init__(self, inputs: int, outputs: int, tau: float = 15.0) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.tau_mem = nn.Parameter(tau + torch.arange(outputs, dtype=torch.float32))

    def forward(self, x: Tensor, u: Tensor) -> Tensor:
        alpha = torch.exp(-1 / self.tau_mem.abs())
        return u.mul(alpha) + self.linear(x).mul(1.0 - alpha)


class Symplectic(nn.Module):
    """Two such layers, and the mean of leaky integrators behind them."""

    def __init__(self, *, symplectic: bool) -> None:
        super().__init__()
        self.first = SymplecticLayer(12, 16, symplectic=symplectic)
        self.second = SymplecticLayer(16, 12, symplectic=symplectic)
        self.out = LeakyReadout(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.second(self.first(x))
        u, membranes = torch.zeros(len(x), 4), []
        for step in spikes.unbind(1):
            u = self.out(step, u)
            membranes.append(u)
        return torch.stack(membranes, 1).mean(1)


def symplectic() -> nn.Module:
    return lively(Symplectic(symplectic=True), seed=305, gain=8.0)


def euler_forward() -> nn.Module:
    return lively(Symplectic(symplectic=False), seed=306, gain=8.0)


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


def resonators() -> nn.Module:
    return lively(Resonators(balanced=False, recurrent=False), seed=307, gain=16.0)


def balanced_resonators() -> nn.Module:
    return lively(Resonators(balanced=True, recurrent=True), seed=308, gain=24.0)


class AdaptiveNeuron(nn.Module):
    """A threshold that adapts before it is compared; parameters by sigmoid and softplus, and a hard reset."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.threshold_base = nn.Parameter(torch.full((size,), 1.0))
        self.alpha_raw = nn.Parameter(torch.linspace(1.0, 3.0, size))
        self.rho_raw = nn.Parameter(torch.linspace(0.5, 2.0, size))
        self.beta_raw = nn.Parameter(torch.linspace(-2.0, 0.0, size))

    @property
    def alpha(self) -> Tensor:
        return torch.sigmoid(self.alpha_raw)

    def forward(self, current: Tensor, v: Tensor, a: Tensor, before: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a = torch.sigmoid(self.rho_raw) * a + before
        theta = self.threshold_base + f.softplus(self.beta_raw) * a
        v = self.alpha * v + (1.0 - self.alpha) * current
        spikes = fires_from(v - theta)
        return v * (1.0 - spikes), spikes, a


class Benchmark(nn.Module):
    """A convolution with a scalar decay, then adaptive neurons; both loop over time, batch first."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.beta_raw = nn.Parameter(torch.tensor(np.log(0.9 / 0.1)).float())
        self.fc, self.neuron = nn.Linear(4 * 36, 6), AdaptiveNeuron(6)

    def forward(self, x: Tensor) -> Tensor:
        batch, steps = x.shape[:2]
        with torch.no_grad():
            shape = self.conv(torch.zeros(1, *x.shape[2:])).shape[1:]
        v, beta = torch.zeros(batch, *shape), torch.sigmoid(self.beta_raw)
        v2, s2, a2 = (torch.zeros(batch, 6) for _ in range(3))
        out = torch.zeros(batch, 6)
        for t in range(steps):
            v = beta * v + (1.0 - beta) * self.bn(self.conv(x[:, t]))
            spikes = fires_from(v - 1.0)
            v = v * (1.0 - spikes)
            v2, s2, a2 = self.neuron(self.fc(spikes.flatten(1)), v2, a2, s2)
            out = out + s2
        return out / steps


def benchmark() -> nn.Module:
    return lively(Benchmark(), seed=309, gain=8.0)


class TwoCompartments(nn.Module):
    """A dendrite and a soma that drive each other, kept as attributes; `None` is at rest."""

    def __init__(self, decay: float = 0.5) -> None:
        super().__init__()
        self.decay_factor = nn.Parameter(torch.full((1, 2), decay))
        self.gamma, self.v_threshold = 0.5, 1.0
        self.dendrite: Tensor | None = None
        self.soma: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.dendrite is None or self.soma is None:
            self.dendrite, self.soma = torch.zeros_like(x), torch.zeros_like(x)
        self.dendrite = self.dendrite - torch.sigmoid(self.decay_factor[0][0]) * self.soma + x
        self.soma = self.soma + torch.sigmoid(self.decay_factor[0][1]) * self.dendrite
        spike = fires_from(self.soma - self.v_threshold)
        self.dendrite = self.dendrite - self.gamma * spike
        self.soma = self.soma - spike.detach() * self.v_threshold
        return spike

    def reset(self) -> None:
        self.dendrite = self.soma = None


def two_compartments() -> nn.Module:
    network = nn.Sequential(nn.Linear(12, 16), TwoCompartments(), nn.Linear(16, 5), TwoCompartments(1.0))
    return lively(network, seed=310)


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
        rate: Tensor = total / x.shape[1]
        return rate


def dendritic() -> nn.Module:
    return lively(Dendritic(), seed=311, gain=20.0)


class GatedNeuron(nn.Module):
    """A gated neuron: sigmoids of learned numbers weigh two leaks, two ways to integrate and two resets."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        gates = torch.linspace(-0.5, 0.5, 3 * channels).reshape(3, channels, 1, 1)
        self.alpha, self.beta, self.gamma = (nn.Parameter(each) for each in gates)
        self.tau, self.linear, self.leak = (nn.Parameter(torch.full((channels, 1, 1), x)) for x in (-1.0, 0.2, 0.3))

    def forward(self, x: Tensor) -> Tensor:
        """Take (time, batch, channels, height, width)."""
        u = torch.zeros(x.shape[1:])
        spikes, out = torch.zeros_like(u), []
        al, be, ga = self.alpha.sigmoid(), self.beta.sigmoid(), self.gamma.sigmoid()
        for step in x:
            current = step * (1 - be * (1 - self.linear.sigmoid()))
            u = (1 - al * (1 - self.tau.sigmoid())) * u * (1 - ga * spikes) - (1 - al) * self.leak.sigmoid() * 0.1
            u = u + current - (1 - ga) * 0.9 * spikes
            spikes = (u >= 0.9).to(torch.float32)
            out.append(spikes)
        return torch.stack(out)


class Gated(nn.Module):
    """Convolutions over time and batch in one axis, with such neurons."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.bn1, self.bn2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.n1, self.n2, self.fc = GatedNeuron(4), GatedNeuron(4), nn.Linear(4 * 9, 5)

    def forward(self, x: Tensor) -> Tensor:
        steps, batch = x.shape[:2]
        y = self.n1(self.bn1(self.conv1(x.flatten(0, 1))).reshape(steps, batch, 4, 6, 6))
        y = f.avg_pool2d(self.n2(self.bn2(self.conv2(y.flatten(0, 1))).reshape(steps, batch, 4, 6, 6)).flatten(0, 1), 2)
        return self.fc(y.flatten(1)).reshape(steps, batch, 5).mean(0)


def gated() -> nn.Module:
    return lively(Gated(), seed=312, gain=4.0)


class Complementary(nn.Module):
    """A second state that remembers spikes and resets deeper; both leak by what the membrane says."""

    def __init__(self, tau: float = 2.0) -> None:
        super().__init__()
        self.gamma, self.tau = 1.0 - 1.0 / tau, tau
        self.v: Any = 0.0
        self.m: Any = 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.v = self.v * self.gamma + x
        self.m = self.m * torch.sigmoid(self.v / self.tau)
        spike = torch.where(self.v >= 1.0, 1.0, 0.0)
        self.m += spike
        self.v = self.v - spike * (1.0 + torch.sigmoid(self.m))
        return spike

    def reset(self) -> None:
        self.v = self.m = 0.0


def complementary() -> nn.Module:
    return lively(nn.Sequential(nn.Linear(12, 16), Complementary(), nn.Linear(16, 4), Complementary()), seed=313)


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


class Eligible(nn.Module):
    """Adaptive neurons that rest for some steps after a spike, as in codes of e-prop; outputs leak too."""

    beta: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.w_in, self.w_rec, self.w_out = nn.Linear(12, 14), nn.Linear(14, 14, bias=False), nn.Linear(14, 3)
        self.n_refractory, self.thr = 3, 0.6
        self.register_buffer("beta", torch.cat((torch.zeros(7), torch.full((7,), 0.16))))
        self.decay, self.decay_a, self.decay_out = math.exp(-1 / 20), math.exp(-1 / 100), math.exp(-1 / 10)

    def forward(self, x: Tensor) -> Tensor:
        steps, batch, _ = x.shape
        v, a, r, z = (torch.zeros(batch, 14) for _ in range(4))
        y = torch.zeros(batch, 3)
        outputs = []
        rec = self.w_rec.weight * (1 - torch.eye(14))
        for t in range(steps):
            current = self.w_in(x[t]) + f.linear(z, rec)
            v = self.decay * v + current - z * self.thr
            a = self.decay_a * a + z
            free = r == 0
            z = ((v > self.thr + self.beta * a) & free).float()
            r = torch.clamp(r + self.n_refractory * z - 1, 0, self.n_refractory)
            y = self.decay_out * y + self.w_out(z)
            outputs.append(y)
        return torch.stack(outputs, 0)


def eligible() -> nn.Module:
    return lively(Eligible(), seed=315, gain=1.5)


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


class Delayed(nn.Module):
    """Hears its spikes of two steps ago, in a line of them that is handed on; fires -1 and 1."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.gain, self.out = nn.Linear(12, 10), nn.Parameter(torch.linspace(-0.5, 0.5, 10)), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        u, first, second = (torch.zeros(batch, 10) for _ in range(3))
        li, best = torch.zeros(batch, 4), torch.full((batch, 4), -1e9)
        for t in range(x.shape[1]):
            u = 0.8 * u + self.fc(x[:, t]) + self.gain * second
            spike = torch.sign(u) * (u.abs() > 1.0)
            u = u - spike
            first, second = spike, first
            li = li + (self.out(spike) - li) / 4
            best = torch.maximum(best, li)
        return best


def delayed() -> nn.Module:
    return lively(Delayed(), seed=317)


class Parallel(nn.Module):
    """A neuron without a loop: a matrix over time."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.fc, self.weight = nn.Linear(12, 4), nn.Parameter(torch.tril(torch.ones(steps, steps)))
        self.bias = nn.Parameter(torch.full((steps, 1), -1.0))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.addmm(self.bias, self.weight, self.fc(x).flatten(1))
        return (h >= 0).float().view(x.shape[0], x.shape[1], -1)


def parallel() -> nn.Module:
    return lively(Parallel(8), seed=318)


class Annealed(nn.Module):
    """Its leak grows with the number of the step, which no step of a served network knows."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        v, out = torch.zeros(x.shape[1], 4), []
        for t, step in enumerate(x):
            v = v * (1 - 1 / (t + 2)) + self.fc(step)
            out.append((v > 1).float())
            v = v - out[-1]
        return torch.stack(out)


def annealed() -> nn.Module:
    return lively(Annealed(), seed=319)


def updated(connection: nn.Module, x: Tensor, membrane: Tensor, spike: Tensor) -> tuple[Tensor, Tensor]:
    """Charge a membrane that the spike of the step before has set to 0."""
    membrane = membrane * 0.25 * (1.0 - spike) + connection(x)
    return membrane, fires_above(membrane - 0.5)


class Shown(nn.Module):
    """One image for a number of steps that the forward takes; several states begin as one tensor of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc, self.out = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(64, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor, time_window: int = 8) -> Tensor:
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
        for _ in range(10):
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


class InTime(nn.Module):
    """Layers that know no time, over steps and samples in one axis."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x.flatten(0, 1).contiguous())
        return y.view([*x.shape[:2], *y.shape[1:]])


class Looped(nn.Module):
    """A neuron that loops over the second axis, and is reset by a product."""

    def forward(self, x: Tensor) -> Tensor:
        v: Any = 0
        out = []
        for t in range(x.shape[1]):
            v = v * 0.5 + x[:, t, ...]
            spike = fires_above(v - 1.0)
            v = (1 - spike) * v
            out.append(spike)
        return torch.stack(out, dim=1)


class Contained(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            InTime(nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6)),
            Looped(),
            InTime(nn.AvgPool2d(2)),
            InTime(nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8)),
            Looped(),
        )
        self.classifier = InTime(nn.Linear(128, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.features(x), 2))


def contained() -> nn.Module:
    return lively(Contained(), seed=322, gain=4.0)
