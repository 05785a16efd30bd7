"""The rules that a NIR file leaves out, and the dialects: what each framework computes for a node, as neurons of ours.

A rule names the fields and gives each parameter as a number or an array of the layer's shape; `i` is what arrives. The
arithmetic that makes a rule's parameters from the file's is part of the rule, since it rounds: the docstring of each
dialect says in which type it is done. What comes out is rounded to float32 once, at the very end.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, TypeAlias

import numpy as np
from typing_extensions import override

from spikeserve.models.spec.rules import Charge, Fire, Joins, Reset, ResetTiming, Synapse
from spikeserve.plugins.nir.graph import SPIKING, Array
from spikeserve.plugins.nir.nodes import Cell
from spikeserve.training.errors import InvalidRules


class DialectName(StrEnum):
    """Whose equations a graph is read under."""

    NIR = "nir"
    SNNTORCH = "snntorch"
    NORSE = "norse"
    SINABS = "sinabs"
    SPIKINGJELLY = "spikingjelly"


class GraphReset(StrEnum):
    """What a spike does to the membrane: by the threshold, to 0, to the file's v_reset, or nothing."""

    SUBTRACT = "subtract"
    ZERO = "zero"
    VALUE = "value"
    NONE = "none"


@dataclass(frozen=True)
class Rules:
    """The rules in force; `dt` is in seconds, `reset_timing` is the dialect's own unless it is given."""

    dialect: DialectName
    dt: float
    reset: GraphReset
    reset_timing: ResetTiming | None = None


@dataclass(frozen=True)
class GivenRules:
    """The rules as far as a caller or a file names them."""

    dialect: DialectName | None = None
    dt: float | None = None
    reset: GraphReset | None = None
    reset_timing: ResetTiming | None = None

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> GivenRules:
        """Return the rules in a file's metadata; raises InvalidRules for a name or number that is none."""
        return cls(
            _one_of(DialectName, "dialect", metadata.get("dialect")),
            _one_of(float, "dt", metadata.get("dt")),
            _one_of(GraphReset, "reset", metadata.get("reset")),
            _one_of(ResetTiming, "reset_timing", metadata.get("reset_timing")),
        )

    def over(self, others: GivenRules) -> GivenRules:
        """Return these rules, and the others' where these are silent."""
        # Another dialect or reset than the file's has a timing of its own.
        same = self.dialect in (None, others.dialect) and self.reset in (None, others.reset)
        return GivenRules(
            self.dialect or others.dialect,
            others.dt if self.dt is None else self.dt,
            self.reset or others.reset,
            self.reset_timing or (others.reset_timing if same else None),
        )

    @property
    def missing(self) -> list[str]:
        """The names of the rules that are missing."""
        return [name for name in ("dialect", "dt", "reset") if getattr(self, name) is None]

    def complete(self) -> Rules:
        """Return the rules; raises InvalidRules with what is missing, and what there is to name."""
        if self.dialect is None or self.dt is None or self.reset is None:
            raise InvalidRules(
                f"the file does not name its {', '.join(self.missing)}, which NIR leaves out: give "
                f"{' '.join('--' + name for name in self.missing)} (dialects: {', '.join(DialectName)}; dt: seconds "
                f"per step; resets: {', '.join(GraphReset)})"
            )
        if not (math.isfinite(self.dt) and self.dt > 0):
            raise InvalidRules(f"dt is {self.dt:g}, expected a number of seconds more than 0")
        return Rules(self.dialect, self.dt, self.reset, self.reset_timing)


def _one_of(kind: type[StrEnum | float], field: str, value: Any) -> Any:
    if value is None:
        return None
    try:
        return kind(value if issubclass(kind, float) else str(value))
    except (TypeError, ValueError):
        expected = "a number of seconds" if issubclass(kind, float) else f"one of: {', '.join(kind)}"
        raise InvalidRules(f"the file's {field} is {str(value)[:80]!r}, expected {expected}") from None


Fields: TypeAlias = dict[str, Any]

RESETS = {reset: Reset.VALUE if reset is GraphReset.ZERO else Reset(reset) for reset in GraphReset}


