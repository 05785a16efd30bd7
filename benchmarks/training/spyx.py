"""Spyx: its LIF and RLIF under its `run`, with Flax's connections over time × batch, the whole step jitted.

Parameters and the optimiser's state go in and come out, and the old ones are given up for the new ones to lie in.
Channels come last, which XLA likes best.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from spyx import axn
from spyx.nn import LIF, RLIF, run

from benchmarks.contestants.base import SLOPE, Skipped, Targets, TrainingJob, stages
from benchmarks.contestants.jax_stack import Array, channels_last
from spikeserve.models.engines.base import Counts
from spikeserve.models.spec.network import FloatArray
from spikeserve.models.spec.nodes import Conv2d, Flatten, Linear, MaxPool2d, Node
from spikeserve.models.spec.parameters import Shape


class Batch(NamedTuple):
    """Spikes (time, batch, *shape) with channels last, and targets (batch,)."""

    steps: Array
    targets: Array


class Layout(NamedTuple):
    """How a tensor lies in Spyx: a function that turns the network's into it, and one that turns it back."""

    there: Callable[[FloatArray], FloatArray]
    back: Callable[[FloatArray], FloatArray]


class SpyxTraining:
    """A network of Spyx's neurons under optax's Adam."""

    def __init__(self, job: TrainingJob) -> None:
        self._rate = jnp.float32(job.learning_rate)  # an argument of the step: as a constant, 0 could be compiled away
        self._layouts: dict[str, Layout] = {}
        modules: dict[str, Any] = {}
        order: list[tuple[list[Callable[[Any, Array], Array]], str]] = []
        rngs = nnx.Rngs(0)
        for stage in stages(job.network):
            applied = []
            before: Shape | None = None  # what was flattened to feed the next linear layer
            for node, shape in stage.connections:
                module, layout = _connection(node, before, rngs)
                before = shape if isinstance(node, Flatten) else None
                if layout is not None:
                    tensor = f"{node.name}.weight"
                    module.kernel[...] = jnp.asarray(layout.there(job.network.tensors[tensor]))
                    modules[node.name], self._layouts[tensor] = module, layout
                applied.append(_by_name(node.name) if layout is not None else _plain(module))
            name = stage.neuron.name
            kind = LIF if stage.recurrent is None else RLIF
            neurons = kind(
                tuple(np.roll(stage.shape, -1)) if len(stage.shape) == 3 else stage.shape,
                beta=stage.decay,
                threshold=stage.threshold,
                activation=axn.superspike(k=SLOPE),
                rngs=rngs,
            )
            if stage.recurrent is not None:
                neurons.recurrent_w[...] = jnp.asarray(stage.recurrent.T)
                self._layouts[f"{name}.recurrent.weight"] = Layout(np.transpose, np.transpose)
            modules[name] = neurons
            order.append((applied, name))

        def is_learned(path: tuple[Any, ...], value: Any) -> bool:
            return isinstance(value, nnx.Param) and path[-1] != "beta"  # nor does anyone else learn the decay

        graph, self._parameters, rest = nnx.split(modules, is_learned, ...)
        adam = optax.scale_by_adam()
        self._state = adam.init(self._parameters)

        def forward(parameters: Any, spikes: Array) -> Array:
            merged = nnx.merge(graph, parameters, rest)
            for applied, name in order:
                flat = spikes.reshape(-1, *spikes.shape[2:])
                for apply in applied:
                    flat = apply(merged, flat)
                spikes = run(merged[name], flat.reshape(*spikes.shape[:2], *flat.shape[1:]))[0]
            return spikes.sum(axis=0)

        def loss_of(parameters: Any, batch: Batch) -> Array:
            logits = forward(parameters, batch.steps)
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets).mean()

        def step(parameters: Any, state: Any, rate: Array, batch: Batch) -> Any:
            loss, gradients = jax.value_and_grad(loss_of)(parameters, batch)
            updates, state = adam.update(gradients, state)
            parameters = jax.tree.map(lambda value, update: value - rate * update, parameters, updates)
            return parameters, state, loss, gradients

        self._step = jax.jit(step, donate_argnums=(0, 1))
        self._forward = jax.jit(forward)

    def load(self, steps: FloatArray, targets: Targets) -> Batch:
        """Return a batch of spikes (time_steps, batch, *shape) with its targets (batch,)."""
        return Batch(jnp.asarray(channels_last(steps)), jnp.asarray(targets))

    def step(self, batch: Batch) -> float:
        """Take a training step and return its loss."""
        self._parameters, self._state, loss, self._gradients = self._step(
            self._parameters, self._state, self._rate, batch
        )
        return float(loss)

    def gradients(self) -> dict[str, FloatArray]:
        """Return the gradients of the last step."""
        found = {}
        for tensor, layout in self._layouts.items():
            node, _, parameter = tensor.partition(".")
            kept = self._gradients[node]["kernel" if parameter == "weight" else "recurrent_w"]
            found[tensor] = layout.back(np.asarray(kept[...]))
        return found

    def counts(self, batch: Batch) -> Counts:
        """Return the spike counts (batch, classes)."""
        return np.asarray(self._forward(self._parameters, batch.steps)).astype(np.int64)


def prepare(job: TrainingJob) -> SpyxTraining:
    """Return the training of Spyx."""
    return SpyxTraining(job)


def _by_name(name: str) -> Callable[[Any, Array], Array]:
    return lambda modules, x: modules[name](x)


def _plain(function: Callable[[Array], Array]) -> Callable[[Any, Array], Array]:
    return lambda _, x: function(x)


def _connection(node: Node, flattened: Shape | None, rngs: Any) -> tuple[Any, Layout | None]:
    """Return a connection over samples, and how its weights lie if it has some; `flattened` is what feeds it."""
    if isinstance(node, Linear) and not node.bias:
        return nnx.Linear(node.in_features, node.out_features, use_bias=False, rngs=rngs), _linear(flattened)
    if isinstance(node, Conv2d) and not node.bias and node.groups == 1:
        module = nnx.Conv(
            *(node.in_channels, node.out_channels, node.kernel_size),
            strides=node.stride,
            padding=[(pad, pad) for pad in node.padding],
            kernel_dilation=node.dilation,
            use_bias=False,
            rngs=rngs,
        )
        return module, Layout(lambda weight: weight.transpose(2, 3, 1, 0), lambda kernel: kernel.transpose(3, 2, 0, 1))
    if isinstance(node, MaxPool2d) and node.padding == (0, 0):
        return lambda x: nnx.max_pool(x, node.kernel_size, strides=node.stride or node.kernel_size), None
    if isinstance(node, Flatten):
        return lambda x: x.reshape(len(x), -1), None
    raise Skipped(f"a {type(node).__name__} like node '{node.name}' was not taught to it here")


def _linear(flattened: Shape | None) -> Layout:
    if flattened is None or len(flattened) < 3:
        return Layout(np.transpose, np.transpose)
    channels, *size = flattened

    def there(weight: FloatArray) -> FloatArray:
        return np.moveaxis(weight.reshape(-1, channels, *size), 1, -1).reshape(len(weight), -1).T

    def back(kernel: FloatArray) -> FloatArray:
        weight = kernel.T.reshape(-1, *size, channels)
        return np.moveaxis(weight, -1, 1).reshape(len(weight), -1)

    return Layout(there, back)
