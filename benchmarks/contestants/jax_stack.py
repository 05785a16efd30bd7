"""What the JAX contestants share: connections over (samples, *shape) with channels last, which XLA likes best."""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.contestants.base import Job, Run
from spikeserve.models.engines.base import Counts
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.nodes import AvgPool2d, Conv2d, Flatten, Linear, MaxPool2d, Node, Pool2d, SumPool2d
from spikeserve.models.spec.parameters import Shape

Array: TypeAlias = Any  # JAX is not typed here
Connection: TypeAlias = Callable[[Array], Array]


def channels_last(steps: FloatArray) -> FloatArray:
    """Return (time, batch, channels, height, width) as (time, batch, height, width, channels), and others as such."""
    return np.ascontiguousarray(np.moveaxis(steps, 2, -1)) if steps.ndim == 5 else np.ascontiguousarray(steps)


def jitted(job: Job, network: Callable[[Array], Array]) -> Run:
    """Return a run of a function from inputs (1 or time, batch, *shape) to counts (batch, classes), compiled."""
    compiled, inputs = jax.jit(network), jnp.asarray(channels_last(job.inputs.steps))

    def run() -> Counts:
        return np.asarray(compiled(inputs).block_until_ready()).astype(np.int64)

    return run


@singledispatch
def connection(node: Node, _: Network, __: Shape) -> Connection:
    """Return a connection over samples; the shape is what arrives, channels first."""
    raise TypeError(f"no JAX connection for a {type(node).__name__}")


@connection.register
def _(node: Linear, network: Network, _: Shape) -> Connection:
    weight, bias = jnp.asarray(network.tensors[f"{node.name}.weight"].T), network.tensor(node, "bias")
    return lambda x: x @ weight if bias is None else x @ weight + bias


@connection.register
def _(node: Conv2d, network: Network, _: Shape) -> Connection:
    kernel = jnp.asarray(network.tensors[f"{node.name}.weight"].transpose(2, 3, 1, 0))
    bias = network.tensor(node, "bias")

    def convolve(x: Array) -> Array:
        y = jax.lax.conv_general_dilated(
            x,
            kernel,
            window_strides=node.stride,
            padding=[(pad, pad) for pad in node.padding],
            rhs_dilation=node.dilation,
            feature_group_count=node.groups,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y if bias is None else y + bias

    return convolve


@connection.register
def _(_: Flatten, __: Network, shape: Shape) -> Connection:
    last_first = (0, 3, 1, 2) if len(shape) == 3 else (0, 1)
    return lambda x: x.transpose(last_first).reshape(len(x), -1)


@connection.register(SumPool2d)
@connection.register(AvgPool2d)
@connection.register(MaxPool2d)
def _(node: Pool2d, _: Network, __: Shape) -> Connection:
    start, combine = (-jnp.inf, jax.lax.max) if isinstance(node, MaxPool2d) else (0.0, jax.lax.add)
    divisor = float(np.prod(node.kernel_size)) if isinstance(node, AvgPool2d) else 1.0
    window, hop = (1, *node.kernel_size, 1), (1, *(node.stride or node.kernel_size), 1)
    padding = [(0, 0), *((pad, pad) for pad in node.padding), (0, 0)]
    return lambda x: jax.lax.reduce_window(x, start, combine, window, hop, padding) / divisor
