"""The neuron's equations, in one place and once, for every engine that computes with whole arrays.

One step of one neuron, exactly:

    charge   u = decay * v + gain * i + drive
    fire     s = 1 where u >= threshold                (fire: "at_threshold"; "above_threshold" is >)
    reset    v = u - threshold * s                     (reset: "subtract")
             v = reset_value where s, else u           (reset: "value")
             v = u                                     (reset: "none")

i is the current that arrives, v the membrane, s the spikes. The update is defined to the last bit: each multiplication
and each addition rounds to float32 on its own, in the order written. The equations are written over NumPy arrays,
PyTorch tensors and ONNX graph values alike, which differ only in their `Arithmetic`: how they fire, and so what
training's surrogate gradient replaces.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from models.nodes import LI, Fire, Neuron, Reset, Spiking

Array = TypeVar("Array", bound=Any)  # anything with +, -, * between its kind: an array, a tensor, a graph value


class Arithmetic(Protocol[Array]):
    """What a kind of array brings to the equations beyond +, - and *."""

    def fire(self, charged: Array, threshold: Array, rule: Fire) -> Array:
        """Return the spikes, 1 where `charged` reaches `threshold` and 0 elsewhere, in the kind's float type."""
        ...

    def select(self, spikes: Array, fired: Array, silent: Array) -> Array:
        """Return `fired` where there is a spike and `silent` elsewhere."""
        ...

    def held(self, spikes: Array) -> Array:
        """Return the spikes as the reset sees them; training may let no gradient pass there."""
        ...


ResetRule: TypeAlias = Callable[[Array, Array, Arithmetic[Array]], Array]  # (charged, spikes, arithmetic) -> membrane


@dataclass(frozen=True)
class Integrator(Generic[Array]):
    """How a layer's membrane charges; each parameter is a scalar or an array of the layer's shape.

    A parameter is None, and left out, where it would change no bit: a decay or gain of 1, a drive of 0.
    """

    decay: Array | None
    gain: Array | None
    drive: Array | None

    def charge(self, membrane: Array, current: Array) -> Array:
        """Return u = decay * v + gain * i + drive, of the membrane's shape."""
        kept = membrane if self.decay is None else self.decay * membrane
        charged = kept + (current if self.gain is None else self.gain * current)
        return charged if self.drive is None else charged + self.drive


@dataclass(frozen=True)
class SpikingNeuron(Integrator[Array]):
    """A layer of neurons that charge, fire and reset."""

    threshold: Array
    fire: Fire
    reset: ResetRule[Array]

    def step(self, membrane: Array, current: Array, arithmetic: Arithmetic[Array]) -> tuple[Array, Array]:
        """Take one step and return `(spikes, membrane)`, both of the membrane's shape; nothing is kept."""
        charged = self.charge(membrane, current)
        spikes = arithmetic.fire(charged, self.threshold, self.fire)
        return spikes, self.reset(charged, arithmetic.held(spikes), arithmetic)


def reset_by_subtraction(threshold: Array) -> ResetRule[Array]:
    """Return the rule v = u - threshold * s."""
    return lambda charged, spikes, _: charged - threshold * spikes


def reset_to(value: Array) -> ResetRule[Array]:
    """Return the rule v = value where s, else u."""
    return lambda charged, spikes, arithmetic: arithmetic.select(spikes, value, charged)


def no_reset() -> ResetRule[Array]:
    """Return the rule v = u."""
    return lambda charged, _, __: charged


Parameters: TypeAlias = Callable[[str], Array]  # a parameter's name -> its value in the engine's kind of array

RESETS: dict[Reset, Callable[[Any, Parameters[Any]], ResetRule[Any]]] = {
    Reset.SUBTRACT: lambda threshold, _: reset_by_subtraction(threshold),
    Reset.VALUE: lambda _, parameters: reset_to(parameters("reset_value")),
    Reset.NONE: lambda _, __: no_reset(),
}


def _charging(node: Neuron, parameters: Parameters[Array]) -> dict[str, Array | None]:
    neutral = {"decay": 1.0, "gain": 1.0, "drive": 0.0}
    return {name: None if getattr(node, name, one) == one else parameters(name) for name, one in neutral.items()}


def integrator(node: LI, parameters: Parameters[Array]) -> Integrator[Array]:
    """Return the equations of a layer that does not fire."""
    return Integrator(**_charging(node, parameters))


def spiking_neuron(node: Spiking, parameters: Parameters[Array]) -> SpikingNeuron[Array]:
    """Return the equations of a layer that fires."""
    threshold = parameters("threshold")
    return SpikingNeuron(
        **_charging(node, parameters),
        threshold=threshold,
        fire=node.fire,
        reset=RESETS[node.reset](threshold, parameters),
    )
