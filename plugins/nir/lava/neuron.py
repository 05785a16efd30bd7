"""The neurons that Lava computes in whole numbers, as programs: float32 holds 24 bits exactly.

The LIF neuron is `PyLifModelBitAcc` of Lava's `proc/lif/models.py`. With `//` rounding towards 0:

    u = u * (4096 - iDecay) // 4096 + 64 * input                beyond 24 bits it wraps round
    v = v * (4096 - vDecay) // 4096 + u + 64 * bias             and stays within -(2**23 - 1) and 2**23 - 1
    s = v > 64 * vThMant,  v = 0 where s

A product of 24 and 13 bits needs 37. So a state is split at 12 bits: each half times 13 bits is at most 2**24, and the
upper one's product has no fraction, so that only the lower one's is rounded. `hold` passes the gradient of the decay.

A sigma-delta neuron is `PySigmaDeltaModelFixed` of `proc/sdn/models.py`: it adds up what arrives, and sends how much
its activation has changed once that is enough. What leaves is no spike but a number:

    sigma = sigma + input,  a = max(sigma + 4096 * bias, 0)
    sent = a - (a of the step before) + residue where that is 4096 * vThMant or more in size, else 0
    residue = what was not sent,  message = floor(sent / 64)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from spikeserve.models.spec.nodes import ProgramIntegrator, ProgramNeuron
from spikeserve.models.spec.parameters import Shape
from spikeserve.models.spec.program import CURRENT
from spikeserve.plugins.nir.graph import Array, GraphNode
from spikeserve.training.errors import InvalidGraph
from spikeserve.training.importers.builder import Draft

UNIT = 4096  # of decays
WRAP = 2**24  # the range of a current
HIGHEST = 2**23 - 1  # of a membrane
STEP = 64  # of a weight, a bias and a threshold in units of the states
FINE_STEP = 4096  # of an activation, in sigma-delta neurons
MAX_WEIGHTS = 2**17  # that may be added up in a step: times 64, and beside a state, they are still exact in float32
MAX_THRESHOLD = 2**17 - 1  # 17 bits: for a layer that should not fire


def neuron(neurons: GraphNode, bias: Array, shape: Shape, stimulus: str, recurrent: Array | None) -> Draft:
    """Return the program of a layer's neurons, as the file gives them.

    Their parameters and the `bias` are one number, or one for each channel, the first axis of `shape`. `stimulus` is
    the expression of what arrives, in units of weights; `recurrent` are the weights (n, n) of the feedback. Raises
    InvalidGraph with a sentence that names the layer.
    """
    current, membrane = (1 - whole(neurons, key, 0, UNIT) / UNIT for key in ("iDecay", "vDecay"))  # what a step keeps
    parameters = {
        "membrane_keep": membrane,
        "threshold": STEP * whole(neurons, "vThMant", 0, 2**17),
        "drive": STEP * bias,
    }
    arriving = f"{STEP} * ({stimulus}{'' if recurrent is None else ' + feedback'})"
    states, lines = {"v": 0.0}, [f"u = {arriving}"]  # which is within 24 bits
    if current.any():
        states["u"], parameters["current_keep"] = 0.0, current
        wrapped = f"select(w > {WRAP // 2}, w - {WRAP}, select(w <= -{WRAP // 2}, w + {WRAP}, w))"
        lines = [*_decayed("u", "current_keep"), f"w = decayed_u + {arriving}", f"u = {wrapped}"]
    lines += [
        *_decayed("v", "membrane_keep"),
        f"charged = minimum(maximum(decayed_v + u + drive, -{HIGHEST}), {HIGHEST})",
        "s = fire_above(charged, threshold)",
        "v = select(hold(s), 0, charged)",
    ]
    fields: dict[str, Any] = {"program": {"states": states, "step": lines, "spikes": "s"}}
    tensors = {}
    if recurrent is not None:
        fields["recurrent"], tensors = {"bias": False}, {"recurrent.weight": recurrent}
    own = {key: _over(neurons, key, value, shape) for key, value in parameters.items()}
    return Draft(neurons.name, ProgramNeuron, fields, tensors, own)


def sigma_delta(neurons: GraphNode, bias: Array, shape: Shape, stimulus: str) -> Draft:
    """Return the program of sigma-delta neurons; with a `stimulus` other than the current, of what encodes an input."""
    if neurons.has("sigma_output"):
        program = {"states": {"sigma": 0.0}, "step": ["sigma = sigma + current"], "output": "sigma"}
        return Draft(neurons.name, ProgramIntegrator, {"program": program, "parameters": {}})
    states, parameters = {"act": 0.0, "residue": 0.0}, {"threshold": FINE_STEP * whole(neurons, "vThMant", 0, 2**11)}
    lines = [f"a = {FINE_STEP} * {stimulus}"]
    if stimulus == CURRENT:
        states["sigma"], parameters["bias"] = 0.0, FINE_STEP * bias
        lines = ["sigma = sigma + current", "a = maximum(sigma + bias, 0)"]
    lines += [
        "delta = a - act + residue",
        "act = a",
        "sent = select(abs(delta) >= threshold, delta, 0)",
        "residue = delta - sent",
        f"part = {1 / STEP} * sent",
        "message = part + hold(floor(part) - part)",
    ]
    own = {key: _over(neurons, key, value, shape) for key, value in parameters.items()}
    fields = {"program": {"states": states, "step": lines, "output": "message"}}
    return Draft(neurons.name, ProgramIntegrator, fields, parameters=own)


def _decayed(state: str, keep: str) -> list[str]:
    """Return the lines that set `decayed_…` to a state times `keep`, a multiple of 1/4096, rounded towards 0."""
    high, low = f"{state}_high", f"{state}_low"
    return [
        f"{high} = {UNIT} * hold(trunc({1 / UNIT} * {state}))",
        f"{low} = ({state} - {high}) * {keep}",
        f"decayed_{state} = {high} * {keep} + ({low} + hold(trunc({low}) - {low}))",
    ]


def whole(node: GraphNode, parameter: str, low: int, high: int) -> Array:
    """Return a parameter as whole numbers in float64; raises InvalidGraph where one is beyond `low` and `high`."""
    values = node.array(parameter).astype(np.float64)
    wrong = values[(values != np.round(values)) | (values < low) | (values > high)]
    if wrong.size:
        raise InvalidGraph(
            f"node '{node.name}': {parameter} holds {wrong[0]:g}, expected whole numbers from {low:,} to {high:,}"
        )
    return values


def _over(neurons: GraphNode, key: str, values: Array, shape: Shape) -> Array:
    """Return one number, or one for each channel, as an array that spreads over a layer."""
    if values.size == shape[0]:
        return values.reshape(shape[0], *(1 for _ in shape[1:]))
    if values.size != 1:
        raise InvalidGraph(
            f"node '{neurons.name}': {key} has {values.size} values, expected one, or one for each of {shape[0]} "
            "channels"
        )
    return values.reshape(())
