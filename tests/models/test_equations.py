"""Each field of each neuron by hand, on every engine: currents in, the membrane after each step and the spikes out."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from spikeserve.models.coding import DenseInputs, encode
from spikeserve.models.engines import ENGINES, RunResult, State, create
from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec.exponential import exponential
from spikeserve.models.spec.network import Network
from spikeserve.models.spec.rules import GROWS, LEAKS, RESTS, Charge
from tests.networks import FIRING, network_of, task
from tests.same import EVERYTHING

pytestmark = pytest.mark.parametrize("engine", list(ENGINES))

Node = dict[str, Any]


def run(engine: str, network: Network, samples: Any) -> RunResult:
    inputs = encode(np.array(samples, np.float32)[np.newaxis], network.spec)
    return create(engine, network).run(inputs, record=EVERYTHING)[0]


def one(node: Node, **spec: Any) -> Network:
    """Return a network of one neuron, which takes a number at each step and hears itself with 1, the bias 0.25."""
    tensors: dict[str, Any] = {"out.recurrent.weight": [[1.0]]} if node.get("recurrent") is not None else {}
    tensors |= {"out.recurrent.bias": [0.25]} if (node.get("recurrent") or {}).get("bias") else {}
    readout = "spike_count" if node["type"] in FIRING else "last_membrane"
    declared: dict[str, Any] = {"shape": [1], "low": -8, "high": 8}
    return network_of(
        [node | {"name": "out"}],
        tensors,
        **{"input": declared, "coding": "spikes", "time_steps": 4, "readout": readout, "labels": ["only"]} | spec,
    )


def stepped(engine: str, node: Node, currents: Sequence[float]) -> tuple[list[float], list[int]]:
    """Return the membrane after each step, and the spikes."""
    result = run(engine, one(node), [[current] for current in currents])
    spikes = result.rasters["out"][:, 0, 0].tolist() if node["type"] in FIRING else [0] * len(currents)
    return result.membranes["out"][:, 0, 0].tolist(), spikes


def alike(node: Node) -> Iterator[Node]:
    """Yield a neuron, and the same one as other kinds, whose threshold is too high or whose parameters add nothing."""
    yield node
    kind = node["type"]
    if kind in ("I", "LI", "CubaLI"):
        yield from alike(node | {"type": f"{kind}F", "threshold": 100})
    if kind in ("LI", "LIF", "ALIF"):
        yield node | {"type": f"Cuba{kind}", "syn_decay": 0.0}
    if kind == "LIF" and "reset_timing" not in node:
        yield from alike(node | {"type": "ALIF", "adapt_decay": 0.5, "adapt_gain": 0.0})


IF: Node = {"type": "IF"}
LIF: Node = {"type": "LIF", "decay": 0.5}
LI: Node = {"type": "LI", "gain": 2.0}
ALIF: Node = {"type": "ALIF", "decay": 0.5, "adapt_decay": 0.5, "adapt_gain": 0.5}
ADLIF: Node = {"type": "AdLIF", "decay": 0.5, "adapt_decay": 0.5, "adapt_coupling": 2.0, "adapt_spike": 1.0}
ALPHA: Node = {"type": "Alpha", "exc_decay": 0.5, "inh_decay": 0.0, "gain": 4.0}
RF: Node = {"type": "RF", "decay": 0.5, "cosine": 0, "sine": 1, "gain": 2}
SYNAPSE: Node = {"type": "CubaLI", "decay": 0.0, "syn_gain": 2.0}
SEVERAL: Node = {"type": "IF", "fire": "multiple", "threshold": 0.5}
CUBA: Node = {"type": "CubaLIF", "decay": 0.0, "syn_decay": 0.5, "syn_gain": 0.5, "reset": "none"}
QUADRATIC: Node = LI | {"charge": "quadratic", "curvature": 0.5, "critical": 2, "leak": 0.5}
EXPONENTIAL: Node = LI | {"sharpness": 2, "critical": 0, "leak": 0.5}
TO_QUARTER: Node = {"reset": "value", "reset_value": 0.25}
TO_HIGH: Node = {"reset": "value", "reset_value": 1.5}
SILENT = [0, 0, 0, 0]
ONES, HALVES, WAITS = [1, 1, 1, 1], [0.5, 0.5, 0.5, 0.5], [1.5, 4, 1, 1]
# A neuron, its current at each step, its membrane after each, and its spikes.
BY_HAND: list[tuple[Node, Sequence[float], Sequence[float], Sequence[int]]] = [
    # threshold 1, and 0.5 at each of four steps
    (IF, HALVES, [0.5, 0.0, 0.5, 0.0], [0, 1, 0, 1]),
    (IF | {"fire": "above_threshold"}, HALVES, [0.5, 1.0, 0.5, 1.0], [0, 0, 1, 0]),
    (IF | {"reset": "value", "reset_value": -0.5}, HALVES, [0.5, -0.5, 0.0, 0.5], [0, 1, 0, 0]),
    (IF | {"reset": "none"}, HALVES, [0.5, 1.0, 1.5, 2.0], [0, 1, 1, 1]),
    (IF | {"start": 0.75}, HALVES, [0.25, 0.75, 0.25, 0.75], [1, 0, 1, 0]),
    # charges 2 * 0.5 + 0.25 = 1.25 (spike, 0.25), 1.5 (0.5), 1.75 (0.75), 2.0 (one spike a step: 1.0 stays)
    (IF | {"gain": 2.0, "drive": 0.25}, HALVES, [0.25, 0.5, 0.75, 1.0], [1, 1, 1, 1]),
    (IF | {"threshold": 0.75, "gain": 0.5}, HALVES, [0.25, 0.5, 0.0, 0.25], [0, 0, 1, 0]),
    # a current of 1 and then 0, gain 2; drive 0.25 or leak 0.5, and half of what there is remains
    # 0.5 * 0 + 2 + 0.25, then 0.5 * 2.25 + 0 + 0.25
    (LI | {"charge": "decay", "decay": 0.5, "drive": 0.25}, [1, 0], [2.25, 1.375], [0, 0]),
    # what is left of 2.25 is 1.125, whose fraction is dropped: 1 + 0 + 0.25
    (LI | {"charge": "truncated", "decay": 0.5, "drive": 0.25}, [1, 0], [2.25, 1.25], [0, 0]),
    # 0 + 0.5 * ((0.5 - 0) + 2), then 1.25 + 0.5 * ((0.5 - 1.25) + 0); the same in three orders
    (LI | {"charge": "euler", "rate": 0.5, "leak": 0.5}, [1, 0], [1.25, 0.875], [0, 0]),
    (LI | {"charge": "euler_input_first", "rate": 0.5, "leak": 0.5}, [1, 0], [1.25, 0.875], [0, 0]),
    (LI | {"charge": "relax", "rate": 0.5, "leak": 0.5}, [1, 0], [1.25, 0.875], [0, 0]),
    (LI | {"charge": "relax", "tau": 2, "leak": 0.5}, [1, 0], [1.25, 0.875], [0, 0]),
    # (0 - 0.5 * (0 - 0.5)) + 2, then (2.25 - 0.5 * (2.25 - 0.5)) + 0: the input comes in whole
    (LI | {"charge": "leak_then_add", "rate": 0.5, "leak": 0.5}, [1, 0], [2.25, 1.375], [0, 0]),
    (LI | {"charge": "leak_then_add", "tau": 2, "leak": 0.5}, [1, 0], [2.25, 1.375], [0, 0]),
    # 0 + (2 + 0.5 * (0 - 0.5) * (0 - 2)) / 2, then 1.25 + (0 + 0.5 * (1.25 - 0.5) * (1.25 - 2)) / 2
    (QUADRATIC | {"tau": 2}, [1, 0], [1.25, 1.109375], [0, 0]),
    (QUADRATIC | {"rate": 0.5}, [1, 0], [1.25, 1.109375], [0, 0]),
    # exp(0) = 1: 0 + 0.5 * (((0.5 - 0) + 2 * 1) + 2), then exp((2.25 - 0) / 2) = 3.0802169, times 2:
    # 2.25 + 0.5 * (((0.5 - 2.25) + 6.1604338) + 0)
    (EXPONENTIAL | {"charge": "exponential", "rate": 0.5}, [1, 0], [2.25, 4.4552169], [0, 0]),
    (EXPONENTIAL | {"charge": "exponential_input_first", "tau": 2}, [1, 0], [2.25, 4.4552169], [0, 0]),
    # (0 - 0.5 * ((1 - 2) * 0)) + 2, then (2 - 0.5 * ((1 - 0) * 2)) + 0
    (LI | {"charge": "filter", "rate": 0.5}, [1, 0], [2.0, 1.0], [0, 0]),
    # The exponential is 0, as critical is far off; rate 0.5, leak 0.5, threshold 2, reset to 0.5, and for the current
    # rate 0.25, coupling 2 and 3 for each spike, so that a = (a + (2 * (v - 0.5) - a) / 4) + 3 * s of the v before.
    # v = 0, a = 0:          u = 0 + ((0.5 - 0) + 4 - 0) / 2 = 2.25 fires, v = 0.5;  a = (0 + (-1 - 0) / 4) + 3 = 2.75
    # v = 0.5, a = 2.75:     u = 0.5 + (0 + 4 - 2.75) / 2 = 1.125;                   a = 2.75 + (0 - 2.75) / 4 = 2.0625
    # v = 1.125, a = 2.0625: u = 1.125 + (-0.625 + 4 - 2.0625) / 2 = 1.78125;
    #                        a = 2.0625 + (1.25 - 2.0625) / 4 = 1.859375
    # v = 1.78125, …:        u = 1.78125 + (-1.28125 + 4 - 1.859375) / 2 = 2.2109375 fires
    (
        {"type": "ALIF", "charge": "exponential", "rate": 0.5, "leak": 0.5, "sharpness": 1, "critical": 200}
        | {"threshold": 2, "reset": "value", "reset_value": 0.5}
        | {"adapt": "current", "adapt_rate": 0.25, "adapt_coupling": 2, "adapt_gain": 3},
        *([4, 4, 4, 4], [0.5, 1.125, 1.78125, 0.5], [1, 0, 0, 1]),
    ),
    # 1.5 fires and leaves 0.5, which stays for a step in which 4 does nothing | 0.25 + 1 fires and leaves 0.25
    (LIF | {"refractory": 1.0}, WAITS, [0.5, 0.5, 0.25, 0.25], [1, 0, 1, 0]),
    (LIF | {"refractory": 0.5}, WAITS, [0.5, 0.5, 0.25, 0.25], [1, 0, 1, 0]),  # a part of a step is a step
    (LIF | {"refractory": 2.0}, WAITS, [0.5, 0.5, 0.5, 0.25], [1, 0, 0, 1]),  # two steps, and then 0.25 + 1
    # none: 0.25 + 4 fires and leaves 3.25, 1.625 + 1 leaves 1.625, 0.8125 + 1 leaves 0.8125
    (LIF | {"refractory": 0.0}, WAITS, [0.5, 3.25, 1.625, 0.8125], [1, 1, 1, 1]),
    # a membrane that is reset stays at its reset value, and decays only after that
    (LIF | {"refractory": 1.0, "reset": "value", "reset_value": 0.5}, WAITS, [0.5, 0.5, 0.5, 0.5], [1, 0, 1, 0]),
    # The currents that excite and inhibit are 1 and -1 at first: a membrane of 0. Then 0.5 and 0, which is 2 and fires;
    # 0.25 and 0 fires again
    (ALPHA | {"reset": "none"}, [1, 0, 0, 0], [0, 2, 1, 0.5], [0, 1, 1, 0]),
    # Here a quarter of the inhibition stays: the membrane of step 1 is 4 * (0.5 - 0.25). Then what was charged is set
    # to 0, and with it both currents
    (ALPHA | {"inh_decay": 0.25, "reset": "value"}, [1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]),
    # or 1 is taken from 0.25, all of -0.0625 goes, and the membrane is 4 * (0.25 - 0.0625) - 0.25; then 4 * 0.5 * -0.75
    (ALPHA | {"inh_decay": 0.25, "reset": "subtract"}, [1, 0, 0, 0], [0, 1, 0.5, -1.5], [0, 1, 0, 0]),
    # A quarter of a turn, and half remains: the 2 of step 0 is the real part, whose half is the membrane of step 1;
    # that one's half, with its sign changed, is the real part of step 2, and -0.5 / 2 the membrane of step 3.
    (RF | {"threshold": 1.5}, [1, 0, 0, 0], [0, 1, 0, -0.25], SILENT),
    # a spike takes the membrane away, so that nothing turns back
    (RF | {"threshold": 1.0}, [1, 0, 0, 0], SILENT, [0, 1, 0, 0]),
    # the membrane keeps nothing and so shows the synaptic current
    (SYNAPSE | {"synapse": "decay", "syn_decay": 0.5}, [1, 0, 0], [2.0, 1.0, 0.5], [0, 0, 0]),
    # 0 + 0.5 * (2 - 0), 1 + 0.5 * (0 - 1), …
    (SYNAPSE | {"synapse": "euler", "syn_rate": 0.5}, [1, 0, 0], [1.0, 0.5, 0.25], [0, 0, 0]),
    # 2 now, of which a quarter goes before the next step
    (SYNAPSE | {"synapse": "jump", "syn_rate": 0.25}, [1, 0, 0], [2.0, 1.5, 1.125], [0, 0, 0]),
    # 0.5 * (0 + 2), 0.5 * (1 + 0), …
    (SYNAPSE | {"synapse": "sum_then_decay", "syn_decay": 0.5}, [1, 0, 0], [1.0, 0.5, 0.25], [0, 0, 0]),
    # nothing yet, then 2, of which a quarter goes before the next step
    (SYNAPSE | {"synapse": "late_jump", "syn_rate": 0.25}, [1, 0, 0], [0.0, 2.0, 1.5], [0, 0, 0]),
    # j = 0.5 j + i is 1, 0.5; u = 0.5 v + 4 j + 0.25 is 4.25, 2.125 + 2 + 0.25.
    ({"type": "CubaLI", "decay": 0.5, "syn_decay": 0.5, "gain": 4.0, "drive": 0.25}, [1, 0], [4.25, 4.375], [0, 0]),
    # 2 * 1 + 0.25, then nothing but the drive
    ({"type": "I", "gain": 2.0, "drive": 0.25}, [1, 0, 0], [2.25, 2.5, 2.75], [0, 0, 0]),
    # threshold 0.5: 1.25 holds two thresholds; -0.75 none; 1.0 two
    (SEVERAL, [1.25, -1, 1.75], [0.25, -0.75, 0.0], [2, 0, 2]),
    (SEVERAL | {"reset": "value", "reset_value": -0.5}, [1.25, -1, 1.75], [-0.5, -1.5, 0.25], [2, 0, 0]),
    # 1.25, 0.25, 2.0: four thresholds
    (SEVERAL | {"reset": "none"}, [1.25, -1, 1.75], [1.25, 0.25, 2.0], [2, 0, 4]),
    # 0.25 - 1 = -0.75 is lifted to -0.25; then 1.5: three
    (SEVERAL | {"floor": -0.25}, [1.25, -1, 1.75], [0.25, -0.25, 0.0], [2, 0, 3]),
    # -2 is lifted to -0.5, 0.25 stays; a floor above 0 lifts what would rest below it as well
    *((node | {"floor": -0.5}, [-2, 0.75], [-0.5, 0.25], [0, 0]) for node in (IF, LIF | {"decay": 1.0})),
    *((node | {"floor": 0.5}, [0, 0], [0.5, 0.5], [0, 0]) for node in (IF, LIF | {"decay": 1.0})),
    # subtract, same step: 1 leaves 0, and so again
    (LIF, ONES, SILENT, ONES),
    # next step: 1 fires and stays; 0.5 + 1 - 1 = 0.5; 0.25 + 1 = 1.25 fires; 0.625 + 1 - 1: decay does not touch what
    # is subtracted
    (LIF | {"reset_timing": "next_step"}, ONES, [1, 0.5, 1.25, 0.625], [1, 0, 1, 0]),
    # corrected: 2.5 fires, 1.5 stays and so r; 0.75 + 2.5 - 1 = 2.25 fires, but that spike is not new; 1.125 - 1 is
    # silent where r was not, so 1 comes back: 1.125, and r; 0.5625 - 1 is silent, and so 0.5625
    (LIF | {"reset_timing": "corrected"}, [2.5, 2.5, 0, 0], [1.5, 2.25, 1.125, 0.5625], [1, 1, 0, 0]),
    # to 0.25: at once; or before it charges, 0.125 + 1; or in place of what was charged, which is lost
    (LIF | TO_QUARTER, ONES, [0.25, 0.25, 0.25, 0.25], ONES),
    (LIF | TO_QUARTER | {"reset_timing": "next_step"}, ONES, [1, 1.125, 1.125, 1.125], ONES),
    (LIF | TO_QUARTER | {"reset_timing": "next_step_charged"}, ONES, [1, 0.25, 1.125, 0.25], [1, 0, 1, 0]),
    # to 1.5, which fires again. corrected: 1 becomes 1.5, so r; 0.5 * 1.5 = 0.75 is silent, and since r was not, it
    # goes by the difference the other way: 0.75 + (0.75 - 1.5) = 0
    (LIF | TO_HIGH | {"reset_timing": "corrected"}, [1, 0, 0, 1], [1.5, 0, 0, 1.5], [1, 0, 0, 1]),
    # corrected_charged: 1.5 takes the place of whatever is charged, for good
    (LIF | TO_HIGH | {"reset_timing": "corrected_charged"}, [1, 0, 0, -1], [1.5, 1.5, 1.5, 1.5], ONES),
    # at 0.25 nothing fires after a correction, so both are as a reset at once
    (LIF | TO_QUARTER | {"reset_timing": "corrected_charged"}, [1, 1, 0, 1], [0.25, 0.25, 0.125, 0.25], [1, 1, 0, 1]),
    # The floor lifts the membrane to the threshold without a spike: it is late all the same, and 1 is taken away.
    (IF | {"reset_timing": "next_step", "floor": 1.0}, [0, 0.5, 0.5], [1, 1, 1], [0, 0, 0]),
    (IF | {"reset_timing": "next_step", "floor": 1.0}, [0, 1.5, 0.5], [1, 1.5, 1], [0, 1, 1]),
    # gain 0.5: 2 charges 1, a spike; it comes back as 1, which the gain halves, or not
    (IF | {"gain": 0.5, "recurrent": {"joins": "input"}}, [2, 0, 0], [0.0, 0.5, 0.5], [1, 0, 0]),
    (IF | {"gain": 0.5, "recurrent": {"joins": "charge"}}, [2, 0, 0], [0.0, 0.0, 0.0], [1, 1, 1]),
    # syn_gain 0.5: 2 becomes j = 1, a spike, which comes back as 0.5 or as 1: j = 0.5 * 1 + that, and so on
    (CUBA | {"recurrent": {"joins": "input"}}, [2, 0, 0], [1.0, 1.0, 1.0], [1, 1, 1]),
    (CUBA | {"recurrent": {"joins": "charge"}}, [2, 0, 0], [1.0, 1.5, 1.75], [1, 1, 1]),
    # a bias counts from step 0 or from step 1 on
    *(
        (IF | {"recurrent": {"bias": True, "bias_at_start": at_start, "joins": joins}}, [0, 0, 0], membranes, [0, 0, 0])
        for joins in ("input", "charge")
        for at_start, membranes in ((True, [0.25, 0.5, 0.75]), (False, [0.0, 0.25, 0.5]))
    ),
    # a threshold remembers nothing
    *(
        ({"type": "Threshold"} | fields, [1, 0.5, 2.5, -3], [1, 0.5, 2.5, -3], spikes)
        for fields, spikes in (
            ({}, [1, 0, 1, 0]),
            ({"fire": "above_threshold"}, [0, 0, 1, 0]),
            ({"fire": "multiple"}, [1, 0, 2, 0]),
            ({"threshold": 0.5}, [1, 1, 1, 0]),
        )
    ),
    # 1 fires at 1, so a = 1 | 1 is below 1 + 0.5, and a = 0.5 | 0.5 + 1 passes 1.25, which leaves 0.25, and
    # a = 0.25 + 1 | 0.125 + 1.5 is just 1 + 0.625
    (ALIF, [1, 1, 1, 1.5], [0, 1, 0.25, 0], [1, 0, 1, 1]),
    # 1 is not above 1 | 0.5 + 1 is, which leaves 0.5 | 0.25 + 1 is not above 1.5 | 0.625 + 1.5 is above 1.25
    (ALIF | {"fire": "above_threshold"}, [1, 1, 1, 1.5], [1, 0.5, 1.25, 0.875], [0, 1, 0, 1]),
    # 3 is 3 times 1, so a = 3 | 3 is once 2.5, which leaves 0.5, and a = 1.5 + 1 | 0.25 + 5 is twice 2.25
    (ALIF | {"fire": "multiple"}, [3, 3, 5, 0], [0, 0.5, 0.75, 0.375], [3, 1, 2, 0]),
    # as the first, but what fires is set to 0.25: 0.125 + 1 is below 1.5 | 0.5625 + 1 passes 1.25
    (ALIF | TO_QUARTER, [1, 1, 1, 1.5], [0.25, 1.125, 0.25, 0.25], [1, 0, 1, 1]),
    # never reset, and always just at the threshold: 1 | 1.5 with a = 1 | 1.75 with a = 1.5
    (ALIF | {"reset": "none"}, [1, 1, 1, 0], [1, 1.5, 1.75, 0.875], [1, 1, 1, 0]),
    # nothing is forgotten: after two spikes the threshold is 2, and 0.5 + 1 stays below it
    (ALIF | {"adapt_decay": 1.0}, [1, 1.5, 1, 1], [0, 0, 1, 1.5], [1, 1, 0, 0]),
    # all is forgotten but the spike of the step before
    (ALIF | {"adapt_decay": 0.0}, [1, 1.25, 1, 1.5], [0, 1.25, 0.625, 0.3125], [1, 0, 1, 1]),
    # a spike counts half: 1 fires, a = 0.5 | 1.25 is just 1 + 0.25, a = 0.75 | 1.25 is below 1.375, a = 0.375 |
    # 0.625 + 0.5 is below 1.1875
    (ALIF | {"adapt_spike": 0.5}, [1, 1.25, 1.25, 0.5], [0, 0, 1.25, 1.125], [1, 1, 0, 0]),
    # the threshold is 1, which 1 just reaches, and rises to 1.5 | half of that falls away before 1 is below 1.25 |
    # 0.5 + 1 passes 1.125, which leaves 0.375 and rises to 1.625 | 0.1875 + 1.125 is just 1.3125
    (
        ALIF | {"adapt": "relax", "adapt_decay": None, "adapt_rate": 0.5},
        [1, 1, 1, 1.125],
        [0, 1, 0.375, 0],
        [1, 0, 1, 1],
    ),
    # 1 fires | its spike comes back as 1, which with 0.5 is just 1 + 0.5 | 1 comes back, below 1 + 0.75 | 0.5 is left
    (ALIF | {"recurrent": {}}, [1, 0.5, 0, 0], [0, 0, 1, 0.5], [1, 1, 0, 0]),
    # 0.5 * 2 fires, a = 0.5 * (2 * 0 + 1) | 0.5 * (2 - 0.5) stays below, a = 0.25 + 0.5 * (2 * 0.75) |
    # 0.375 + 0.5 * (3 - 1) fires, which leaves 0.375, a = 0.5 + 0.5 * (0.75 + 1) | 0.1875 + 0.5 * (0 - 1.375)
    (ADLIF, [2, 2, 3, 0], [0, 0.75, 0.375, -0.5], [1, 0, 1, 0]),
    # as the first, but what fires is set to 0.25: a = 0.5 * (2 * 0.25 + 1) | 0.125 + 0.5 * (2 - 0.75), a = 0.375 +
    # 0.5 * (2 * 0.75) | 0.375 + 0.5 * (3 - 1.125) fires, a = 0.5625 + 0.5 * (0.5 + 1) | 0.125 + 0.5 * (0 - 1.3125)
    (ADLIF | TO_QUARTER, [2, 2, 3, 0], [0.25, 0.75, 0.25, -0.53125], [1, 0, 1, 0]),
    # 0.5 * (0.5 * 4) + 0.25 leaves 0.25, a = 0.5 * (0.5 + 1) | 0.125 + 0.5 * (2 - 0.75) + 0.25 just fires,
    # a = 0.375 + 0.5 * 1 | 0.5 * (0 - 0.875) + 0.25, a = 0.4375 - 0.1875 | -0.09375 - 0.125 + 0.25
    (ADLIF | {"gain": 0.5, "drive": 0.25}, [4, 4, 0, 0], [0.25, 0, -0.1875, 0.03125], [1, 1, 0, 0]),
    # its own spike comes back as 1: 0.5 * (1 - 0.5), a = 0.25 + 0.5 * 0.5 | 0.125 + 0.5 * (2 - 0.5) | 0.4375 - a / 2
    (ADLIF | {"recurrent": {}}, [2, 0, 2, 0], [0, 0.25, 0.875, -0.125], [1, 0, 0, 0]),
]


@pytest.mark.parametrize(("node", "currents", "membranes", "spikes"), BY_HAND)
def test_a_neuron_does_what_its_equations_say(
    engine: str, node: Node, currents: Sequence[float], membranes: Sequence[float], spikes: Sequence[int]
) -> None:
    for each in alike(node):
        assert stepped(engine, each, currents) == (np.array(membranes, np.float32).tolist(), spikes), each


def test_recurrent_spikes_arrive_one_step_later_by_the_weight_of_their_row_and_column(engine: str) -> None:
    # Neuron a gets 1 from outside at step 0 only and fires; b hears it with weight 1 at step 1 and fires; a hears b
    # with weight 0.5 at step 2. The recurrent bias 0.25 charges both from step 0 on.
    network = network_of(
        [{"type": "IF", "name": "out", "recurrent": {"bias": True}, "reset": "value"}],
        {"out.recurrent.weight": [[0, 0.5], [1, 0]], "out.recurrent.bias": [0.25, 0.25]},
        **{"input": {"shape": [2]}, "coding": "spikes", "time_steps": 3, "labels": ["a", "b"]},
    )
    result = run(engine, network, [[1, 0], [0, 0], [0, 0]])
    assert result.rasters["out"][:, 0].tolist() == [[1, 0], [0, 1], [1, 0]]
    assert result.membranes["out"][:, 0].tolist() == [[0.0, 0.25], [0.25, 0.0], [0.0, 0.25]]
    # Two spikes come back (a's at step 0, b's at step 1; a's at step 2 has no step after it), two weights each.
    np.testing.assert_array_equal(result.synaptic_operations, [4])


def test_a_truncated_membrane_is_that_of_loihi_in_integers(engine: str) -> None:
    # Lava's LIF: |v| * (4096 - dv) shifted right by 12, with the sign of v, and the input; above the threshold a spike.
    decay = 4096 - 700
    currents = np.random.default_rng(0).integers(-900, 1000, 200)
    expected, fired, v = [], [], 0
    for current in currents.tolist():
        v = int(np.sign(v)) * (abs(v) * decay >> 12) + current
        fired.append(int(v > 1500))
        v = 0 if fired[-1] else v
        expected.append(v)
    node = {"type": "LIF", "charge": "truncated", "decay": decay / 4096, "threshold": 1500, "fire": "above_threshold"}
    network = one(node | {"reset": "value"}, input={"shape": [1], "low": -900, "high": 1000}, time_steps=200)
    result = run(engine, network, currents[:, np.newaxis])
    assert 5 < sum(fired) < 100
    assert result.rasters["out"][:, 0, 0].tolist() == fired
    assert result.membranes["out"][:, 0, 0].tolist() == expected


def test_neurons_that_grow_by_themselves_are_as_many_as_the_layer_has(engine: str) -> None:
    # u = 0 + ((0 - 0) + exp(0)) + 0 = 1 fires at each of four steps: three neurons, whatever fills a register up.
    node = {"type": "LIF", "charge": "exponential", "rate": 1, "sharpness": 1, "critical": 0, "reset": "value"}
    three: dict[str, Any] = {"input": {"shape": [3], "low": 0, "high": 8}, "labels": list("abc")}
    result = run(engine, one(node, **three), [[0, 0, 0]] * 4)
    assert result.spike_counts.tolist() == [[4, 4, 4]]
    assert np.asarray(result.spikes_per_node["out"]).tolist() == [12]


def test_a_filter_between_nodes_passes_its_membrane_on(engine: str) -> None:
    # The filter holds 1, (1 - 0.5 * (0 * 1)) + 1 = 2 and 2 - 0.5 * (1 * 2) = 1. Twice that, the neuron adds up 2, 6,
    # which fires and leaves 2, and 2 + 2, which just fires.
    network = network_of(
        [
            {"type": "LI", "name": "filter", "charge": "filter", "rate": 0.5},
            {"type": "Linear", "name": "fc", "in_features": 1, "out_features": 1, "bias": False},
            {"type": "IF", "name": "out", "threshold": 4.0},
        ],
        {"fc.weight": [[2.0]]},
        **{"input": {"shape": [1]}, "coding": "spikes", "time_steps": 3, "labels": ["only"]},
    )
    result = run(engine, network, [[1.0], [1.0], [0.0]])
    assert result.membranes["filter"].ravel().tolist() == [1.0, 2.0, 1.0]
    assert result.membranes["out"].ravel().tolist() == [2.0, 2.0, 0.0]
    assert result.rasters["out"].ravel().tolist() == [0, 1, 1]
    assert np.asarray(result.synaptic_operations).tolist() == [3]


def test_each_way_to_charge_rounds_in_the_order_that_is_written(engine: str) -> None:
    rate, tau, leak, gain, first, second = map(np.float32, (0.3, 3.7, 0.1, 1.3, 0.3, 0.7))
    curvature, critical, sharpness = map(np.float32, (0.3, 1.4, 0.7))
    zero = np.float32(0)

    def grown(v: np.float32) -> np.float32:
        return np.float32(sharpness * exponential(np.array((v - critical) / sharpness)))

    def expected(charge: Charge) -> Iterator[np.float32]:
        v = zero
        for i in (first, second) * 8:
            match charge:
                case Charge.EULER:
                    v = v + rate * ((leak - v) + gain * i)
                case Charge.EULER_INPUT_FIRST:
                    v = v + rate * ((gain * i + leak) - v)
                case Charge.RELAX:
                    v = v + (gain * i - (v - leak)) / tau
                case Charge.QUADRATIC:
                    v = v + (gain * i + curvature * (v - leak) * (v - critical)) / tau
                case Charge.EXPONENTIAL:
                    v = v + rate * (((leak - v) + grown(v)) + gain * i)
                case Charge.EXPONENTIAL_INPUT_FIRST:
                    v = v + (((gain * i + leak) - v) + grown(v)) / tau
                case Charge.FILTER:
                    v = (v - rate * ((np.float32(1) - gain * i) * v)) + gain * i
                case _:
                    v = (v - (v - leak) / tau) + gain * i
            yield v

    for charge in set(Charge) - {Charge.DECAY, Charge.TRUNCATED}:
        by = {"tau": float(tau)} if "tau" in LEAKS[charge] else {"rate": float(rate)}
        node = {"type": "LI", "charge": charge, "gain": float(gain)} | by
        node |= {"leak": float(leak)} if "leak" in RESTS[charge] else {}
        growth = {"curvature": curvature, "critical": critical, "sharpness": sharpness}
        node |= {name: float(growth[name]) for name in GROWS.get(charge, ())}
        found = stepped(engine, node, [float(first), float(second)] * 8)
        assert found[0] == [float(value) for value in expected(charge)], charge


def test_every_product_and_sum_of_an_adaptation_rounds_in_the_order_of_the_equations(engine: str) -> None:
    rng = np.random.default_rng(0)
    currents = rng.normal(0.5, 0.5, (60, 40)).astype(np.float32)
    names = ("decay", "threshold", "adapt_decay", "adapt_gain")
    given = {name: rng.uniform(0.25, 1.0, 40).astype(np.float32) for name in names}
    network = network_of(
        [{"type": "ALIF", "name": "out"} | dict.fromkeys(names, "per_neuron")],
        {f"out.{name}": values for name, values in given.items()},
        **{"input": {"shape": [40]}, "coding": "current", "time_steps": 60, "labels": [str(n) for n in range(40)]},
    )
    result, state = create(engine, network).run(DenseInputs(currents[:, np.newaxis], 60), record=EVERYTHING)
    decay, threshold, adapt_decay, adapt_gain = given.values()
    v, a = np.zeros((2, 40), np.float32)
    for step, i in enumerate(currents):
        u = decay * v + i
        h = threshold + adapt_gain * a
        s = (u >= h).astype(np.float32)
        v = u - h * s
        a = adapt_decay * a + s
        np.testing.assert_array_equal(result.rasters["out"][step, 0], s)
        np.testing.assert_array_equal(result.membranes["out"][step, 0], v)
    np.testing.assert_array_equal(state.arrays["out.adaptation"][0], a)
    assert 200 < result.spike_counts.sum() < 2000


@pytest.mark.parametrize("fire", ["at_threshold", "multiple"])
def test_a_neuron_whose_threshold_overflows_falls_silent(engine: str, fire: str) -> None:
    # A state of two spikes, each of which adds 3e38: the threshold is infinite, and the membrane no number any more.
    network = one(ALIF | {"fire": fire, "adapt_decay": 1.0, "adapt_gain": 3e38})
    floats = {"out.membrane": np.zeros((1, 1), np.float32), "out.adaptation": np.full((1, 1), 2.0, np.float32)}
    state = State(np.ones(1, np.int64), floats | {"readout": np.array([[0]])})
    with np.errstate(all="ignore"):
        result, _ = create(engine, network).run(DenseInputs(np.full((3, 1, 1), 8, np.float32), 3), state)
    assert result.spike_counts.tolist() == [[0]]


def test_several_spikes_a_step_weigh_as_many_and_count_as_many(engine: str) -> None:
    # 2.5 holds two thresholds of 1, each worth 0.75 to the next neuron, which integrates 1.5: one spike, 0.5 stays. Two
    # spikes arrive at once, so one weight is met once.
    network = network_of(
        [
            {"type": "Threshold", "name": "in", "fire": "multiple"},
            {"type": "Linear", "name": "fc", "in_features": 1, "out_features": 1, "bias": False},
            {"type": "IF", "name": "out"},
        ],
        {"fc.weight": [[0.75]]},
        **task(1, 1, 1, "spikes", low=0, high=4),
    )
    result = run(engine, network, [[2.5]])
    assert result.rasters["in"].tolist() == [[[2]]]
    assert {name: spikes.tolist() for name, spikes in result.spikes_per_node.items()} == {"in": [2], "out": [1]}
    assert result.membranes["out"].tolist() == [[[0.5]]]
    np.testing.assert_array_equal(result.synaptic_operations, [1])


@pytest.mark.parametrize("threshold", [2.0**-149, 2.0**-40, 2.0**-25])
@pytest.mark.parametrize("hidden", [False, True])
def test_more_spikes_than_can_be_counted_are_refused(engine: str, threshold: float, hidden: bool) -> None:
    # A current of 1 has room for a threshold of 2**-25 2**25 times, where 2**24 is the most; 1 / 2**-149 is infinite.
    many: Node = {"type": "IF", "name": "many", "fire": "multiple", "threshold": threshold, "reset": "none"}
    network = one({"type": "IF"})
    network = network_of(
        [many, *[{"type": "IF", "name": "out"}] * hidden], {}, **network.spec.model_dump(exclude={"nodes"})
    )
    sentence = r"^node 'many': a neuron fires \S+ times in one step, expected at most 16777216; [^\n]*$"
    with pytest.raises(InvalidInput, match=sentence):
        run(engine, network, [[0.0], [1.0]])


def test_as_many_spikes_as_can_be_counted_are_counted_exactly(engine: str) -> None:
    # 2**24 - 1 spikes at each of three steps are 50331645 in all: an odd number between 2**25 and 2**26, where float32
    # knows only every fourth. 2**24 are the most, and 2**24 + 2 are too many.
    network = one({"type": "Threshold", "fire": "multiple"}, input={"shape": [1], "high": 2**25})
    result = run(engine, network, [[2**24 - 1]] * 3)
    assert result.spike_counts.tolist() == [[3 * (2**24 - 1)]]
    assert result.spikes_per_node["out"].tolist() == [3 * (2**24 - 1)]
    assert run(engine, network, [[2**24]]).rasters["out"].tolist() == [[[2**24]]]
    with pytest.raises(InvalidInput, match=r"^node 'out': a neuron fires 16777218 times in one step"):
        run(engine, network, [[2**24 + 2]])
