"""A network's layers as training sees them: the spec's nodes, and what only training knows of them.

Batch norm is folded into the weights, learned delays are rounded and dropout is left out when a layer is written as
nodes and tensors: a server computes nothing that the spec does not say.
"""

from __future__ import annotations

import math
import zlib
from contextlib import nullcontext
from copy import copy
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (its usual name)

from spikeserve.models.engines.torch.network import buffer_name, build
from spikeserve.models.engines.torch.operations import Threshold
from spikeserve.models.spec.network import FloatArray
from spikeserve.models.spec.neuron_parameters import MIN_POSITIVE
from spikeserve.models.spec.nodes import ARRAY_RANGES, Delay, Neuron, Node, Weighted
from spikeserve.models.spec.parameters import PER_NEURON, Shape
from spikeserve.training.fit.architecture import PLAIN, NodeTraining
from spikeserve.training.fit.batch_norm import BatchNorm, WholeBatch
from spikeserve.training.fit.operators import Signal, connect, dense, scan

NARROWEST = 0.5  # of a Gaussian over taps, in steps
NARROW, FIXED = 0.5, 0.8  # the shares of a run after which it is so narrow, and after which delays are fixed


# A layer as a server knows it: its node, and the node's tensors by the name of the parameter.
ServedLayer: TypeAlias = tuple[Node, dict[str, FloatArray]]


