"""jaxpike: its layers under its `unroll`, jitted; `unroll` itself takes each connection out of the loop over time.

Its LIF scales the input by 1 - alpha, so that the weights are divided by that. It has no IF: one is made of a LIF that
forgets 2**-23 of its membrane a step. It pools averages only, and pads its convolutions in its own way, so that sums
and padding are small layers of its kind here. A layer that hears itself is its Graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox
import jax
import jax.numpy as jnp
import jaxpike
import numpy as np

from benchmarks.contestants.base import Job, Run, Stage, scaled, stages
from benchmarks.contestants.jax_stack import Array, connection, jitted
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.nodes import Conv2d, Flatten, Linear, MaxPool2d, Node
from spikeserve.models.spec.parameters import Shape

ALMOST_ONE = 1 - 2.0**-23
KEY = jax.random.PRNGKey(0)


def prepare(job: Job) -> Run:
    """Return a run of the jitted network; the first call compiles."""
    built = stages(job.network)
    network = scaled(job.network, [1 / (1 - _alpha(stage)) for stage in built])
    layers = [layer for stage in stages(network) for layer in (*_connections(stage, network), _neurons(stage))]
    ahead = len(built[0].connections) if job.inputs.constant else 0  # run once, since every step is the same

    def run(steps: Array) -> Array:
        for layer in layers[:ahead]:
            steps = layer.parallel_apply(None, steps)[1]
        steps = jnp.broadcast_to(steps, (job.inputs.time_steps, *steps.shape[1:]))
        # Its default of 8 steps in one turn of the loop was measured on a GPU; on a CPU, 1 is faster.
        return jaxpike.spike_count(jaxpike.unroll(jaxpike.Sequential(*layers[ahead:]), steps, scan_unroll=1)[0])

    return jitted(job, run)


def _alpha(stage: Stage) -> float:
    return min(stage.decay, ALMOST_ONE)


class Stateless:
    """A layer that keeps no state, from a function over samples, by the rules that jaxpike's own layers follow."""

    def __init__(self, apply: Callable[[Array], Array]) -> None:
        self.apply = apply

    def init_state(self, _: Shape) -> None:
        """Return no state."""

    def out_shape(self, shape: Shape) -> Shape:
        """Return the shape (batch, …) that leaves for the one that arrives."""
        leaving: Shape = jax.eval_shape(self.apply, jax.ShapeDtypeStruct(shape, jnp.float32)).shape
        return leaving

    def __call__(self, _: None, x: Array) -> tuple[None, Array]:
        """Apply to one step."""
        return None, self.apply(x)

    def parallel_apply(self, _: None, steps: Array) -> tuple[None, Array]:
        """Apply to all steps at once."""
        flat = self.apply(steps.reshape(-1, *steps.shape[2:]))
        return None, flat.reshape(*steps.shape[:2], *flat.shape[1:])


def _connections(stage: Stage, network: Network) -> list[Any]:
    return [layer for node, shape in stage.connections for layer in _connection(node, network, shape)]


def _connection(node: Node, network: Network, shape: Shape) -> list[Any]:
    if isinstance(node, Linear):
        return [_dense(network.tensors[f"{node.name}.weight"], network.tensor(node, "bias"))]
    if isinstance(node, Conv2d) and node.groups == 1 and node.dilation == (1, 1):
        kernel = network.tensors[f"{node.name}.weight"].transpose(2, 3, 1, 0)
        made = jaxpike.Conv2d(
            *(node.in_channels, node.out_channels, node.kernel_size),
            key=KEY,
            stride=node.stride,
            padding="VALID",
            use_bias=node.bias,
        )
        padding = [(0, 0), *((pad, pad) for pad in node.padding), (0, 0)]
        padded = [Stateless(lambda x: jnp.pad(x, padding))] if any(node.padding) else []
        return [*padded, _with(made, kernel, network.tensor(node, "bias"))]
    if isinstance(node, MaxPool2d) and node.padding == (0, 0):
        return [jaxpike.Pool2d(node.kernel_size, stride=node.stride or node.kernel_size, mode="max")]
    if isinstance(node, Flatten) and len(shape) == 1:
        return [jaxpike.Flatten()]
    return [Stateless(connection(node, network, shape))]


def _neurons(stage: Stage) -> Any:
    lif = jaxpike.LIF(2.0, threshold=stage.threshold, reset="subtract" if stage.subtracts else "zero")
    lif = equinox.tree_at(lambda layer: layer.log_tau, lif, _log_tau(_alpha(stage)))
    if stage.recurrent is None:
        return lif
    return jaxpike.Graph(
        nodes={"neurons": lif, "back": _dense(stage.recurrent, None)},
        edges=[("input", "neurons"), ("neurons", "back"), ("back", "neurons")],
        output="neurons",
    )


def _dense(weight: FloatArray, bias: FloatArray | None) -> Any:
    return _with(jaxpike.Dense(weight.shape[1], weight.shape[0], key=KEY, use_bias=bias is not None), weight, bias)


def _with(layer: Any, weight: FloatArray, bias: FloatArray | None) -> Any:
    layer = equinox.tree_at(lambda made: made.weight, layer, jnp.asarray(weight))
    return layer if bias is None else equinox.tree_at(lambda made: made.bias, layer, jnp.asarray(bias))


def _log_tau(alpha: float) -> Array:
    """Return the float32 nearest to log(tau) from which jaxpike's exp(-1 / exp(log_tau)) is `alpha` to the bit."""
    start = np.float32(np.log(-1 / np.log(alpha)))
    near = start + np.spacing(start) * np.arange(-64, 65, dtype=np.float32)
    exact = np.flatnonzero(np.asarray(jnp.exp(-1.0 / jnp.exp(jnp.asarray(near)))) == np.float32(alpha))
    if not len(exact):
        raise ValueError(f"no log_tau near {start} gives an alpha of {alpha}")
    return jnp.asarray(near[exact[np.abs(exact - 64).argmin()]])
