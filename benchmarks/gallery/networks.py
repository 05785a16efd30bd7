"""Networks of other frameworks, trained here in loops of their own, which the gallery imports.

digits_snntorch       digits by snnTorch: two layers of `Leaky`
digits_spikingjelly   digits by SpikingJelly: two layers of `ParametricLIFNode`
digits_sinabs         digits by sinabs: two layers of `IAF`
balance_norse         a pole on a cart, by Norse: the force is the membrane of a cell that leaks
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import norse.torch as norse
import numpy as np
import sinabs
import snntorch
import torch
from sinabs.layers import IAF
from snntorch import functional
from spikingjelly.activation_based import functional as jelly
from spikingjelly.activation_based import layer, neuron, surrogate
from torch import Tensor, nn

from spikeserve.models.spec import Coding
from spikeserve.training.config import DataConfig
from spikeserve.training.data.datasets import Dataset, load

CLASSES = {
    "digits_snntorch": "Digits",
    "digits_spikingjelly": "JellyDigits",
    "digits_sinabs": "SinabsDigits",
    "balance_norse": "Balance",
}
Array: TypeAlias = np.ndarray[Any, Any]
SEED = 0  # of the network that is imported
CART_STEPS = 16
LIMITS = np.array([2.4, 3.0, 0.3, 3.0], np.float32)  # of position, speed, angle and its speed: m, m/s, rad, rad/s
GAINS = np.array([1.0, 1.7, 20.0, 4.0], np.float32)  # of the linear controller that is imitated: newtons


def digits() -> Dataset:
    """Return the digits, split as `fit` splits them."""
    return load(DataConfig(dataset="digits"), Coding.DIRECT)


class Digits(nn.Module):
    """64 pixels, 48 hidden neurons, 10 classes, over 12 steps."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(64, 48), snntorch.Leaky(beta=0.9)
        self.fc2, self.lif2 = nn.Linear(48, 10), snntorch.Leaky(beta=0.9)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output spikes (12, batch, 10) of pixels (batch, 64) from 0 to 1."""
        first, second, spikes = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        for _ in range(12):
            hidden, first = self.lif1(self.fc1(x), first)
            output, second = self.lif2(self.fc2(hidden), second)
            spikes.append(output)
        return torch.stack(spikes)


class JellyDigits(nn.Module):
    """64 pixels, 48 hidden neurons, 10 classes, over 8 steps; each layer learns how much its membranes keep."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(layer.Linear(64, 48), neuron.ParametricLIFNode(surrogate_function=surrogate.ATan())),
            *(layer.Linear(48, 10), neuron.ParametricLIFNode(surrogate_function=surrogate.ATan())),
        )
        jelly.set_step_mode(self, "m")

    def forward(self, x: Tensor) -> Tensor:
        """Return the output spikes (8, batch, 10) of pixels (batch, 64) from 0 to 1."""
        jelly.reset_net(self)
        spikes: Tensor = self.layers(x.expand(8, -1, -1))
        return spikes


