"""What is asked of every way in, and what it is answered: samples and options, and the answer worked out by hand.

The models are small and dyadic. Where the words of a refusal differ by the form in which samples are sent, a row has
them by form.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.coding import encode
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec import Coding
from spikeserve.models.spec.network import Network
from spikeserve.service.inference.protocols.v2.tensors import Datatype
from tests.bundles import contents
from tests.contracts.ways import Question
from tests.models.test_anytime import calibration
from tests.networks import network_of, regression, task, toy
from tests.service.sessions.conftest import pairs
from tests.service.versions import doubled


def counting(shape: list[int], coding: str = "direct", time_steps: int = 2, **of_input: Any) -> Network:
    """Return a network with an IF of threshold 1 for each unit of its input, which counts what that is sent."""
    labels = [f"unit {unit}" for unit in range(math.prod(shape))]
    nodes = [{"type": "Flatten", "name": "flat"}, {"type": "IF", "name": "out"}]
    return network_of(nodes, {}, **task(shape, time_steps, labels, coding, **of_input))


def same(**of_input: Any) -> Network:
    """Return a network whose values are those of its input, normalised."""
    node = {"type": "Linear", "name": "fc", "in_features": 2, "out_features": 2, "bias": False}
    return network_of([node], {"fc.weight": np.eye(2)}, **task(2, 1, 2, readout="mean", scores="values", **of_input))


def many(threshold: float) -> Network:
    """Return a neuron that fires as often as its input has room for its threshold."""
    nodes = [{"type": "Threshold", "name": "many", "fire": "multiple", "threshold": threshold}]
    return network_of(nodes, {}, **task(1, 2, ["only"], low=0, high=4))


GREATEST = float(np.finfo(np.float32).max)
WEATHER: dict[str, Any] = {"low": [20, 1000], "high": [30, 2000], "scale": [0.1, 0.001], "offset": [-2, -1]}
LATER: list[dict[str, Any]] = [
    {"type": "Delay", "name": "delay", "delay": 1},
    {"type": "Scale", "name": "scale", "scale": 2.0},
    {"type": "Threshold", "name": "several", "fire": "multiple"},
    {"type": "Linear", "name": "fc", "in_features": 2, "out_features": 2, "bias": False},
    {"type": "CubaLI", "name": "out", "decay": 0.5, "syn_decay": 0.5},
]
NETWORKS: Mapping[str, Network] = {
    "toy": toy(),
    "rate": toy(Coding.RATE, time_steps=16),
    "late": toy(Coding.LATENCY, time_steps=5),
    "spikes": toy(Coding.SPIKES),
    "series": counting([1, 2], "current", low=-4, high=4),
    "pairs": pairs(),
    "image": counting([1, 2, 2]),
    "strip": counting([1, 2], "spikes", 3),
    "camera": counting([2, 2, 3], "spikes", 4),
    "offset": counting([2], "spikes", 4, offset=0.25),
    "weather": counting([2], out_of_range="clip", **WEATHER),
    "arm": regression(units=["rad", "m/s"]),
    "odds": regression("probabilities"),
    "multiple": network_of(
        [{"type": "IF", "name": "out", "fire": "multiple"}], {}, **task(2, 2, ["left", "right"], low=0, high=10)
    ),
    "membrane": network_of(
        [{"type": "LI", "name": "out", "decay": 0.5}], {}, **task(1, 3, ["only"], readout="last_membrane")
    ),
    "later": network_of(
        LATER, {"fc.weight": [[1, 0], [0, 1]]}, **task(2, 3, "ab", "spikes", low=0, high=4, readout="last_membrane")
    ),
    "quarters": many(0.25),
    "countless": many(2.0**-23),
    "whole": network_of(
        [{"type": "I", "name": "out"}], {}, **task(2, 2, ["left", "right"], low=-8, high=8, readout="last_membrane")
    ),
    "exact": same(low=-GREATEST, high=GREATEST),
    "scaled": same(low=-2, high=3, scale=[0.3, 1 / 3], offset=[0.1, -0.7], resolution=0.25, out_of_range="clip"),
    "wide": network_of(
        [
            {"type": "Linear", "name": "fc", "in_features": 64, "out_features": 40, "bias": False},
            {"type": "LIF", "name": "out", "decay": 0.5},
        ],
        {"fc.weight": np.random.default_rng(2).integers(-4, 5, (40, 64)) / 8},
        **task(64, 4, 40),
    ),
    "two": toy(),
}


def publish_all(root: Path) -> int:
    """Publish them, `two` in two versions, and one that is calibrated; return how many there are."""
    repository, rule = ModelRepository(root), calibration(0.5, first=2)
    bundles = [contents(network, name) for name, network in (*NETWORKS.items(), ("two", doubled()))]
    bundles.append(replace(contents(toy(time_steps=8), "calibrated"), calibration=rule))
    return len([repository.publish(bundle) for bundle in bundles])


def ask(model: str, *samples: Any, needs: str = "", **options: Any) -> Question:
    """Return a question about samples, and what a way in needs beside numbers to ask it."""
    return Question(
        model, list(samples), options, frozenset(needs.split()) | ({"values"} if model != "pairs" else set())
    )


def counts(*spikes: Any) -> list[dict[str, Any]]:
    """Return answers of which the spikes of each output are known."""
    return [{"spike_counts": each} for each in spikes]


EVERYTHING = ["raster", "membrane", "spikes_per_node"]
NOTHING: dict[str, Any] = {"raster": {}, "membrane": {}, "spikes_per_node": {}, "spike_counts": [0, 0]}
# Unit 0 at steps 0, 1 and 3, unit 1 at step 2: three events of one unit make one spike, and one makes none.
RASTER = [[1, 0], [1, 0], [0, 1], [1, 0]]
ENDS_EARLY = [[1, 0]] * 4 + [[0, 0]] * 6
# Of the toy network's two neurons, the first fires at each of eight steps: after 5 it is 5 ahead, with 3 to come. The
# second sample's are level to the end, and so are those of the third, which never fire.
CLEAR, LEVEL, SILENT = [1.0, 0.0], [1.0, 1.0], [0.25, 0.25]
EARLY: dict[str, Any] = {"time_steps": 8, "stop": "decided"}
CAMERA_RASTER = np.zeros((4, 2, 2, 3), int)
CAMERA_RASTER[[0, 3], 1, 0, 2] = 1
SEEN = [0] * 8 + [2] + [0] * 3

ANSWERS: dict[str, tuple[Question, list[dict[str, Any]]]] = {
    # Decay 0.5, threshold 1, three steps. 0.75 charges 0.75, then 0.375 + 0.75 = 1.125 (spike, 0.125 left), then
    # 0.8125: one spike. 1.0 fires at each step. The direct current meets its 2 × 2 weights once.
    # softmax of (1, 3): 1 / (1 + e²) = 0.1192.
    "one sample": (ask("toy", [0.75, 1.0]), [{"class_index": 1, "label": "right", "spike_counts": [1, 3],
        "synaptic_operations": 4, "probabilities": [0.11920292, 0.88079708]}]),
    "several samples": (ask("toy", [0.75, 1.0], [3, 0], [0, 0]), counts([1, 3], [3, 0], [0, 0])),
    "a tie is the first class": (ask("toy", [3, 3]), [{"spike_counts": [3, 3], "class_index": 0, "label": "left"}]),
    "1,024 samples": (ask("toy", *[[1, 0], [0, 1]] * 512, needs="together"), counts([3, 0], [0, 3]) * 512),
    "more time steps": (ask("toy", [0, 1], time_steps=7), counts([0, 7])),
    "1,000 time steps": (ask("toy", [0, 1], time_steps=1000), counts([0, 1000])),
    # 0 never spikes by rate and 1 always does, whatever the seed.
    "rates that leave nothing to chance": (ask("rate", [1, 0], seed=7), counts([16, 0])),
    "the greatest seed": (ask("rate", [0, 1], seed=2**63 - 1), counts([0, 16])),
    # 1 spikes at the first of five steps, and 0 never.
    "latency": (ask("late", [1, 0], [0, 1]), counts([1, 0], [0, 1])),
    "spikes of as many steps as a raster has": (ask("spikes", [[0, 1]] * 7), counts([0, 7])),
    "events in time steps": (ask("spikes", {"t": [0, 1], "unit": [1, 0]}, {"t": [2], "unit": [1]}),
        counts([1, 1], [0, 1])),
    # Decay 1, threshold 1. The currents 0.75, 0.5, 0.5 charge 0.75, 1.25 (spike, 0.25 left), 0.75: one spike. The
    # others, -1, 2, 0, charge -1, 1 (spike, 0 left), 0: one spike. Trained with two steps, it takes three.
    "a time series": (ask("series", [[[0.75, -1]], [[0.5, 2]], [[0.5, 0]]]), counts([1, 1])),
    "a time series of flat steps": (ask("series", [[0.75, -1], [0.5, 2], [0.5, 0]], needs="flat"), counts([1, 1])),
    "a raster of recorded events": (ask("pairs", RASTER),
        [{"class_index": 0, "label": "left", "spike_counts": [1, 0], "synaptic_operations": 8,
        "probabilities": [0.73105858, 0.26894142]}]),
    # One half, then the spike of the second event.
    "a recording's first steps": (ask("pairs", RASTER[:2], time_steps=2, returns=EVERYTHING),
        [{"spike_counts": [1, 0], "raster": {"out": {"t": [1], "unit": [0]}}, "spikes_per_node": {"out": 1},
        "membrane": {"out": [[0.5, 0.0], [0.0, 0.0]]}}]),
    # Unit 0 spikes at steps 1 and 3 of ten. After 8 steps, unit 1 has at most two spikes to come: a tie is unit 0's.
    "a recording that is decided": (ask("pairs", ENDS_EARLY, time_steps=10, stop="decided"),
        [{"steps_used": 8, "spike_counts": [2, 0]}]),
    # Each of 1 × 2 × 2 pixels straight into its neuron: those of at least 1 fire at each of the two steps.
    "pixels": (ask("image", [[[1, 0], [0, 1]]]), counts([2, 0, 0, 2])),
    "flat pixels": (ask("image", [0, 1, 0, 0], [1, 0, 0, 1], needs="flat"), counts([0, 2, 0, 0], [2, 0, 0, 2])),
    "pixels, some of them flat": (ask("image", [[[1, 0], [0, 1]]], [0, 1, 0, 0]), counts([2, 0, 0, 2], [0, 2, 0, 0])),
    "a raster of rows": (ask("strip", [[[1, 0]], [[1, 1]]]), counts([2, 1])),
    "a raster of flat rows": (ask("strip", [[1, 0], [1, 1]], needs="flat"), counts([2, 1])),
    # Channel 1, row 0, column 2 is unit (1 * 2 + 0) * 3 + 2 = 8; it spikes at steps 0 and 3.
    "a camera's raster": (ask("camera", CAMERA_RASTER.tolist()), [{"spike_counts": SEEN, "label": "unit 8"}]),
    "a camera's events": (ask("camera", {"t": [0, 3], "unit": [8, 8]},
        {"t": [0, 3], "x": [2, 2], "y": [0, 0], "p": [1, 1]}), counts(SEEN, SEEN)),
    "a camera's raster among its events": (ask("camera", CAMERA_RASTER.tolist(), {"t": [0, 3], "unit": [8, 8]}),
        counts(SEEN, SEEN)),
    # Channel 0, row 1, column 0 is unit (0 * 2 + 1) * 3 + 0 = 3, and channel 1, row 1, column 2 is unit 11.
    "a camera's events in rows": (ask("camera", {"t": [0, 1, 2], "x": [0, 2, 2], "y": [1, 1, 1], "p": [0, 1, 1]}),
        counts([0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2])),
    # A current of 0.25 at each of four steps, and 1 at the last: 0.25, 0.5, 0.75, 2, of which one spike leaves 1; and
    # without the event 1, which is one spike too.
    "events of an input with an offset": (ask("offset", {"t": [3], "unit": [1]}, returns=["membrane"]),
        [{"spike_counts": [1, 1], "membrane": {"out": [[0.25, 0.25], [0.5, 0.5], [0.75, 0.75], [0.0, 1.0]]}}]),
    # 20 to 30 degrees become 0 to 1, and 1000 to 2000 hectopascal too. 25 and 2000 are 0.5 and 1, which at decay 1 and
    # threshold 1 give 1 and 2 spikes in two steps. 99 degrees and 0 hectopascal are taken for 30 and 1000: 2 and 0.
    "raw values, of which none is too far": (ask("weather", [25, 2000], [99, 0]), counts([1, 2], [2, 0])),
    "all that is recorded": (ask("toy", [0.75, 1.0], returns=EVERYTHING),
        [{"raster": {"out": {"t": [0, 1, 1, 2], "unit": [1, 0, 1, 1]}}, "spikes_per_node": {"out": 4},
        "membrane": {"out": [[0.75, 0.0], [0.125, 0.0], [0.8125, 0.0]]}}]),
    "long records": (ask("toy", *[[1, 0]] * 9, time_steps=1000, returns=EVERYTHING),
        [{"spike_counts": [1000, 0], "raster": {"out": {"t": [*range(1000)], "unit": [0] * 1000}},
        "membrane": {"out": [[0.0, 0.0]] * 1000}, "spikes_per_node": {"out": 1000}}] * 9),
    "a raster alone": (ask("toy", [0.75, 1.0], returns=["raster"]),
        [{"raster": {"out": {"t": [0, 1, 1, 2], "unit": [1, 0, 1, 1]}}}]),
    # Two neurons that fire as often as their charge holds the threshold of 1: 2.5 and 0 are two spikes at step 0, and
    # with 0.5 left, three at step 1.
    "a neuron as often as it fires in a step": (ask("multiple", [2.5, 0], returns=["raster"]),
        [{"spike_counts": [5, 0], "raster": {"out": {"t": [0, 0, 1, 1, 1], "unit": [0, 0, 0, 0, 0]}}}]),
    # One leaky integrator, decay 0.5, a current of 1: its membrane is 1, 1.5, 1.75.
    "a membrane that is read out": (ask("membrane", [1], returns=EVERYTHING),
        [{"membrane": {"out": [[1.0], [1.5], [1.75]]}, "raster": {}, "spikes_per_node": {}, "spike_counts": [0]}]),
    # Two steps of 1.5 and -2 sum to 3 and -4.
    "the greater sum": (ask("whole", [1.5, -2]), [{"class_index": 0, "label": "left", "spike_counts": [0, 0]}]),
    # One step later and doubled: 3.5 gives 3 spikes, 1.0 gives 1. They charge j = 3, 1.5 and v = 3, 0.5 * 3 + 1.5; the
    # other neuron a third of that.
    "several spikes of a step": (ask("later", [[1.75, 0.5], [0, 0], [4, 4]], returns=EVERYTHING),
        [{"raster": {"several": {"t": [1, 1, 1, 1], "unit": [0, 0, 0, 1]}}, "spikes_per_node": {"several": 4},
        "membrane": {"several": [[0, 0], [3.5, 1], [0, 0]], "out": [[0, 0], [3, 1], [3, 1]]}, "label": "a",
        "spike_counts": [0, 0], "synaptic_operations": 4}]),
    # 1 has room for a threshold of 2**-23 2**23 times at each of two steps, and 3 for one of 1/4 twelve times.
    "the most spikes of a step": (ask("countless", [1]), counts([2**24])),
    "a raster of many spikes of a step": (ask("quarters", [3], returns=["raster"]),
        [{"raster": {"many": {"t": [0] * 12 + [1] * 12, "unit": [0] * 24}}, "spike_counts": [24]}]),
    # A Linear that passes both inputs on, takes 1 from the second, and is read as the mean of three equal steps. Two
    # inputs that are not 0 meet two weights each. It has no neurons, and so nothing that is recorded.
    "a regression": (ask("arm", [0.25, 3], [0.5, 0]),
        [{"values": [0.25, 2.0], "synaptic_operations": 4, "spike_counts": [0, 0]},
        {"values": [0.5, -1.0], "synaptic_operations": 2, "spike_counts": [0, 0]}]),
    "a regression's records": (ask("arm", [0.25, 3], returns=EVERYTHING), [{"values": [0.25, 2.0]} | NOTHING]),
    "negative whole numbers": (ask("exact", [-1, 300]), [{"values": [-1.0, 300.0]}]),
    "the greatest integers that float32 holds with all before them": (ask("exact", [2**24, -(2**24)], datatype="INT64"),
        [{"values": [2.0**24, -(2.0**24)]}]),
    # The outputs 0.25 and 1.75 - 1 are a distribution already, and no softmax is made of them.
    "probabilities as they are read": (ask("odds", [0.25, 1.75]), [{"probabilities": [0.25, 0.75], "label": "speed"}]),
    "samples that are decided": (ask("toy", CLEAR, LEVEL, SILENT, **EARLY),
        [{"steps_used": 5, "spike_counts": [5, 0]}, {"steps_used": 8, "spike_counts": [8, 8]},
        {"steps_used": 8, "spike_counts": [0, 0]}]),
    "records that end with their sample": (ask("toy", CLEAR, LEVEL, returns=EVERYTHING, **EARLY),
        [{"raster": {"out": {"t": [0, 1, 2, 3, 4], "unit": [0] * 5}}, "membrane": {"out": [[0.0, 0.0]] * 5},
        "spikes_per_node": {"out": 5}, "steps_used": 5},
        {"membrane": {"out": [[0.0, 0.0]] * 8}, "steps_used": 8, "spikes_per_node": {"out": 16},
        "raster": {"out": {"t": [step for step in range(8) for _ in "ab"], "unit": [0, 1] * 8}}}]),
    # It is looked at after 2, 3, 5 and 8 steps, and its lead n has to be 0.5 for each of the 8 - n that remain: 3 is
    # more than 2.5.
    "samples that are confident": (ask("calibrated", CLEAR, LEVEL, SILENT, stop="confident"),
        [{"steps_used": steps} for steps in (3, 8, 8)]),
    # 0.5 charges 0.5, 0.75, 0.875, below the threshold; twice that fires at every step.
    "the first version": (ask("two", [0.5, 0], version=1), counts([0, 0])),
    "the second version": (ask("two", [0.5, 0], version=2), counts([3, 0])),
    "the newest version": (ask("two", [0.5, 0]), counts([3, 0])),
}  # fmt: skip


def drawn(name: str, samples: int = 9, **options: Any) -> tuple[Question, list[dict[str, Any]]]:
    """Return random dyadic samples for a model, and what the reference engine gives for them."""
    network = NETWORKS[name]
    declared, rng = network.spec.input, np.random.default_rng(1)
    shape = (samples, *([network.spec.time_steps] if network.spec.coding.per_step else []), *declared.shape)
    parts = 1 if network.spec.coding is Coding.SPIKES else 8  # of 1
    values = rng.integers(0, parts * min(4, int(np.max(declared.high))) + 1, shape) / parts
    result, _ = ReferenceEngine(network).run(encode(values.astype(np.float32), network.spec, **options))
    answers = zip(result.spike_counts.tolist(), result.synaptic_operations.tolist(), strict=True)
    found = [{"spike_counts": spikes, "synaptic_operations": operations} for spikes, operations in answers]
    if not network.spec.scores.has_classes:
        found = [each | {"values": row} for each, row in zip(found, result.readout.tolist(), strict=True)]
    return ask(name, *values.tolist(), **options), found


ANSWERS |= {
    f"samples in {datatype}": (ask("toy", [1, 0], [1, 1], datatype=datatype, needs=datatype), counts([3, 0], [3, 3]))
    for datatype in sorted({*Datatype} - {Datatype.BYTES})
}
ANSWERS["a long request"] = drawn("wide", 300)  # of 150 KB, which is decoded on a thread, and so is its answer's text
ANSWERS |= {
    f"random samples of {name}": drawn(name, **({"seed": 3} if name == "rate" else {}))
    for name in ("toy", "rate", "late", "spikes", "series", "image", "camera", "arm", "multiple", "scaled")
}

NAN, INFINITY = float("nan"), float("inf")
TWO = "expected [-1, 2], where -1 is 1 or more"


def not_finite(value: float, name: str) -> tuple[Question, dict[str, str]]:
    """Return the refusal of a value that is not finite: text names it, and numbers have a range."""
    outside = f"inputs[0][1] is {value:g}, expected 0 to 10"
    tensor = f"inputs[0].data holds {name}, expected a number within ±1.79769e+308"
    said = {"json": f"inputs[0][1] is {name}, expected a finite number", "array": outside}
    return ask("toy", [1, value]), said | {"tensor": tensor, "bytes": outside}


def option(sentence: str, *, needs: str = "", **options: Any) -> tuple[Question, str]:
    """Return the refusal of an option, with a sample that every way in has words for."""
    return ask("pairs", RASTER, needs=needs, **options), sentence


def events(sentence: str, model: str = "camera", /, **sample: Any) -> tuple[Question, str]:
    """Return the refusal of a sample of events."""
    return ask(model, sample), sentence


# By what is wrong: the question, and what the sentence says, where it differs by the form in which samples are sent.
# Without words for "bytes" they are those for "tensor".
REFUSALS: dict[str, tuple[Question, str | dict[str, str]]] = {
    "no sample": (ask("toy", needs="together"), {"json": "inputs is empty, expected at least one item",
        "array": "of shape 0, expected samples×2, or one", "tensor": f"inputs[0].shape is [0], {TWO}"}),
    "too many samples": (ask("toy", *[[0, 0]] * 1025, needs="together"),
        "inputs has 1025 samples, expected at most 1024"),
    "a sample of another length": (ask("toy", [1, 2, 3]),
        {"json": "inputs[0] has shape 3, expected 2", "array": "is an array of shape 1×3, expected samples×2, or one",
        "tensor": f"inputs[0].shape is [1, 3], {TWO}"}),
    "the third sample's length": (ask("toy", [1, 2], [1, 2], [1], needs="together"),
        "inputs[2] has shape 1, expected 2"),
    "pixels too few": (ask("image", [1, 0, 0]), {"json": "inputs[0] has shape 3, expected 1×2×2, or 4 flat",
        "array": "1×3, expected samples×1×2×2, or one",
        "tensor": "inputs[0].shape is [1, 3], expected [-1, 1, 2, 2], where -1 is 1 or more"}),
    "rows of different lengths": (ask("image", [[[1, 0], [0]]]),
        "inputs[0] has rows of different lengths, expected shape 1×2×2"),
    "channels that come last": (ask("camera", [[[[0, 1]] * 3] * 2]),
        {"json": "inputs[0] has shape 1×2×3×2, expected 1×2×2×3, or 1×12 flat; the channels come first, as numpy.move",
        "array": "1×1×2×3×2, expected samples×time_steps×2×2×3, or one; the channels come first, as numpy.moveaxis(",
        "tensor": "is [1, 1, 2, 3, 2], expected [-1, -1, 2, 2, 3], where -1 is 1 or more; the channels come first"}),
    "not a number": not_finite(NAN, "NaN"),
    "infinity": not_finite(INFINITY, "Infinity"),
    "minus infinity": not_finite(-INFINITY, "-Infinity"),
    "more than float32 holds": (ask("toy", [1, 1e39]),
        {"json": "inputs[0][1] is 1e+39, expected at most 340282346", "array": "inputs[0][1] is inf, expected 0 to",
        "tensor": "inputs[0][1] is inf, expected 0 to 10"}),
    "a value outside of the range": (ask("toy", [1, 10.5]), "inputs[0][1] is 10.5, expected 0 to 10"),
    "a step's value outside of the range": (ask("series", [[[0, 5]]]), "inputs[0][0][0][1] is 5, expected -4 to 4"),
    "text": (ask("toy", [1, "2"]), "inputs[0][1] is '2', expected a number"),
    "no steps": (ask("spikes", []), {"json": "inputs[0] has 0 steps, expected 1 to 1000",
        "array": "1×0, expected samples×time_steps×2, or one",
        "tensor": "inputs[0].shape is [1, 0], expected [-1, -1, 2], where -1 is 1 or more"}),
    "too many steps": (ask("spikes", [[0, 1]] * 1001),
        {"json": "inputs[0] has 1001 steps, expected 1 to 1000", "array": "is 1001, expected 1 to 1000",
        "tensor": "inputs[0].shape[1] is 1001, expected 1 to 1000"}),
    "samples of different steps": (ask("spikes", [[0, 1]] * 3, [[0, 1]] * 2, needs="together"),
        "inputs[1] has shape 2×2, expected 3×2"),
    "other steps than the raster's": (ask("spikes", [[0, 1]] * 3, time_steps=4),
        {"json": "inputs[0] has shape 3×2, expected 4×2", "array": "time_steps is 4, but",
        "tensor": "time_steps is 4, but inputs[0] has 3 steps"}),
    "a step of no array": (ask("spikes", [0, 1], needs="JSON"), "inputs[0][0] is 0, expected an array"),
    "events without units": events("inputs[0].unit is missing", t=[0]),
    "more units than times": events("inputs[0]: 1 t for 2 unit, expected as many of both", t=[0], unit=[0, 1]),
    "an event after the last step": events("inputs[0].t[0] is 4, expected 0 to 3", t=[4], unit=[0]),
    "an event before the first": events("inputs[0].t[0] is -1, expected at least 0", t=[-1], unit=[0]),
    "a unit that there is not": events("inputs[0].unit[0] is 12, expected 0 to 11", t=[0], unit=[12]),
    "a unit that is no number": events("inputs[0].unit[0] is true, expected an integer", t=[0], unit=[True]),
    "a field that events do not have": events("inputs[0].weight is not a field here", t=[0], unit=[0], weight=[1]),
    "pixels without polarity": events("inputs[0].p is missing", t=[0], x=[0], y=[0]),
    "a pixel outside": events("inputs[0].x[0] is 3, expected 0 to 2", t=[0], x=[3], y=[0], p=[0]),
    "more rows than times": events("inputs[0]: 1 t for 2 y, expected as many of both", t=[0], x=[0], y=[0, 2], p=[0]),
    "a pixel after the last step": events("inputs[0].t[0] is 4, expected 0 to 3", t=[4], x=[0], y=[0], p=[0]),
    "events for a model of currents": events(
        "is an object, expected an array with a value for each step: only models of `spikes` coding take events",
        "series", t=[0], unit=[0],
    ),
    "events for a model of constants": events("inputs[0] is an object, expected an array", "toy", t=[0], unit=[0]),
    "no time steps": option("time_steps is 0, expected at least 1", time_steps=0),
    "too many time steps": (ask("toy", [1, 1], time_steps=1001), "time_steps is 1001, expected 1 to 1000"),
    "time steps of words": option("time_steps is 'many', expected an integer", time_steps="many"),
    "a seed below 0": option("seed is -1, expected at least 0", seed=-1),
    "a seed of words": option("seed is 'one', expected an integer", seed="one"),
    "another stop": option("stop is 'soon', expected 'decided' or 'confident'", stop="soon"),
    "no calibration": option("stop is 'confident', but the model has no calibration for it", stop="confident"),
    "another record": option("return[0] is 'spikes', expected 'raster', 'membrane' or 'spikes_", returns=["spikes"]),
    "an unknown option": option("steps is not a field here, expected one of", needs="unknown", steps=3),
    "the calibration of other steps": (ask("calibrated", CLEAR, stop="confident", time_steps=9),
        "stop is 'confident', but time_steps is 9, and the model is calibrated for 8"),
    "a regression that is decided": (ask("arm", [1, 1], stop="decided"),
        "stop is 'decided', but the model gives values and no classes"),
    # 1,024 samples of 1,000 steps of two neurons.
    "more than is recorded": (ask("toy", *[[1, 1]] * 1024, time_steps=1000, returns=["membrane"], needs="together"),
        "return has 'membrane', which for 1024 samples at 1000 time_steps is 2048000 values, expected at most 1000000"),
    # A value of 4 has room for a threshold of 2**-23 2**25 times.
    "more spikes in a step than are counted": (ask("countless", [4]),
        "node 'many': a neuron fires 33554432 times in one step, expected at most 16777216"),
    "a version that there is not": (ask("two", [1, 2], version=9, needs="server"),
        "model 'two' has no version '9' here; it has: 1, 2"),
    "a model that there is not": (ask("nobody", [1, 2], needs="server"),
        "model 'nobody' is not served here; this server has: arm, c"),
    # Two million neuron steps, and as many spikes that are drawn, take five times as long.
    "a deadline": (ask("rate", *[[1, 1]] * 1024, time_steps=1000, timeout_ms=20),
        "model 'rate' did not answer within the time that the request had"),
}  # fmt: skip
STATUSES = {  # of the native routes, where it is not 422
    "too many samples": 413,
    "a version that there is not": 404,
    "a model that there is not": 404,
    "a deadline": 504,
}
