"""By hand in JAX: each connection once over time × batch, each neuron layer a lax.scan over time, all of it jitted."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from benchmarks.contestants.base import Job, Run, Stage, stages
from benchmarks.contestants.jax_stack import Array, connection, jitted


def prepare(job: Job) -> Run:
    """Return a run of the jitted network; the first call compiles."""
    stack = [
        (stage, [connection(node, job.network, shape) for node, shape in stage.connections])
        for stage in stages(job.network)
    ]

    def network(spikes: Array) -> Array:
        for stage, connections in stack:
            flat = spikes.reshape(-1, *spikes.shape[2:])
            for connect in connections:
                flat = connect(flat)
            currents = flat.reshape(*spikes.shape[:2], *flat.shape[1:])
            spikes = neurons(stage, jnp.broadcast_to(currents, (job.inputs.time_steps, *currents.shape[1:])))
        return spikes.sum(axis=0)

    return jitted(job, network)


def neurons(stage: Stage, currents: Array, product: Callable[[Array, Array], Array] = jnp.matmul) -> Array:
    """Step a stage's neurons from rest through currents (time, batch, *shape); they hear themselves by `product`."""
    back = None if stage.recurrent is None else jnp.asarray(stage.recurrent.T)

    def step(state: tuple[Array, Array], current: Array) -> tuple[tuple[Array, Array], Array]:
        membrane, spikes = state
        if back is not None:
            current = current + product(spikes, back)
        charged = stage.decay * membrane + current
        fired = charged >= stage.threshold
        spikes = fired.astype(charged.dtype)
        membrane = charged - stage.threshold * spikes if stage.subtracts else jnp.where(fired, 0.0, charged)
        return (membrane, spikes), spikes

    rest = jnp.zeros_like(currents[0])
    return jax.lax.scan(step, (rest, rest), currents)[1]  # unrolled it is slower on a CPU: by a tenth to a half