class SinabsDigits(nn.Module):
    """64 pixels, 48 hidden neurons, 10 classes, over 8 steps; a neuron may fire several times in a step."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 48), IAF(), nn.Linear(48, 10), IAF())

    def forward(self, x: Tensor) -> Tensor:
        """Return the output spikes (8, batch, 10) of pixels (batch, 64) from 0 to 1."""
        sinabs.reset_states(self)
        spikes: Tensor = self.layers(x.unsqueeze(1).expand(-1, 8, -1))
        return spikes.movedim(1, 0)


def digits_snntorch(seed: int = SEED, epochs: int = 30) -> nn.Module:
    """Train `Digits`."""
    return _digits(Digits, seed, epochs)


def digits_spikingjelly(seed: int = SEED, epochs: int = 30) -> nn.Module:
    """Train `JellyDigits`."""
    return _digits(JellyDigits, seed, epochs)


def digits_sinabs(seed: int = SEED, epochs: int = 30) -> nn.Module:
    """Train `SinabsDigits`."""
    return _digits(SinabsDigits, seed, epochs)


def _digits(network_of: Callable[[], nn.Module], seed: int, epochs: int) -> nn.Module:
    torch.manual_seed(seed)
    split = digits().training
    x, y = torch.tensor(split.samples).flatten(1) / 16, torch.tensor(split.labels)
    network, loss_of = network_of(), functional.ce_rate_loss()
    _train(network, x, y, lambda output, wanted: loss_of(output, wanted), epochs)
    return network


class Balance(nn.Module):
    """Four numbers of a cart with a pole, 64 spiking neurons, and the force as a membrane, over 16 steps."""

    def __init__(self) -> None:
        super().__init__()
        parameters = norse.LIFBoxParameters(tau_mem_inv=torch.tensor(200.0))
        self.fc1, self.lif = nn.Linear(4, 64), norse.LIFBoxCell(parameters)
        self.fc2, self.force = nn.Linear(64, 1), norse.LIBoxCell(norse.LIBoxParameters(tau_mem_inv=torch.tensor(100.0)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the force (16, batch, 1) of states (batch, 4), each over its limit of LIMITS."""
        first: Any = None
        last: Any = None
        forces = []
        for _ in range(CART_STEPS):
            spikes, first = self.lif(self.fc1(x), first)
            force, last = self.force(self.fc2(spikes), last)
            forces.append(force)
        return torch.stack(forces)


def states(count: int, seed: int) -> tuple[Array, Array]:
    """Return random states (count, 4) within LIMITS, and the linear controller's force (count, 1), at most 10 N.

    They lie denser near rest, where the force has to be finest.
    """
    random = np.random.default_rng(seed)
    drawn = (random.uniform(-1, 1, (count, 4)) * random.uniform(0, 1, (count, 1))).astype(np.float32)
    return drawn * LIMITS, np.clip(drawn * LIMITS @ GAINS, -10, 10)[:, np.newaxis]


def balance_norse(seed: int = SEED, epochs: int = 40) -> nn.Module:
    """Train `Balance` on 4,000 states, to the force that a linear controller would give."""
    torch.manual_seed(seed)
    drawn, force = states(4000, 1)
    network = Balance()
    _train(
        network,
        torch.tensor(drawn / LIMITS),
        torch.tensor(force),
        lambda output, wanted: nn.functional.mse_loss(output[-4:], wanted.expand(4, -1, -1)),
        epochs,
    )
    return network


STARTS = "200 starts of up to 0.2 rad, for 10 s each"


def balanced(force_of: Callable[[Array], Array]) -> float:
    """Return the share of STARTS from which a cart keeps its pole up, under forces (starts,) of states (starts, 4).

    The equations are those of Barto, Sutton and Anderson (1983), by steps of 20 ms.
    """
    state = np.random.default_rng(3).uniform(-1, 1, (200, 4)) * np.array([0.5, 0.2, 0.2, 0.2])
    up = np.ones(len(state), bool)
    for _ in range(500):
        up &= (abs(state[:, 0]) < LIMITS[0]) & (abs(state[:, 2]) < LIMITS[2])
        force = force_of(np.clip(state, -LIMITS, LIMITS).astype(np.float32))
        speed, angle, turning = state[:, 1], state[:, 2], state[:, 3]
        pushed = (force + 0.05 * turning**2 * np.sin(angle)) / 1.1
        turned = (9.8 * np.sin(angle) - np.cos(angle) * pushed) / (0.5 * (4 / 3 - 0.1 * np.cos(angle) ** 2 / 1.1))
        moved = pushed - 0.05 * turned * np.cos(angle) / 1.1
        change = np.stack([speed, moved, turning, turned], 1)
        state = np.where(up[:, np.newaxis], state + 0.02 * change, state)
    return float(up.mean())


def _train(network: nn.Module, x: Tensor, y: Tensor, loss_of: Any, epochs: int) -> None:
    optimiser = torch.optim.Adam(network.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    for _ in range(epochs):
        for batch in torch.split(torch.randperm(len(x)), 64):
            loss = loss_of(network(x[batch]), y[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        schedule.step()
