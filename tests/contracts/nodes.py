"""The node contract: every node and rule of the spec on numbers worked out by hand, for all that can run a network.

A row is a network and a sample of few bits, and what leaves it at each step. `test_nodes` asks each target for it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np

from spikeserve.models.coding import DenseInputs
from spikeserve.models.spec import Coding, Spec
from spikeserve.models.spec.exponential import exponential
from spikeserve.models.spec.expressions import ARITY
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.nodes import NeuronBase
from spikeserve.models.spec.rules import GROWS, LEAKS, RESTS, Charge
from tests.networks import FIRING, NODES, network_of, task

Node = dict[str, Any]

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
NEURONS: list[tuple[Node, Sequence[float], Sequence[float], Sequence[int]]] = [
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


# Of an input of eight values the first four and the last four, as two signals.
PARTS: list[Node] = [
    {"type": "Linear", "name": name, "inputs": ["input"], "in_features": 8, "out_features": 4, "bias": False}
    for name in ("first", "second")
]
SPLIT = {"first.weight": np.eye(8)[:4], "second.weight": np.eye(8)[4:]}


EPS = float(np.finfo(np.float32).eps)
EDGE, FIVE = {"kernel_size": 2, "overhang": True}, [[-1, -2, -3, -4, -5]]
CONV1, CONV2 = ({"type": f"Conv{axes}d", "in_channels": 1, "out_channels": 1, "bias": False} for axes in (1, 2))
UP = {"type": "ConvTranspose1d", "in_channels": 1, "out_channels": 1, "kernel_size": 3, "stride": 2}
GROUPED = {"in_channels": 2, "out_channels": 2, "kernel_size": 1, "groups": 2}
SAME = {"padding": "same"}
BOTH: list[Node] = [*PARTS, {"type": "Multiply", "name": "and", "inputs": ["first", "second"]}]
IMAGE = [[[1, 2, 3], [4, 5, 6]]]
# Nodes, their tensors, one sample, and what leaves the last of them, flat. The last node is called "node".
CONNECTIONS: dict[str, tuple[list[Node], dict[str, Any], Any, Sequence[Any]]] = {
    # Channel 0: 2 * 1 + 0.5, 2 * 2 + 0.5. Channel 1: -1 * 3 + 10, -1 * 0 + 10, of a value that is no event.
    "scaled by channel": (
        [{"type": "Scale", "scale": "per_channel", "offset": "per_channel"}],
        *({"node.scale": [2, -1], "node.offset": [0.5, 10]}, [[1, 2], [3, 0]], [2.5, 4.5, 7.0, 10.0]),
    ),
    "scaled": ([{"type": "Scale", "scale": 0.5}], {}, [1, 5], [0.5, 2.5]),
    "scaled by value": ([{"type": "Scale", "scale": "per_neuron"}], {"node.scale": [-2, 0]}, [1, 5], [-2, 0]),
    # (1 + e)**2 = 1 + 2e + e**2 rounds to 1 + 2e, which the offset takes away. A fused multiply-add would leave e**2.
    "rounded twice": ([{"type": "Scale", "scale": 1 + EPS, "offset": -(1 + 2 * EPS)}], {}, [1 + EPS], [0.0]),
    # Windows of two with a stride of two: (1, 2), (-2, 0) and (5, 0); the seventh value is in no window.
    **{
        f"{kind}{axes}d": (
            [{"type": f"{kind}{axes}d", "kernel_size": 2 if axes == 1 else [1, 2]}],
            {},
            sample,
            expected,
        )
        for axes, sample in ((1, [[1, 2, -2, 0, 5, 0, 9]]), (2, [[[1, 2, -2, 0, 5, 0, 9]]]))
        for kind, expected in (("SumPool", [3, -2, 5]), ("AvgPool", [1.5, -1, 2.5]), ("MaxPool", [2, 0, 5]))
    },
    # 1 * (1, 10, 100) from 0 on, and 2 * (1, 10, 100) from 2 on
    "transposed over an image": (
        [UP | {"type": "ConvTranspose2d", "kernel_size": [1, 3], "stride": [1, 2], "bias": False}],
        *({"node.weight": [[[[1, 10, 100]]]]}, [[[1, 2]]], [1, 10, 102, 20, 200]),
    ),
    # Windows of two with a stride of two: (-1, -2), (-3, -4), and (-5) with one place over the end.
    "sums over the end": ([{"type": "SumPool1d"} | EDGE], {}, FIVE, [-3, -7, -5]),
    "means over the end": ([{"type": "AvgPool1d"} | EDGE], {}, FIVE, [-1.5, -3.5, -5]),
    "maxima over the end": ([{"type": "MaxPool1d"} | EDGE], {}, FIVE, [-1, -3, -5]),
    # With padding (0, -1), (-2, -3), (-4, -5); a fourth would begin in the padding at the end, and is none.
    "means of padding": ([{"type": "AvgPool1d", "padding": 1} | EDGE], {}, FIVE, [-0.5, -2.5, -4.5]),
    "means without padding": (
        [{"type": "AvgPool1d", "kernel_size": 2, "count_padding": False, "padding": 1}],
        {},
        FIVE,
        [-1, -2.5, -4.5],
    ),
    # With a stride of three (0, -1), (-3, -4); with an overhang no third one, which would begin at the padding.
    "maxima of padding": ([{"type": "MaxPool1d", "padding": 1, "stride": 3} | EDGE], {}, FIVE, [-1, -3]),
    # Four of the first ten spike and one of the last ten: SpikingJelly's VotingLayer, with Reshape before and behind.
    "votes": (
        [{"type": "Reshape", "shape": [1, 20]}, {"type": "AvgPool1d", "kernel_size": 10}],
        *({}, [1] * 4 + [0] * 15 + [1], [np.float32(0.4), np.float32(0.1)]),
    ),
    "turned": ([{"type": "Permute", "order": [1, 0]}], {}, [[0, 1, 2], [3, 4, 5]], [0, 3, 1, 4, 2, 5]),
    "reshaped": ([{"type": "Reshape", "shape": [3, 1, 2]}], {}, [[0, 1, 2], [3, 4, 5]], [0, 1, 2, 3, 4, 5]),
    # Rows (0, 1), (2, 3), (4, 5), of which the columns become rows.
    "reshaped and turned": (
        [{"type": "Reshape", "shape": [3, 1, 2]}, {"type": "Permute", "order": [2, 1, 0]}],
        *({}, [[0, 1, 2], [3, 4, 5]], [0, 2, 4, 1, 3, 5]),
    ),
    # s1 is 0011 and s2 0101; (1 - s1) * s2 = s2 - s1 * s2
    "and": ([*BOTH, {"type": "Flatten"}], SPLIT, [0, 0, 1, 1, 0, 1, 0, 1], [0, 0, 0, 1]),
    "iand": (
        [*BOTH, {"type": "Scale", "name": "not", "scale": -1}, {"type": "Flatten", "inputs": ["second", "not"]}],
        *(SPLIT, [0, 0, 1, 1, 0, 1, 0, 1], [0, 1, 0, 0]),
    ),
    # 1 * (1, 10, 100) from 0 on, and 2 * (1, 10, 100) from 2 on; dilated at 0, 2, 4 and at 2, 4, 6
    **{
        f"transposed {fields}": (
            [UP | fields],
            *({"node.weight": [[[1, 10, 100]]], "node.bias": [0.5]}, [[1, 2]], [value + 0.5 for value in expected]),
        )
        for fields, expected in (
            ({}, [1, 10, 102, 20, 200]),
            ({"padding": 1}, [10, 102, 20]),
            ({"padding": 1, "output_padding": 1}, [10, 102, 20, 200]),
            ({"dilation": 2}, [1, 0, 12, 0, 120, 0, 200]),
        )
    },
    # 1 2 3 4 under a kernel of 1 10: x[k] + 10 x[k + 1]. "same" pads an even kernel more behind: one 0 after it; three
    # zeros are one before and two after.
    **{
        f"along a length {fields} {kernel}": (
            [CONV1 | {"kernel_size": len(kernel)} | fields],
            {"node.weight": [[kernel]]},
            [[1, 2, 3, 4]],
            expected,
        )
        for fields, kernel, expected in (
            ({}, [1, 10], [21, 32, 43]),
            ({"stride": 2, "padding": 1}, [1, 10], [10, 32, 4]),
            ({"dilation": 2}, [1, 10], [31, 42]),
            (SAME, [1, 10], [21, 32, 43, 4]),
            (SAME, [1, 10, 100, 1000], [3210, 4321, 432, 43]),
            (SAME | {"dilation": 2}, [1, 10], [20, 31, 42, 3]),
        )
    },
    # "same" pads an even kernel by a row of zeros below and a column to the right; one that is even along one axis
    # only, of 3 rows and 2 columns, by rows on both sides and one column.
    **{
        f"over an image {fields} {kernel}": (
            [CONV2 | {"kernel_size": list(np.shape(kernel))} | fields],
            {"node.weight": [[kernel]]},
            IMAGE,
            expected,
        )
        for fields, kernel, expected in (
            ({"dilation": [1, 2]}, [[1, 10]], [31, 64]),
            (SAME, [[1, 10], [100, 1000]], [5421, 6532, 603, 54, 65, 6]),
            (SAME, [[1, 0], [10, 0], [100, 1000]], [5410, 6520, 630, 41, 52, 63]),
            (SAME | {"dilation": [1, 2]}, [[1, 10]], [20, 31, 2, 50, 64, 5]),
        )
    },
    # Two channels in two groups: the first is doubled, the second tripled, and each has its own bias.
    "groups along a length": (
        [{"type": "Conv1d"} | GROUPED],
        *({"node.weight": [[[2]], [[3]]], "node.bias": [0.5, 0]}, [[1, 2], [3, 4]], [2.5, 4.5, 9.0, 12.0]),
    ),
    "groups over an image": (
        [{"type": "Conv2d"} | GROUPED],
        *({"node.weight": [[[[2]]], [[[3]]]], "node.bias": [0.5, 0]}, [[[1, 2]], [[3, 4]]], [2.5, 4.5, 9.0, 12.0]),
    ),
    # Two heads of rows 1 and columns 1: (1, 2) · (5, 6) = 17 and (3, 4) · (7, 8) = 53.
    "a product for each head": (
        [
            *PARTS,
            {"type": "Reshape", "name": "a", "inputs": ["first"], "shape": [2, 1, 2]},
            {"type": "Reshape", "name": "b", "inputs": ["second"], "shape": [2, 2, 1]},
            {"type": "MatMul", "inputs": ["a", "b"]},
        ],
        *(SPLIT, [1, 2, 3, 4, 5, 6, 7, 8], [17, 53]),
    ),
    # Q = K = V = X, two tokens of two heads, each one wide. Head 0 has (1, 1): X Xᵀ is all ones, and times X (2, 2).
    # Head 1 has (0, 1): X Xᵀ is 1 for token 1 alone, and times X (0, 1). Then scaled by 1/4, tokens first again.
    "attention": (
        [
            {"type": "Reshape", "name": "heads", "shape": [2, 2, 1]},
            {"type": "Permute", "name": "q", "order": [1, 0, 2]},
            {"type": "Permute", "name": "k", "order": [0, 2, 1]},
            {"type": "MatMul", "name": "attention", "inputs": ["q", "k"]},
            {"type": "Scale", "name": "scaled", "scale": 0.25},
            {"type": "MatMul", "name": "values", "inputs": ["scaled", "q"]},
            {"type": "Permute", "order": [1, 0, 2]},
        ],
        *({}, [[1, 0], [1, 1]], [0.5, 0, 0.5, 0.25]),
    ),
}


# The input is the same at three steps, or each step has its own value. Delays are 0, 1, or longer than the run; some
# differ by element.
STEPS4 = [[1, 5], [2, 6], [3, 7], [4, 8]]
LATE: dict[str, Any] = {"type": "Delay"}
THIRD, UNEVEN = ["v = 1 / current * 3"], np.random.default_rng(3).random(8, np.float32) + np.float32(1)
TOY = {  # a program whose states are called as no other neuron's; its parameters, as two outputs of an ONNX graph are
    "states": {"zest": "raster", "fatigue": 0.0},
    "step": [
        "u = 0.5 * zest + current - membrane * fatigue",
        "s = fire(u, raster)",
        "fatigue = 0.75 * fatigue + hold(s)",
        "zest = u - raster * hold(s)",
    ],
    "spikes": "s",
}
# Nodes, their tensors, the steps of a sample, and what leaves the last of them at each step.
OVER_TIME: dict[str, tuple[list[Node], dict[str, Any], Any, Any]] = {
    **{
        f"delay {delay}": ([LATE | {"delay": delay}], {"node.delay": [0, 3]}, STEPS4, expected)
        for delay, expected in (
            (0, STEPS4),
            (1, [[0, 0], [1, 5], [2, 6], [3, 7]]),
            (9, [[0, 0]] * 4),
            ("per_neuron", [[1, 0], [2, 0], [3, 0], [4, 5]]),
        )
    },
    "delay of a constant": (
        [LATE | {"delay": "per_neuron"}],
        *({"node.delay": [0, 3]}, [[1, 5]] * 4, [[1, 0]] * 3 + [[1, 5]]),
    ),
    **{
        f"taps {taps}": ([LATE | {"taps": taps}], {}, [[1, 2], [3, 4], [5, 6]], expected)
        for taps, expected in (
            ([0], [[1, 2], [3, 4], [5, 6]]),
            ([0, 2], [[1, 2, 0, 0], [3, 4, 0, 0], [5, 6, 1, 2]]),
            ([1, 90000], [[0, 0, 0, 0], [1, 2, 0, 0], [3, 4, 0, 0]]),
        )
    },
    # Of each channel's two values, side by side along the channels.
    "taps of channels": ([LATE | {"taps": [0, 1]}], {}, [[[1, 2]], [[3, 4]]], [[1, 2, 0, 0], [3, 4, 1, 2]]),
    # Taps 0 and 2 of a constant 3, and then 0 and 1 of both: [x, x two ago] and the same of the step before.
    "taps of taps": (
        [LATE | {"taps": [0, 2]}, LATE | {"taps": [0, 1]}],
        *({}, [[3]] * 4, [[3, 0, 0, 0], [3, 0, 3, 0], [3, 3, 3, 0], [3, 3, 3, 3]]),
    ),
    # 1 * x + 10 * x two steps ago
    "a convolution over time": (
        [LATE | {"taps": [0, 2]}, {"type": "Linear", "in_features": 2, "out_features": 1, "bias": False}],
        *({"node.weight": [[1, 10]]}, [[1], [0], [1], [1]], [[1], [0], [11], [1]]),
    ),
    # 1 * 1 + 0.5, then 2 * 1 + 0.5 and so on, of an input that is the same at every step.
    "a scale of each step": (
        [{"type": "Scale", "scale": "per_channel", "offset": 0.5, "steps": 5}],
        *({"node.scale": [[1], [2], [4], [8], [16]]}, [[[1]]] * 5, [[1.5], [2.5], [4.5], [8.5], [16.5]]),
    ),
    # The IF fires at steps 1 and 3 of a constant 0.5; behind it stands the constant.
    "a concatenation": (
        [{"type": "IF", "name": "spikes"}, {"type": "Concatenate", "inputs": ["spikes", "input"], "axis": 1}],
        *({}, [[[0.5]]] * 4, [[0, 0.5], [1, 0.5], [0, 0.5], [1, 0.5]]),
    ),
    # The filter holds 1, (1 - 0.5 * (0 * 1)) + 1 = 2 and 2 - 0.5 * (1 * 2) = 1.
    "a filter": (
        [{"type": "LI", "name": "filter", "charge": "filter", "rate": 0.5}, {"type": "Scale", "scale": 2}],
        *({}, [[1], [1], [0]], [[2], [4], [2]]),
    ),
    # 2.5 holds two thresholds of 1, each worth 0.75.
    "several spikes": (
        [
            {"type": "Threshold", "name": "in", "fire": "multiple"},
            {"type": "Linear", "in_features": 1, "out_features": 1, "bias": False},
        ],
        *({"node.weight": [[0.75]]}, [[2.5]], [[1.5]]),
    ),
    # Neuron a gets 1 at step 0 and fires; b hears it with 1 at step 1 and fires; a hears b with 0.5 at step 2, and the
    # bias charges both with 0.25 at each step: 0.25, 0.25 and 0.5 + 0.25 + 0.25.
    "a layer that hears itself": (
        [{"type": "IF", "recurrent": {"bias": True}, "reset": "value"}],
        {"node.recurrent.weight": [[0, 0.5], [1, 0]], "node.recurrent.bias": [0.25, 0.25]},
        *([[1, 0], [0, 0], [0, 0]], [[1, 0], [0, 1], [1, 0]]),
    ),
    # u = 0 + ((0 - 0) + exp(0)) + 0 = 1 fires at each step: three neurons, whatever fills a register up.
    "three neurons that grow by themselves": (
        [{"type": "LIF", "charge": "exponential", "rate": 1, "sharpness": 1, "critical": 0, "reset": "value"}],
        *({}, [[0, 0, 0]] * 4, [[1, 1, 1]] * 4),
    ),
    # Half of zest 1 is 0.5, and 1 fires: zest 0.5, fatigue 1 | 0.25 - 0.25 | 0.75 of fatigue, 0 + 1 - 0.1875, which is
    # silent | 0.40625 - 0.140625 | 0.1328125 + 1 - 0.10546875, which fires.
    "a program": (
        [{"type": "Neuron", "program": TOY, "parameters": {"membrane": 0.25, "raster": "per_neuron"}}],
        *({"node.raster": [1]}, [[1], [0], [1], [0], [1]], [[1], [0], [0], [0], [1]]),
    ),
    # Half of v and the current: 2, 1 + 1, 1.
    "a program that does not fire": (
        [{"type": "Integrator", "program": {"states": {"v": 0.0}, "step": ["v = v / 2 + current"], "output": "v"}}
         | {"parameters": {}}],
        *({}, [[2], [1], [0]], [[2], [2], [1]]),
    ),
    # Two roundings, of which a division of 3 would have one.
    "a reciprocal and a product": (
        [{"type": "Integrator", "parameters": {}} | {"program": {"states": {"v": 0.0}, "step": THIRD, "output": "v"}}],
        *({}, [UNEVEN], [np.float32(1) / UNEVEN * np.float32(3)]),
    ),
    # Its only product is -1 times 0, which is -0, and so may the sum be: 1 / -0 would be the other infinity.
    **{
        f"a current of zeros is positive: {line}": (
            [
                {"type": "Linear", "name": "fc", "in_features": 1, "out_features": 2, "bias": False},
                {"type": "Neuron", "parameters": {}}
                | {"program": {"states": {"v": 0.0}, "step": [line, "s = fire(q, 1)", "v = q"], "spikes": "s"}},
            ],
            *({"fc.weight": [[-1], [1]]}, [[0], [0]], [[1, 1], [1, 1]]),
        )
        for line in ("q = 1 / current", "q = fire_multiple(1e30, current * 1e-30)")
    },
}  # fmt: skip


# A readout, the last node behind two inputs, the steps of a sample, and the values and counts that are read.
THREE = [[0.5, 0], [0.5, 0], [0.25, 1]]  # the first charges to 0.5, 1 (a spike), 0.25; the second to 0, 0, 1 (a spike)
FIRES: Node = {"type": "IF", "name": "out"}
PASSED_ON: Node = {"type": "Linear", "name": "out", "in_features": 2, "out_features": 2, "bias": False}
BIG = 2.0**24
READOUTS: list[tuple[str, list[Node], Any, Sequence[float], list[int]]] = [
    *(
        (readout, [PASSED_ON], [[1, -2], [3, 0], [-1, 4]], expected, [0, 0])
        for readout, expected in (("sum", [3, 2]), ("mean", [1, 2 / 3]), ("max", [3, 4]), ("last", [-1, 4]))
    ),
    *(
        (readout, [FIRES], THREE, expected, [1, 1])
        for readout, expected in (
            ("spike_count", [1, 1]),
            ("first_spike", [2, 1]),  # of three steps, at step 1 and at step 2
            *(("sum", [1, 1]), ("mean", [1 / 3, 1 / 3]), ("max", [1, 1]), ("last", [0, 1])),
            # After the reset they are 0.5, 0, 0.25 and 0, 0, 0.
            *(("sum_membrane", [0.75, 0]), ("mean_membrane", [0.25, 0])),
            *(("max_membrane", [0.5, 0]), ("last_membrane", [0.25, 0])),
        )
    ),
    ("first_spike", [FIRES], [[0, 1], [0, 1], [0, 0]], [0, 3], [0, 2]),  # one never fires, and the earliest counts
    # Behind the neurons the shape is another, and what is read is theirs. The second fires at its second step.
    *(
        (readout, [FIRES, {"type": "Reshape", "name": "shaped", "shape": [1, 2]}], THREE[:2], expected, [1, 0])
        for readout, expected in (("spike_count", [1, 0]), ("last", [1, 0]), ("last_membrane", [0, 0]))
    ),
    # 2**24 + 1 + 1 is 2**24 + 2 in float64, but in float32 2**24 + 1 is 2**24 and the sum stays there.
    ("sum", [PASSED_ON], [[BIG, 0], [1, 0], [1, 0]], [BIG + 2, 0], [0, 0]),
    # The same at every step, it counts at every step.
    ("sum", [PASSED_ON], [[1, 2]] * 3, [3, 6], [0, 0]),
]


def reading(readout: str, nodes: list[Node], steps: Any) -> tuple[Network, DenseInputs]:
    """Return the network of a row of READOUTS, and its sample."""
    constant = all(step == steps[0] for step in steps)
    around = task(2, len(steps), "ab", "direct" if constant else "current", low=-8, high=BIG, readout=readout)
    weights = {"out.weight": np.eye(2)} if nodes[0] is PASSED_ON else {}
    values = np.array(steps[:1] if constant else steps, np.float32)[:, np.newaxis]
    return network_of(nodes, weights, **around), DenseInputs(values, len(steps))


def operations(first: FloatArray, second: FloatArray) -> tuple[Network, DenseInputs]:
    """Return one step of every operation, side by side, of these pairs of any float32, infinite and NaN too.

    Each is written as a quotient of finite numbers, an infinity as 1 / 0 and NaN as 0 / 0; the current is 1.
    """
    nodes, tensors = list[Node](), dict[str, FloatArray]()
    (a, d), (b, e) = _quotient(first), _quotient(second)
    for place, (operation, arity) in enumerate(sorted(ARITY.items())):
        operands = ["x", "y", "c"][:arity]
        written = f"{operation}({', '.join(operands)})" if operation.isidentifier() else f" {operation} ".join(operands)
        lines = ["x = a / (d * current)", "y = b / (e * current)", f"z = {'-x' if operation == 'neg' else written}"]
        own = dict(zip("adbec", (a, d, b, e, b), strict=True))
        used = {name: own[name] for name in "ad" + "be" * (arity > 1) + "c" * (arity > 2)}
        program = {"states": {"v": 0.0}, "output": "v"}
        program["step"] = [*(lines if arity > 1 else [lines[0], lines[2]]), "v = select(current, z, x)"]
        node = {"type": "Integrator", "name": f"n{place}", "parameters": dict.fromkeys(used, "per_neuron")}
        nodes.append(node | {"program": program, "inputs": ["input"]})
        tensors |= {f"n{place}.{name}": values for name, values in used.items()}
    nodes.append({"type": "Concatenate", "name": "all", "inputs": [node["name"] for node in nodes]})
    around = task(len(first), 1, len(first) * len(ARITY), "current", readout="last")
    return network_of(nodes, tensors, **around), DenseInputs(np.ones((1, 1, len(first)), np.float32), 1)


def _quotient(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    finite = np.isfinite(values)
    numerators = np.where(finite, values, np.where(np.isnan(values), 0, np.sign(values)))
    return numerators.astype(np.float32), finite.astype(np.float32)


def roots_and_exponentials(width: int) -> Network:
    """Return the square root and the exponential of so many currents, side by side."""
    nodes: list[Node] = [
        {"type": "Integrator", "name": name, "inputs": ["input"], "parameters": {}}
        | {"program": {"states": {"v": 0.0}, "step": [f"v = {name}(current)"], "output": "v"}}
        for name in ("sqrt", "exp")
    ]
    nodes.append({"type": "Concatenate", "name": "all", "inputs": ["sqrt", "exp"]})
    return network_of(nodes, {}, **task(width, 1, 2 * width, "current", low=-1e30, high=1e30, readout="last"))


@dataclass(frozen=True)
class Row:
    """A network whose last node is a neuron, "out", and a sample with what it gives.

    `steps` (time_steps, *shape), and by hand `leaves` (time_steps, units), the spikes of a neuron that fires and the
    membranes of one that does not; and the `membranes` of one that fires, where they are worked out too.
    """

    network: Network
    steps: FloatArray
    leaves: FloatArray
    membranes: FloatArray | None = None


def rows() -> tuple[dict[str, Row], dict[str, Row], dict[str, Row]]:
    """Return the rows by name, those of neurons as other kinds, and the constant ones, presented once."""
    found, others, once = dict[str, Row](), dict[str, Row](), dict[str, Row]()
    for name, (nodes, tensors, sample, expected) in CONNECTIONS.items():
        found[name] = row(nodes, tensors, [sample], [expected])
    for name, (nodes, tensors, steps, over_time) in OVER_TIME.items():
        found[name] = row(nodes, tensors, steps, over_time)
    for place, (node, currents, membranes, spikes) in enumerate(NEURONS):
        for each in alike(node):
            leaves = spikes if each["type"] in FIRING else membranes
            made = row([each], {}, np.c_[currents], leaves, membranes)
            (found if each is node else others)[f"{place} {each}"] = made
    for name, one in found.items():
        if (one.steps == one.steps[:1]).all():
            spec = one.network.spec.model_copy(update={"coding": Coding.DIRECT})
            once[f"{name}, once"] = replace(one, network=Network(spec, one.network.tensors))
    return found, others, once


def rounding() -> dict[str, Row]:
    """Return rows whose every product and sum rounds, in the order that is written, by plain NumPy."""
    rate, tau, leak, gain = map(np.float32, (0.3, 3.7, 0.1, 1.3))
    curvature, critical, sharpness, one = map(np.float32, (0.3, 1.4, 0.7, 1))
    currents = np.array([0.3, 0.7] * 6, np.float32)

    def grown(v: Any) -> Any:
        return np.float32(sharpness * exponential(np.array((v - critical) / sharpness)))

    charges: dict[Charge, Callable[[Any, Any], Any]] = {
        Charge.EULER: lambda v, i: v + rate * ((leak - v) + gain * i),
        Charge.EULER_INPUT_FIRST: lambda v, i: v + rate * ((gain * i + leak) - v),
        Charge.RELAX: lambda v, i: v + (gain * i - (v - leak)) / tau,
        Charge.LEAK_THEN_ADD: lambda v, i: (v - (v - leak) / tau) + gain * i,
        Charge.QUADRATIC: lambda v, i: v + (gain * i + curvature * (v - leak) * (v - critical)) / tau,
        Charge.EXPONENTIAL: lambda v, i: v + rate * (((leak - v) + grown(v)) + gain * i),
        Charge.EXPONENTIAL_INPUT_FIRST: lambda v, i: v + (((gain * i + leak) - v) + grown(v)) / tau,
        Charge.FILTER: lambda v, i: (v - rate * ((one - gain * i) * v)) + gain * i,
    }
    own = {"rate": rate, "tau": tau, "leak": leak, "curvature": curvature, "critical": critical, "sharpness": sharpness}
    found, node = dict[str, Row](), Node()
    for charge, charged in charges.items():
        fields = ["tau" if "tau" in LEAKS[charge] else "rate", *GROWS.get(charge, ())]
        fields += [name for name in RESTS[charge] if name == "leak"]
        node = {"type": "LI", "charge": charge, "gain": float(gain)} | {name: float(own[name]) for name in fields}
        membranes = [*accumulate(currents, charged, initial=np.float32(0))][1:]
        found[f"rounding by {charge}"] = row([node], {}, currents[:, np.newaxis], membranes)
    rng = np.random.default_rng(0)
    names = ("decay", "threshold", "adapt_decay", "adapt_gain")
    given = {name: rng.uniform(0.25, 1.0, 40).astype(np.float32) for name in names}
    decay, threshold, adapt_decay, adapt_gain = given.values()
    currents, fired = rng.normal(0.5, 0.5, (12, 40)).astype(np.float32), []
    v, a = np.zeros((2, 40), np.float32)
    for i in currents:
        u, h = decay * v + i, threshold + adapt_gain * a
        fired.append((u >= h).astype(np.float32))
        v, a = u - h * fired[-1], adapt_decay * a + fired[-1]
    node = {"type": "ALIF"} | dict.fromkeys(names, "per_neuron")
    found["rounding of an adaptation"] = row([node], {f"node.{n}": each for n, each in given.items()}, currents, fired)
    # Lava's LIF: |v| * (4096 - dv) shifted right by 12, with the sign of v, and the input; above the threshold a spike.
    loihi, fired, w = rng.integers(-900, 1000, (12, 8)), [], np.zeros(8, np.int64)
    for i in loihi:
        w = np.sign(w) * (np.abs(w) * (4096 - 700) >> 12) + i
        fired.append(w > 1500)
        w = np.where(w > 1500, 0, w)
    node = {"type": "LIF", "charge": "truncated", "decay": 3396 / 4096, "threshold": 1500, "fire": "above_threshold"}
    found["Loihi in integers"] = row([node | {"reset": "value"}], {}, loihi, fired)
    return found


def row(nodes: list[Node], tensors: dict[str, Any], steps: Any, leaves: Any, membranes: Any = None) -> Row:
    """Return the row of nodes, of which the last is called "node", or "out" where it is a neuron."""
    steps, leaves = np.array(steps, np.float32), np.array(leaves, np.float32).reshape(len(steps), -1)
    named: list[Node] = [{"name": f"n{place}"} | node for place, node in enumerate(nodes)]
    fires = named[-1]["type"] in FIRING
    named[-1] |= {"name": "node"}
    if not issubclass(NODES[named[-1]["type"]], NeuronBase):  # an LI that keeps nothing shows what leaves
        named += [{"type": "Flatten", "name": "flat"}] * (leaves.shape[1] > 1)
        named.append({"type": "LI", "name": "seen", "decay": 0.0})
    if named[-1].get("recurrent") is not None:
        own: dict[str, Any] = {"node.recurrent.weight": [[1.0]]}  # it hears itself with 1, and the bias 0.25
        own |= {"node.recurrent.bias": [0.25]} if named[-1]["recurrent"].get("bias") else {}
        tensors = own | tensors
    around = task(steps.shape[1:], len(steps), leaves.shape[1], "current", low=-1024, high=1024)
    around["readout"] = "last"
    needed = Spec.read({"nodes": named} | around).tensor_shapes
    network = network_of(named, {name: values for name, values in tensors.items() if name in needed}, **around)
    seen = None if membranes is None else np.array(membranes, np.float32).reshape(len(steps), -1)
    return Row(network, steps, leaves, seen if fires else None)


def alike(node: Node) -> Iterator[Node]:
    """Yield a neuron, and the same one as kinds whose other parameters then change nothing."""
    yield node
    kinds = [node]
    if node["type"] in ("I", "LI", "CubaLI"):
        kinds.append(node | {"type": f"{node['type']}F", "threshold": 100})
    if kinds[-1]["type"] == "LIF" and "reset_timing" not in node:
        kinds.append(kinds[-1] | {"type": "ALIF", "adapt_decay": 0.5, "adapt_gain": 0.0})
    yield from kinds[1:]
    yield from (
        each | {"type": f"Cuba{each['type']}", "syn_decay": 0.0}
        for each in kinds
        if each["type"] in ("LI", "LIF", "ALIF")
    )


@dataclass(frozen=True)
class Together:
    """Rows side by side in one network, so that one file holds them all; `steps` (time_steps, values) are its input.

    Each row takes its own values of the input by a Linear of zeros and ones, and the last node puts the outputs side by
    side in the order of the rows. A row of fewer steps goes on with zeros.
    """

    rows: dict[str, Row]
    network: Network
    steps: FloatArray

    def wrong(self, answer: FloatArray, step: int) -> dict[str, Any]:
        """Return the rows that give something else at a step: what they give, and what they should."""
        ends = np.cumsum([each.leaves.shape[1] for each in self.rows.values()])[:-1]
        pairs = {
            name: (own.tolist(), each.leaves[step].tolist())
            for (name, each), own in zip(self.rows.items(), np.split(answer, ends), strict=True)
            if step < len(each.leaves)
        }
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    def wrong_membranes(self, membranes: Mapping[str, FloatArray]) -> dict[str, Any]:
        """Return the rows whose neurons that fire have other membranes (time_steps, 1, units) at any step."""
        pairs = {
            name: (membranes[f"r{place}_node"][: len(each.steps), 0].tolist(), each.membranes.tolist())
            for place, (name, each) in enumerate(self.rows.items())
            if each.membranes is not None
        }
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def together(some: dict[str, Row]) -> Together:
    """Return the network of these rows, all of one coding."""
    nodes, tensors, outputs, first = list[Node](), dict[str, Any](), list[str](), 0
    width = sum(each.steps[0].size for each in some.values())
    steps = np.zeros((max(len(each.steps) for each in some.values()), width), np.float32)
    for place, each in enumerate(some.values()):
        size, own = each.steps[0].size, f"r{place}_"
        steps[: len(each.steps), first : first + size] = each.steps.reshape(len(each.steps), -1)
        linear = {"type": "Linear", "name": f"{own}own", "in_features": width, "out_features": size, "bias": False}
        nodes += [linear | {"inputs": ["input"]}]
        tensors[f"{own}own.weight"] = np.eye(width)[first : first + size]
        nodes += [{"type": "Reshape", "name": f"{own}input", "shape": each.steps.shape[1:]}]
        for node in each.network.spec.nodes:
            inputs = [own + name for name in each.network.spec.sources[node.name]]
            nodes += [node.model_dump(mode="json", exclude_none=True) | {"name": own + node.name, "inputs": inputs}]
        tensors |= {own + name: values for name, values in each.network.tensors.items()}
        flat = len(each.network.spec.output_shapes[each.network.spec.nodes[-1].name]) == 1
        nodes += [] if flat else [{"type": "Flatten", "name": f"{own}out"}]
        outputs, first = [*outputs, nodes[-1]["name"]], first + size
    coding, labels = next(iter(some.values())).network.spec.coding, sum(each.leaves.shape[1] for each in some.values())
    nodes += [{"type": "Concatenate", "name": "all", "inputs": outputs}]
    around = task(width, len(steps), labels, coding, low=-1024, high=1024, readout="last")
    return Together(some, network_of(nodes, tensors, **around), steps)


ROWS, ALIKE, ONCE = rows()
GROUPS = {"each step": ROWS, "alike": ALIKE, "once": ONCE, "rounding": rounding()}
TOGETHER = {name: together(some) for name, some in GROUPS.items()}