class SynapticDelays(nn.Module):
    """A delay for each synapse of a Linear, learned, of 0 to `longest` steps; before it are taps at all of them.

    In training each weight is spread over the taps by a Gaussian around its delay, whose gradient moves the delay, and
    which narrows over the run (DCLS, Hammouamri et al., 2024). In the end, in validation and in serving, delays are
    whole steps.
    """

    def __init__(self, connection: nn.Linear, longest: int) -> None:
        """Take over a Linear of all taps: from now on it has the weights of its synapses, (outputs, inputs)."""
        super().__init__()
        self.longest = longest
        of_one_tap = connection.weight.detach()[:, : connection.in_features // (longest + 1)]
        connection.weight = nn.Parameter(of_one_tap * math.sqrt(longest + 1))
        self.delay = nn.Parameter(torch.rand_like(connection.weight) * longest)
        self.width = 0.0  # of the Gaussian, its standard deviation in steps; 0 where delays are whole and fixed

    def of_taps(self, connection: Any) -> nn.Module:
        """Return the Linear with the weight of all taps, through which gradients reach weights and delays."""
        linear: nn.Module = copy(connection)
        linear._parameters = {"bias": connection.bias}
        linear.weight = self(connection.weight)
        return linear

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight of all taps, (outputs, taps * inputs), of the synapses' weights (outputs, inputs)."""
        if not (self.training and self.width):
            return self.whole(weight)
        distance = torch.arange(self.longest + 1, device=weight.device).unsqueeze(1) - self.delay.unsqueeze(1)
        shares = torch.softmax(-((distance / self.width) ** 2) / 2, dim=1)  # the Gaussian, of which taps have the sum 1
        return (weight.unsqueeze(1) * shares).flatten(1)

    def whole(self, weight: Tensor) -> Tensor:
        """Return the same with whole delays: of each synapse one tap has its weight, and the others 0."""
        taps = torch.arange(self.longest + 1, device=weight.device).unsqueeze(1)
        return (weight.unsqueeze(1) * (taps == self.delay.detach().round().unsqueeze(1))).flatten(1)

    @torch.no_grad()
    def narrow(self, progress: float) -> None:
        """Set the Gaussian's width to what it is at a progress from 0, the start of a run, to 1, its end."""
        self.delay.clamp_(0, self.longest)
        if progress < FIXED:
            widest = max(self.longest / 2, NARROWEST)
            self.width = widest * (NARROWEST / widest) ** min(1.0, progress / NARROW)
        else:
            self.delay.round_()
            self.width = 0.0


class Connection(nn.Module):
    """A Linear or a convolution, the learned delays of its synapses and the batch norm of its currents, if any."""

    def __init__(self, node: Weighted, shape: Shape, training: NodeTraining = PLAIN) -> None:
        super().__init__()
        self.node = node
        self.connection = build(node, shape)
        self.channels = node.output_shape(shape)[0]
        self.delays: SynapticDelays | None = None
        if training.longest_delay and isinstance(self.connection, nn.Linear):
            self.delays = SynapticDelays(self.connection, training.longest_delay)
        self.norm = BatchNorm(self.channels) if training.batch_norm else None
        if self.norm is not None and isinstance(self.connection.bias, nn.Parameter):
            # The norm takes it off again: its gradient is rounding errors, which Adam would make full steps of.
            nn.init.zeros_(self.connection.bias).requires_grad_(False)

    def forward(self, signal: Signal, whole: WholeBatch | None = None, own: Tensor | None = None) -> Signal:
        """Return the currents, (time_steps or 1, batch, *shape).

        Batch norm counts the steps where `own` (time_steps, batch) is set, if it is given; at others its current is 0.
        """
        delays, connection = self.delays, self.connection
        current = connect(connection if delays is None else delays.of_taps(connection), signal)
        if self.norm is None:
            return current
        values = dense(current)
        flat = values.flatten(0, 1)
        flat = flat.flatten(2) if flat.ndim > 2 else flat
        if own is None:
            normed: Tensor = self.norm(flat, whole)
        else:
            kept = self.norm(flat[own.flatten()], whole)
            normed = kept.new_zeros(flat.shape).index_put((own.flatten(),), kept)
        return normed.view_as(values)

    @torch.no_grad()
    def rescale(self, factor: Tensor, shift: Tensor) -> None:
        """Multiply the currents by `factor` and add `shift` to them, each a scalar or one for each output channel."""
        for name, values in (self.norm or self.connection).named_parameters():
            values.mul_(factor.view(-1, *(1 for _ in values.shape[1:])))
            if name == "bias":
                values.add_(shift)

    def written(self) -> ServedLayer:
        """Return the node and its weights, with the batch norm folded in."""
        tensors = {name: values.detach() for name, values in self.connection.named_parameters()}
        if self.delays is not None:
            tensors["weight"] = self.delays.whole(tensors["weight"])
        if self.norm is not None:
            factor = self.norm.weight.detach() / (self.norm.running_var + self.norm.eps).sqrt()
            bias = tensors.get("bias", torch.zeros_like(factor))
            tensors["weight"] = tensors["weight"] * factor.view(-1, *(1 for _ in tensors["weight"].shape[1:]))
            tensors["bias"] = (bias - self.norm.running_mean) * factor + self.norm.bias.detach()
        return self.node, {name: _array(values) for name, values in tensors.items()}


class Neurons(nn.Module):
    """A layer of neurons with its recurrent connection, its learned parameters and its dropout."""

    def __init__(self, node: Neuron, shape: Shape, training: NodeTraining = PLAIN) -> None:
        super().__init__()
        self.node = node
        self.shape = shape
        self.dropout = training.dropout
        self.ranges, self.spread = training.ranges, training.spread
        size = math.prod(shape)
        self.recurrent = nn.Linear(size, size, bias=node.recurrent.bias) if node.recurrent else None
        self.learned = nn.ParameterDict()
        self.names = {name: buffer_name(node, name) for name in node.values()}  # and what each tensor is called
        for name, value in node.values().items():
            key = self.names[name]
            if name in training.learned:
                start = torch.full(shape if value == PER_NEURON else (), training.learned[name])
                self.learned[key] = nn.Parameter(_free(start, *self._range(name)))
            else:
                start = torch.ones(shape) if value == PER_NEURON else torch.tensor(np.float32(value))
                self.register_buffer(key, start)

    def parameter(self, name: str) -> Tensor:
        """Return a parameter, a scalar or of the layer's shape, with its gradient where it is learned."""
        key = self.names[name]
        fixed = self._buffers.get(key)
        return _bounded(self.learned[key], *self._range(name)) if fixed is None else fixed

    @torch.no_grad()
    def set_parameter(self, name: str, values: Tensor) -> None:
        """Set a parameter, learned or not, to `values`, a scalar or of the layer's shape."""
        key = self.names[name]
        if key in self.learned:
            self.learned[key].copy_(_free(values, *self._range(name)))
        else:
            self.get_buffer(key).copy_(values)

    def _range(self, name: str) -> tuple[float, float]:
        """Return the ends of the range that a learned parameter stays in; an author's own has none."""
        return self.ranges.get(name) or ARRAY_RANGES.get(self.names[name], (-math.inf, math.inf))

    def forward(
        self,
        current: Signal,
        time_steps: int,
        threshold: Threshold,
        whole: WholeBatch | None = None,
        membranes: list[Tensor] | None = None,
    ) -> tuple[Signal, Signal]:
        """Return the spikes, or a readout's membranes, of a run from rest, and the same after dropout.

        The membranes of a layer that fires are appended to `membranes`, one for each step, where they are asked for.

        Dropout draws from the seed of `whole`, or from PyTorch's own random numbers without one.
        """
        parameters = {name: self.parameter(name) for name in self.names}
        kind = current.device.type
        off = torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()
        with off:  # products may be in bfloat16, but neurons are not
            leaving = scan(self.node, parameters, current, time_steps, threshold, self.recurrent, membranes)
        passed = self._drop(dense(leaving), whole) if self.training and self.dropout else leaving
        return leaving, passed

    def _drop(self, spikes: Tensor, whole: WholeBatch | None) -> Tensor:
        if whole is None:
            return F.dropout(spikes, self.dropout)
        # Each layer has its own numbers, and each process draws those of the whole batch.
        generator = torch.Generator(spikes.device).manual_seed(whole.seed ^ zlib.crc32(self.node.name.encode()))
        shape = (len(spikes), whole.size, *spikes.shape[2:])
        kept = torch.rand(shape, generator=generator, device=spikes.device)[:, whole.rows] >= self.dropout
        return spikes * kept / (1 - self.dropout)

    def written(self) -> ServedLayer:
        """Return the node and its arrays, with the learned parameters as they are now."""
        values = {name: _array(self.parameter(name)) for name in self.names}
        fields = self.node.values()
        numbers = {name: float(values[name]) for name, value in fields.items() if value != PER_NEURON}
        tensors = {name: values[name] for name, value in fields.items() if value == PER_NEURON}
        if self.recurrent is not None:
            tensors |= {f"recurrent.{name}": _array(value) for name, value in self.recurrent.named_parameters()}
        return self.node.with_values(numbers), tensors


class Delays(nn.Module):
    """Delays, of some taps for the layer, or a learned one for each element, of `longest` steps at most.

    The output is delayed by whole steps, as in serving. A learned delay's gradient is that of a signal whose spikes are
    spread over some steps to both sides (after DCLS, Hammouamri et al., 2024): it points to where a spike would help.
    """

    REACH = 4  # steps

    def __init__(self, node: Delay, shape: Shape, training: NodeTraining = PLAIN) -> None:
        super().__init__()
        self.node = node
        self.shape = shape
        self.longest = training.longest_delay
        if not node.shared:
            self.delay = nn.Parameter(torch.rand(shape) * self.longest)

    def forward(self, signal: Signal, time_steps: int, own: Tensor | None = None) -> Tensor:
        """Return the output, (time_steps, batch, *output shape); before the signal there was none.

        Nor is there one where `own` (time_steps, batch) is given and not set, which a learned delay's gradient sees.
        """
        x = dense(signal)
        x = x.expand(time_steps, *x.shape[1:])
        longest = max(self.node.shared, default=self.longest)
        before = x.new_zeros(longest, *x.shape[1:])
        if self.node.shared:
            x = torch.cat([before, x])
            return torch.cat([x[longest - tap :][:time_steps] for tap in self.node.shared], dim=2)
        if own is not None:
            x = x * own.view(*own.shape, *(1 for _ in self.shape))
        delay = self.delay.clamp(0, longest)
        delayed: Tensor = _Delayed.apply(torch.cat([before, x]), delay, longest, self.REACH)  # type: ignore[no-untyped-call]
        return delayed

    def written(self) -> ServedLayer:
        """Return the node and its delays, in whole steps."""
        if self.node.shared:
            return self.node, {}
        return self.node, {"delay": _array(self.delay.clamp(0, self.longest).round())}


class _Delayed(torch.autograd.Function):
    """A signal (longest + time_steps, batch, *shape), delayed by delays (*shape) in whole steps."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, delay: Tensor, longest: int, reach: int) -> Tensor:
        steps = torch.arange(longest, len(x), device=x.device).view(-1, *(1 for _ in x.shape[1:]))
        places = (steps - delay.round().to(torch.int64)).expand(-1, *x.shape[1:])
        ctx.save_for_backward(x, places)
        ctx.reach, ctx.shape = reach, delay.shape
        return x.gather(0, places)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, places = ctx.saved_tensors
        (gradient,) = gradients
        to_x = torch.zeros_like(x).scatter_add_(0, places, gradient) if ctx.needs_input_grad[0] else None
        to_delay = None
        if ctx.needs_input_grad[1]:
            # The slope at t - delay of x spread by a triangle of `reach` steps: earlier spikes ask for longer delays.
            slope = torch.zeros_like(gradient)
            for distance in range(1, ctx.reach + 1):
                slope += x.gather(0, (places - distance).clamp(min=0)) * (places >= distance)
                slope -= x.gather(0, (places + distance).clamp(max=len(x) - 1)) * (places + distance < len(x))
            to_delay = (gradient * slope).sum(dim=(0, 1)).view(ctx.shape) / ctx.reach**2
        return to_x, to_delay, None, None


def _free(values: Tensor, low: float, high: float) -> Tensor:
    """Return the unbounded numbers of which `_bounded` makes `values`."""
    if high < math.inf:
        return torch.logit(((values - low) / (high - low)).clamp(1e-3, 1 - 1e-4))
    return values.clamp(min=1e-3).log() if low in (0.0, MIN_POSITIVE) else values.clone()


def _bounded(free: Tensor, low: float, high: float) -> Tensor:
    """Return a parameter within its range: a sigmoid between two ends, an exponential for a number above 0."""
    if high < math.inf:
        return low + (high - low) * torch.sigmoid(free)
    return free.exp() if low in (0.0, MIN_POSITIVE) else free


def _array(values: Tensor) -> FloatArray:
    return values.detach().float().cpu().numpy().copy()