class Dialect(ABC):
    """How a framework reads NIR's neurons."""

    fire: ClassVar[Fire] = Fire.ABOVE_THRESHOLD
    fire_of_threshold: ClassVar[Fire] = Fire.ABOVE_THRESHOLD
    joins: ClassVar[Joins] = Joins.INPUT
    bias_at_start: ClassVar[bool] = True
    counts_in_steps: ClassVar[bool] = False  # whether the file's taus and delays are steps, not seconds

    def fields(self, cell: Cell, rules: Rules, *, recurrent: bool) -> Fields:
        """Return the fields of the neuron, but for its name, inputs and recurrent connection."""
        if cell.type == "Threshold":
            return {"threshold": cell.positive("threshold"), "fire": self.fire_of_threshold}
        charging = self.charging(cell, rules.dt)
        return charging | self.firing(cell, rules, recurrent=recurrent) if cell.type in SPIKING else charging

    def charging(self, cell: Cell, dt: float) -> Fields:
        """Return how the neuron charges."""
        if cell.type in ("IF", "I"):
            return {"gain": cell.array("r")} | self.integrator(cell, dt)
        synapse = self.synapse(cell, dt) if cell.has_synapse else {}
        return synapse | self.membrane(cell, dt)

    def integrator(self, cell: Cell, dt: float) -> Fields:  # noqa: ARG002  (for those that do otherwise)
        """Return how an IF or I charges, where it is not v + r*i."""
        return {}

    @abstractmethod
    def membrane(self, cell: Cell, dt: float) -> Fields:
        """Return how the membrane of an LIF, LI, CubaLIF or CubaLI charges."""

    @abstractmethod
    def synapse(self, cell: Cell, dt: float) -> Fields:
        """Return how a CubaLIF's or CubaLI's synaptic current flows."""

    def firing(self, cell: Cell, rules: Rules, *, recurrent: bool) -> Fields:
        """Return when the neuron fires and how it resets."""
        reset = RESETS[rules.reset]
        timing = ResetTiming.SAME_STEP if reset is Reset.NONE else self.timing(cell, rules, recurrent=recurrent)
        fields: Fields = {
            "threshold": cell.positive("v_threshold"),
            "fire": self.fire,
            "reset": reset,
            "reset_timing": timing,
        }
        return fields | ({"reset_value": self.reset_value(cell, rules)} if reset is Reset.VALUE else {})

    def timing(self, cell: Cell, rules: Rules, *, recurrent: bool) -> ResetTiming:  # noqa: ARG002  (snnTorch's asks)
        """Return when a reset happens."""
        return rules.reset_timing or ResetTiming.SAME_STEP

    def reset_value(self, cell: Cell, rules: Rules) -> Array:
        """Return the value to which the membrane is reset."""
        return cell.array("v_reset") if rules.reset is GraphReset.VALUE else np.array(0.0)


class Nir(Dialect):
    """Forward Euler of the equations that NIR's nodes stand for, at dt; a neuron fires above its threshold.

    LIF, LI   v + dt/tau * ((v_leak - v) + r*i)
    Cuba…     j + dt/tau_syn * (w_in*i - j), then v as above with the new j, and tau_mem
    IF, I     v + (dt*r) * i

    dt/tau and dt*r are computed in float64.
    """

    @override
    def integrator(self, cell: Cell, dt: float) -> Fields:
        return {"gain": dt * wide(cell.array("r"))}

    @override
    def membrane(self, cell: Cell, dt: float) -> Fields:
        return {
            "charge": Charge.EULER,
            "rate": dt / wide(cell.positive(cell.tau)),
            "gain": cell.array("r"),
            "leak": cell.array("v_leak", 0.0),
        }

    @override
    def synapse(self, cell: Cell, dt: float) -> Fields:
        return {
            "synapse": Synapse.EULER,
            "syn_rate": dt / wide(cell.positive("tau_syn")),
            "syn_gain": cell.array("w_in", 1.0),
        }


