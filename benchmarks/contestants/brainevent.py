"""brainevent: its products of spikes and dense weights, which follow the spikes, between neurons in a jitted JAX scan.

Its CPU kernels are Numba's, as ours are. It has no neurons, and no convolution that follows spikes.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from brainevent import BinaryArray

from benchmarks.contestants.base import Job, Run, Skipped, stages
from benchmarks.contestants.jax_scan import neurons
from benchmarks.contestants.jax_stack import Array, connection, jitted
from spikeserve.models.spec.nodes import Conv, Linear


def prepare(job: Job) -> Run:
    """Return a run of the jitted network; the first call compiles."""
    stack, spikes_arrive = stages(job.network), bool(np.isin(job.inputs.steps, (0.0, 1.0)).all())
    if any(isinstance(node, Conv) for stage in stack for node, _ in stage.connections):
        raise Skipped("it has no convolution that follows spikes")

    def network(spikes: Array) -> Array:
        for stage in stack:
            flat = spikes.reshape(-1, *spikes.shape[2:])
            for node, shape in stage.connections:
                if isinstance(node, Linear) and (spikes_arrive or stage is not stack[0]):
                    weight, bias = (
                        jnp.asarray(job.network.tensors[f"{node.name}.weight"].T),
                        job.network.tensor(node, "bias"),
                    )
                    flat = product(flat, weight) if bias is None else product(flat, weight) + bias
                else:
                    flat = connection(node, job.network, shape)(flat)
            currents = flat.reshape(*spikes.shape[:2], *flat.shape[1:])
            currents = jnp.broadcast_to(currents, (job.inputs.time_steps, *currents.shape[1:]))
            spikes = neurons(stage, currents, product)
        return spikes.sum(axis=0)

    return jitted(job, network)


def product(spikes: Array, weight: Array) -> Array:
    """Add up the rows of `weight` (inputs, outputs) where there are spikes (samples, inputs)."""
    return BinaryArray(spikes.astype(bool)) @ weight