class SnnTorch(Dialect):
    """snnTorch's Leaky, RLeaky, Synaptic and RSynaptic with reset_delay=False, as its import makes them.

    LIF, LI   clamp(1 - dt/tau, 0, 1) * v + i
    Cuba…     clamp(1 - dt/tau_syn, 0, 1) * j + i, then v = clamp(1 - dt/tau_mem, 0, 1) * v + j
    IF, I     v + r*i: no dt, since its import takes an r of 1 (and then makes it leak, which is not followed)

    What i is multiplied by, r*dt/tau or w_in*dt/tau_syn, divides the threshold, the leak and the reset's value instead
    where it is the same for the whole layer and not within 1e-5 of 1, as in the import; where it differs, which the
    import does not read, it multiplies. A current of a Cuba… times r*dt/tau_mem is left alone within 1e-5 of 1. A
    recurrent current is added last. A reset is decided one step late and corrected at once; with a reset timing of
    "next_step" it is reset_delay=True, snnTorch's default for its own modules. Parameters are computed in the file's
    float type.
    """

    joins: ClassVar = Joins.CHARGE

    @override
    def membrane(self, cell: Cell, dt: float) -> Fields:
        share = dt / cell.positive(cell.tau)
        unit, gain = self._unit_and_gain(cell, dt)
        return {
            "decay": np.clip(1 - share, 0, 1),
            "gain": _or_one(cell.array("r") * share) if cell.has_synapse else gain,
            "drive": share * cell.array("v_leak", 0.0) / unit,
        }

    @override
    def synapse(self, cell: Cell, dt: float) -> Fields:
        _, gain = self._unit_and_gain(cell, dt)
        return {"syn_decay": np.clip(1 - dt / cell.positive("tau_syn"), 0, 1), "syn_gain": gain}

    @override
    def firing(self, cell: Cell, rules: Rules, *, recurrent: bool) -> Fields:
        fields, (unit, _) = super().firing(cell, rules, recurrent=recurrent), self._unit_and_gain(cell, rules.dt)
        return fields | {name: fields[name] / unit for name in ("threshold", "reset_value") if name in fields}

    @override
    def timing(self, cell: Cell, rules: Rules, *, recurrent: bool) -> ResetTiming:
        timing = rules.reset_timing or ResetTiming.CORRECTED
        loses_its_charge = RESETS[rules.reset] is Reset.VALUE and (cell.type == "CubaLIF" or recurrent)
        return CHARGED.get(timing, timing) if loses_its_charge else timing

    def _unit_and_gain(self, cell: Cell, dt: float) -> tuple[Array, Array]:
        """Return the unit of the membrane, by which its equations are divided, and the input's factor that is left."""
        one = factor = np.array(1.0)
        if cell.has_synapse:
            factor = cell.array("w_in", 1.0) * (dt / cell.positive("tau_syn"))
        elif cell.type != "IF":
            factor = cell.array("r") * dt / cell.positive("tau")
        if np.allclose(factor, 1.0):
            return one, one
        if np.unique(factor).size == 1 and np.all(factor > 0):
            return factor.ravel()[:1].reshape(()), one
        return one, factor


CHARGED: Mapping[ResetTiming, ResetTiming] = {
    ResetTiming.NEXT_STEP: ResetTiming.NEXT_STEP_CHARGED,
    ResetTiming.CORRECTED: ResetTiming.CORRECTED_CHARGED,
}


class Norse(Dialect):
    """Norse's LIFBox, LIBox and IAF cells.

    LIF, LI   v + rate * ((r*i + v_leak) - v)
    Cuba…     j + rate_syn * (w_in*i - j), then v as above with the new j (its import also lets j rest at v_leak, which
              is not followed)
    IF, I     v + r*i: no dt (its import leaves out an r other than 1, which is not followed)

    rate is float32(dt) * (1 / float32(tau)), in float32, as PyTorch computes it. A recurrent connection's bias is
    absent at step 0. A membrane starts at v_leak, an IF's at its v_reset. Its
    import keeps to a reset to 0 for LIF and IF whatever the file says, which is not followed.
    """

    bias_at_start: ClassVar = False

    @override
    def membrane(self, cell: Cell, dt: float) -> Fields:
        return {
            "charge": Charge.EULER_INPUT_FIRST,
            "rate": self._rate(cell, dt, cell.tau),
            "gain": cell.array("r"),
            "leak": cell.array("v_leak", 0.0),
            "start": cell.array("v_leak", 0.0),
        }

    @override
    def firing(self, cell: Cell, rules: Rules, *, recurrent: bool) -> Fields:
        fields = super().firing(cell, rules, recurrent=recurrent)
        return fields | _starting_at_reset(fields) if cell.type == "IF" else fields

    @override
    def synapse(self, cell: Cell, dt: float) -> Fields:
        return {
            "synapse": Synapse.EULER,
            "syn_rate": self._rate(cell, dt, "tau_syn"),
            "syn_gain": cell.array("w_in", 1.0),
        }

    def _rate(self, cell: Cell, dt: float, tau: str) -> Array:
        return np.float32(dt) * (np.float32(1) / cell.positive(tau).astype(np.float32))


class Sinabs(Dialect):
    """sinabs' LIF, ExpLeak and IAF, which count tau in steps, whatever dt is: that is how sinabs writes NIR.

    LIF, LI   exp(-1/tau) * v + r*i (+ (1 - exp(-1/tau)) * v_leak)
    Cuba…     exp(-1/tau_syn) * (j + w_in*i), then v as above with the new j (its import reads none of these)
    IF, I     v + r*i; an IF's membrane never falls below -v_threshold

    A neuron fires as many spikes in a step as thresholds fit into its membrane. -1/tau is computed in float32, its
    exponential in float64. A recurrent connection gives nothing at step 0, and so its bias is absent.
    """

    fire: ClassVar = Fire.MULTIPLE
    fire_of_threshold: ClassVar = Fire.AT_THRESHOLD
    bias_at_start: ClassVar = False
    counts_in_steps: ClassVar = True

    @override
    def integrator(self, cell: Cell, dt: float) -> Fields:
        return {"floor": -cell.positive("v_threshold")} if cell.type == "IF" else {}

    @override
    def membrane(self, cell: Cell, dt: float) -> Fields:
        decay = self._decay(cell, cell.tau)
        return {"decay": decay, "gain": cell.array("r"), "drive": (1 - decay) * cell.array("v_leak", 0.0)}

    @override
    def synapse(self, cell: Cell, dt: float) -> Fields:
        return {
            "synapse": Synapse.SUM_THEN_DECAY,
            "syn_decay": self._decay(cell, "tau_syn"),
            "syn_gain": cell.array("w_in", 1.0),
        }

    def _decay(self, cell: Cell, tau: str) -> Array:
        return np.exp(wide(np.float32(-1) / cell.positive(tau).astype(np.float32)))


class SpikingJelly(Dialect):
    """SpikingJelly's LIFNode, IFNode and CUBALIFNode; a neuron fires at its threshold.

    LIF, LI   with r = tau/dt  (v - (v - v_leak)/steps) + i    (decay_input=False)
              otherwise        v + (r*i - (v - v_leak))/steps  (decay_input=True, where its import takes only r = 1)
    Cuba…     (1 - dt/tau_syn) * j + (w_in*dt/tau_syn) * i, then (1 - dt/tau_mem) * v + (r*dt/tau_mem) * j
    IF, I     v + (r*dt) * i

    where steps is tau/dt. All of this is computed in float64; a factor within 1e-6 of 1 is 1, as in its import. A
    membrane starts where it is reset to.
    """

    fire: ClassVar = Fire.AT_THRESHOLD
    fire_of_threshold: ClassVar = Fire.AT_THRESHOLD

    @override
    def firing(self, cell: Cell, rules: Rules, *, recurrent: bool) -> Fields:
        fields = super().firing(cell, rules, recurrent=recurrent)
        return fields | _starting_at_reset(fields)

    @override
    def integrator(self, cell: Cell, dt: float) -> Fields:
        return {"gain": _or_one(wide(cell.array("r")) * dt, 1e-6)}

    @override
    def membrane(self, cell: Cell, dt: float) -> Fields:
        if cell.has_synapse:
            share = dt / wide(cell.positive("tau_mem"))
            return {
                "decay": np.clip(1 - share, 0, 1),
                "gain": _or_one(share * wide(cell.array("r")), 1e-6),
                "drive": share * cell.array("v_leak", 0.0),
            }
        steps, r = wide(cell.positive("tau")) / dt, wide(cell.array("r"))
        apart = np.isclose(r, steps, rtol=1e-6, atol=1e-12).all() and not np.isclose(r, 1.0, rtol=1e-6).all()
        return {
            "charge": Charge.LEAK_THEN_ADD if apart else Charge.RELAX,
            "tau": steps,
            "gain": np.array(1.0) if apart else _or_one(r, 1e-6),
            "leak": cell.array("v_leak", 0.0),
        }

    @override
    def synapse(self, cell: Cell, dt: float) -> Fields:
        share = dt / wide(cell.positive("tau_syn"))
        return {"syn_decay": np.clip(1 - share, 0, 1), "syn_gain": _or_one(share * wide(cell.array("w_in", 1.0)), 1e-6)}


def _starting_at_reset(fields: Fields) -> Fields:
    return {"start": fields["reset_value"]} if "reset_value" in fields else {}


DIALECTS: Mapping[DialectName, Dialect] = {
    DialectName.NIR: Nir(),
    DialectName.SNNTORCH: SnnTorch(),
    DialectName.NORSE: Norse(),
    DialectName.SINABS: Sinabs(),
    DialectName.SPIKINGJELLY: SpikingJelly(),
}


def wide(values: Array) -> Array:
    """Return the values in float64."""
    return np.asarray(values).astype(np.float64)


def _or_one(factor: Array, tolerance: float = 1e-5) -> Array:
    return np.array(1.0) if np.allclose(factor, 1.0, rtol=tolerance) else factor
