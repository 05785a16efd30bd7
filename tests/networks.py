"""Networks for tests: small ones written out, and random dyadic ones on which every engine must agree to the bit.

Dyadic: weights, biases and inputs are multiples of 1/8 with few bits, so that every float32 sum is exact in any order.
Decays, gains, drives, thresholds and reset values are any floats: they act on one neuron at a time, in a fixed order.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from hypothesis import strategies as st

from spikeserve.models.coding import DenseInputs
from spikeserve.models.spec import Coding, Input, Readout, Spec, rules
from spikeserve.models.spec.expressions import ARITY
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.neurons import Adaptive
from spikeserve.models.spec.nodes import Integrating, Leaky, Linear, Neuron, Node, Spiking, Weighted
from spikeserve.models.spec.parameters import Shape
from spikeserve.models.spec.program import read


def network_of(nodes: list[dict[str, Any]], tensors: dict[str, Any], **spec: Any) -> Network:
    """Return a network from nodes as they stand in JSON and tensors as nested lists."""
    return Network(
        Spec.read({"nodes": nodes} | spec), {name: np.array(value, np.float32) for name, value in tensors.items()}
    )


def task(
    shape: int | Sequence[int], time_steps: int, labels: int | Iterable[str], coding: str = "direct", **fields: Any
) -> dict[str, Any]:
    """Return the fields of a spec around its nodes; `labels` are words or letters, or so many numbers.

    Fields of an input are those of the spec's.
    """
    declared: dict[str, Any] = {"shape": [shape] if isinstance(shape, int) else shape}
    declared |= {name: fields.pop(name) for name in Input.model_fields if name in fields}
    names = [str(label) for label in range(labels)] if isinstance(labels, int) else list(labels)
    return {"input": declared, "time_steps": time_steps, "labels": names, "coding": coding} | fields


def node_of(fields: dict[str, Any]) -> Any:
    """Return a node of its JSON, by its class: pydantic takes a twentieth of a second to read the union of all."""
    return NODES[fields["type"]].model_validate(fields)


def votes(labels: str, time_steps: int, coding: str = "direct", fire: str = "at_threshold", **fields: Any) -> Network:
    """Return neurons without leak, one for each class and each input, that fire where their input does."""
    size = len(labels)
    nodes: list[dict[str, Any]] = [
        {"type": "Linear", "name": "fc", "in_features": size, "out_features": size, "bias": False},
        {"type": "IF", "name": "out", "fire": fire},
    ]
    return network_of(nodes, {"fc.weight": np.eye(size)}, **task(size, time_steps, labels, coding, **fields))


def toy(coding: Coding = Coding.DIRECT, time_steps: int = 3) -> Network:
    """Two inputs straight into two LIF neurons: decay 0.5, threshold 1."""
    return network_of(
        [
            {"type": "Linear", "name": "fc", "in_features": 2, "out_features": 2, "bias": False},
            {"type": "LIF", "name": "out", "decay": 0.5},
        ],
        {"fc.weight": [[1, 0], [0, 1]]},
        **task(
            2, time_steps, ["left", "right"], coding, low=0, high=10 if coding in (Coding.DIRECT, Coding.CURRENT) else 1
        ),
    )


def regression(scores: str = "values", units: list[str] | None = None) -> Network:
    """Two inputs straight into two outputs of a Linear, the second with a bias of -1, whose mean is read."""
    return network_of(
        [{"type": "Linear", "name": "fc", "in_features": 2, "out_features": 2}],
        {"fc.weight": [[1, 0], [0, 1]], "fc.bias": [0, -1]},
        **task(2, 3, ["angle", "speed"], low=0, high=10, readout="mean", scores=scores),
        **{} if units is None else {"units": units},
    )


@dataclass(frozen=True)
class Case:
    """A network, inputs for it, and the steps before which a run of them is cut."""

    network: Network
    inputs: DenseInputs
    cuts: tuple[int, ...]

    @property
    def parts(self) -> list[DenseInputs]:
        """The inputs of each part of a run that is cut."""
        steps, ends = self.inputs.steps, [*self.cuts, self.inputs.time_steps]
        return [
            DenseInputs(steps if self.inputs.constant else steps[start:end], end - start)
            for start, end in zip([0, *self.cuts], ends, strict=True)
        ]


NODES: dict[str, Any] = {node.model_fields["type"].default: node for node in get_args(get_args(Node)[0])}
FIRING = tuple(node.model_fields["type"].default for node in get_args(Spiking))
ADAPTIVE = tuple(node.__name__ for node in get_args(Spiking) if issubclass(node, Adaptive))
INTEGRATING = tuple(node.model_fields["type"].default for node in get_args(Integrating))
PROGRAMS = ("Neuron", "Integrator")

# The connections that take an input of so many axes, the usual ones more often.
ANYWHERE = ["Scale", "Delay", "Reshape"]
CONNECTIONS = {
    1: ["Linear"] * 6 + ANYWHERE,
    2: ["Conv1d"] * 4 + ["ConvTranspose1d", "SumPool1d", "AvgPool1d", "MaxPool1d", "Flatten", "Permute"] + ANYWHERE,
    3: ["Conv2d"] * 4 + ["ConvTranspose2d", "SumPool2d", "AvgPool2d", "MaxPool2d", "Flatten", "Permute"] + ANYWHERE,
}
JOINS = ["Multiply", "Concatenate", "MatMul"]
# Where each parameter is drawn from, and a number that changes nothing, which is drawn more often.
RANGES: dict[str, tuple[float, float, float | None]] = {
    **dict.fromkeys(("decay", "syn_decay", "adapt_decay", "exc_decay", "inh_decay"), (0, 1, None)),
    **dict.fromkeys(("rate", "syn_rate", "adapt_rate"), (0, 1, None)),
    **{"adapt_spike": (0, 1, 1), "adapt_gain": (0, 2, None), "adapt_coupling": (-1, 2, None), "tau": (1, 8, None)},
    **{"gain": (-2, 2, 1), "syn_gain": (-2, 2, 1), "drive": (-0.5, 0.5, 0), "leak": (-0.5, 0.5, 0)},
    **{"start": (-1, 1, 0), "reset_value": (-1, 1, 0), "floor": (-2, 0.5, None), "refractory": (0, 3, None)},
    **{"curvature": (0, 2**-6, None), "critical": (0, 2, None), "sharpness": (1, 4, None)},
    **{"threshold": (0.125, 2, None), "cosine": (-1, 1, None), "sine": (-1, 1, None)},
}


def range_of(name: str, node: dict[str, Any]) -> tuple[float, float, float | None]:
    """Return the row of a node's parameter."""
    if name == "rate" and node.get("charge") == rules.Charge.FILTER:
        return 0, 2**-6, None  # given much, it grows by the product
    if name == "threshold" and node.get("fire") == rules.Fire.MULTIPLE:
        return 4, 9, None  # which keeps the counts of several spikes, and so the sums over them, within float32
    return RANGES[name]


EXPONENTIALS = (rules.Charge.EXPONENTIAL, rules.Charge.EXPONENTIAL_INPUT_FIRST)
ROOM = 12  # bits of both signals of a product: with those of the layers behind it they stay within a float32's 24
NOT_DYADIC = 1000  # bits of what no sum is exact of


@st.composite
def neurons(draw: st.DrawFn, name: str, kind: str, inputs: list[str] | None = None) -> dict[str, Any]:
    """Draw a neuron node as JSON, with scalar or per-neuron parameters, of any charge, synapse, reset and timing."""

    def take(*names: str, absent: bool = False) -> None:
        for name in names:
            low, high, usual = range_of(name, node)
            often = [st.none(), st.none()] if absent else [] if usual is None else [st.just(float(usual))]
            node[name] = draw(st.one_of(*often, st.floats(low, high, width=32), st.just("per_neuron")))

    node: dict[str, Any] = {"type": kind, "name": name}
    if inputs:
        node["inputs"] = inputs
    if kind in PROGRAMS:
        return node | draw(programs(spiking=kind == "Neuron"))
    if kind == "Alpha":
        take("exc_decay", "inh_decay", "gain", "threshold")
        return node | {"fire": draw(st.sampled_from([*rules.Fire][:2])), "reset": draw(st.sampled_from(rules.Reset))}
    if kind == "RF":
        take("decay", "cosine", "sine")
    leaky = issubclass(NODES[kind], Leaky)
    charge = draw(st.sampled_from(_charges(kind))) if leaky else rules.Charge.DECAY
    if leaky:
        node["charge"] = charge
        take(draw(st.sampled_from(rules.LEAKS[charge])))
    take(*rules.GROWS.get(charge, ()), *(("gain", "start", *rules.RESTS[charge]) if kind != "Threshold" else ()))
    synapse = draw(st.sampled_from(rules.Synapse)) if "Cuba" in kind else None
    if synapse:
        node["synapse"] = synapse
        take(rules.FLOWS[synapse], "syn_gain")
    grows = charge in rules.GROWS  # which only a reset to a value keeps from running away
    if kind in FIRING:
        node["fire"] = draw(st.sampled_from([*rules.Fire][:2] if grows else rules.Fire))
        take("threshold")
    if kind == "AdLIF":
        take("decay", "adapt_decay", "adapt_coupling", "adapt_spike")
    if kind in ADAPTIVE:
        opposes = charge is rules.Charge.EXPONENTIAL
        adapt = draw(st.sampled_from([each for each in rules.Adapt if opposes or each is not rules.Adapt.CURRENT]))
        node["adapt"] = adapt
        more = {rules.Adapt.CURRENT: ("adapt_coupling",), rules.Adapt.COUNT: ("adapt_spike",)}
        take(rules.FORGETS[adapt][0], "adapt_gain", *more.get(adapt, ()))
    if kind in FIRING and kind != "Threshold":
        reset = rules.Reset.VALUE if grows else draw(st.sampled_from(rules.Reset))
        several = node["fire"] is rules.Fire.MULTIPLE
        at_once = several or not NODES[kind].resets_late or charge in EXPONENTIALS
        timings = (rules.ResetTiming.SAME_STEP,) if at_once else rules.RESET_TIMINGS[reset]
        sums = charge is rules.Charge.DECAY if synapse is None else synapse in rules.SUMS
        node |= {"reset": reset, "reset_timing": draw(st.sampled_from(timings))}
        node["recurrent"] = draw(st.one_of(st.none(), recurrences(sums=sums)))
        take("floor", *(["refractory"] if not several and node["reset_timing"] == "same_step" else []), absent=True)
        take(*(["reset_value"] if reset is rules.Reset.VALUE else []))
    return node


@st.composite
def programs(draw: st.DrawFn, *, spiking: bool) -> dict[str, Any]:
    """Draw the fields of a neuron whose step is any program.

    Its lines may divide by 0, overflow and make NaN: the states after the step are bounded, so that none is infinite.
    """
    recurrent = draw(st.one_of(st.none(), recurrences(sums=False))) if spiking else None
    numbers = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 0.1, 3.0, 1e-30, 1e30, 1e-45])
    states = [f"v{k}" for k in range(draw(st.integers(1, 3)))]
    values = ["current", *states, "a", "b", *(["feedback"] if recurrent else [])]
    lines: list[str] = []

    def operand() -> str:
        return str(draw(st.one_of(st.sampled_from(values), st.sampled_from(values), numbers.map(str))))

    for k in range(draw(st.integers(0, 12))):
        operation = draw(st.sampled_from([*ARITY]))
        operands = [operand() for _ in range(ARITY[operation])]
        if operation == "neg":
            written = f"-({operands[0]})"
        else:
            named = operation.isidentifier()
            written = f"{operation}({', '.join(operands)})" if named else f"({f') {operation} ('.join(operands)})"
        lines.append(f"x{k} = {written}")
        values.append(f"x{k}")
    fired = draw(st.sampled_from(["fire(u, b)", "fire_above(u, b)", "u > b", "fire(u, b) + fire_above(u, 4)"]))
    lines.append(f"u = {operand()} * {draw(st.sampled_from(states))} + ({' + '.join(['current', *values[-1:]])})")
    lines += [f"s = {fired}"] if spiking else []
    values += ["u", *(["s", "hold(s)"] if spiking else [])]
    changed = [f"{draw(st.sampled_from(['u', operand()]))} - {operand()} * u" for _ in states]
    lines += [f"w{k} = minimum(maximum({each}, -64), 64)" for k, each in enumerate(changed)]
    lines += [f"v{k} = w{k}" for k in range(len(states))]
    leaving = {"spikes": "s"} if spiking else {"output": "w0"}
    starts: dict[str, Any] = {name: draw(st.sampled_from([0.0, 0.25, "a", "b"])) for name in states}
    program = read(starts, lines, *leaving.values(), spiking=spiking)
    values_of: st.SearchStrategy[Any] = st.one_of(st.floats(-2, 2, width=32), st.just("per_neuron"))
    fields: dict[str, Any] = {"program": {"states": starts, "step": lines} | leaving}
    fields |= {"parameters": {name: draw(values_of) for name in program.parameters}}
    return fields | ({"recurrent": recurrent} if program.hears_itself else {})


@st.composite
def recurrences(draw: st.DrawFn, *, sums: bool) -> dict[str, Any]:
    """Draw a recurrent connection as JSON."""
    bias = draw(st.booleans())
    return {
        "bias": bias,
        "bias_at_start": draw(st.booleans()) if bias else True,
        "joins": draw(st.sampled_from(rules.Joins)) if sums else rules.Joins.INPUT,
    }


@st.composite
def factors(draw: st.DrawFn, size: int) -> list[int]:
    """Draw a shape of one to three axes that has `size` values."""
    shape: list[int] = []
    for _ in range(draw(st.integers(0, 2))):
        shape.append(draw(st.sampled_from([factor for factor in range(1, size + 1) if size % factor == 0])))
        size //= shape[-1]
    return [*shape, size]


@st.composite
def connections(draw: st.DrawFn, name: str, shape: Shape, steps: int, *, dyadic: bool = True) -> dict[str, Any]:
    """Draw a connection that takes `shape` in so many steps; windows of averages are powers of two, where `dyadic`."""
    kind = draw(st.sampled_from(CONNECTIONS[len(shape)]))
    node: dict[str, Any] = {"type": kind, "name": name}
    if kind == "Flatten":
        return node
    if kind == "Scale":
        arrays = st.sampled_from(["per_neuron", "per_channel"])
        values = [-0.5, 0.0, 1.0, 2.0] if dyadic else [-0.5, 0.0, 3.0, 0.3]
        node["scale"] = draw(st.one_of(st.sampled_from(values), arrays))
        node["offset"] = draw(st.one_of(st.just(0.0), st.just(0.25), arrays))
        if "per" in f"{node['scale']} {node['offset']}":
            node["steps"] = draw(st.one_of(st.none(), st.integers(steps, steps + 2)))
        return node
    if kind == "Reshape":
        return node | {"shape": draw(factors(math.prod(shape)))}
    if kind == "Permute":
        return node | {"order": draw(st.permutations(range(len(shape))))}
    if kind == "Delay":
        if draw(st.booleans()):
            return node | {"taps": sorted(draw(st.sets(st.sampled_from([0, 1, 2, 3, 6, 14]), min_size=1, max_size=4)))}
        return node | {"delay": draw(st.one_of(st.integers(0, 4), st.just("per_neuron")))}
    if kind == "Linear":
        return node | {"in_features": shape[0], "out_features": draw(st.integers(1, 9)), "bias": draw(st.booleans())}
    channels, *size = shape
    if kind in ("ConvTranspose1d", "ConvTranspose2d"):
        return node | draw(transposed(channels, size))
    extents = [1, 2] if dyadic and kind in ("AvgPool1d", "AvgPool2d") else [1, 2, 3]
    kernel = [draw(st.sampled_from([k for k in extents if k <= extent])) for extent in size]
    swept: dict[str, Any] = {"kernel_size": kernel, "stride": [draw(st.integers(1, 2)) for _ in size]}
    swept["padding"] = [draw(st.integers(0, k // 2)) for k in kernel]
    if "Pool" in kind:
        node["overhang"] = draw(st.booleans())
    if "AvgPool" in kind:
        node["count_padding"] = draw(st.booleans())
    if kind in ("Conv1d", "Conv2d"):
        groups = draw(st.sampled_from([g for g in (1, 2, 3) if channels % g == 0]))
        node |= {"in_channels": channels, "out_channels": groups * draw(st.integers(1, 3)), "groups": groups}
        node["bias"] = draw(st.booleans())
        swept["dilation"] = [
            draw(st.integers(1, 2)) if 2 * (k - 1) < extent else 1 for k, extent in zip(kernel, size, strict=True)
        ]
        if draw(st.integers(0, 3)) == 0:
            swept |= {"padding": "same", "stride": [1 for _ in size]}
    if kind.endswith("1d"):
        swept = {field: value if value == "same" else value[0] for field, value in swept.items()}
    return node | swept


@st.composite
def transposed(draw: st.DrawFn, channels: int, size: list[int]) -> dict[str, Any]:
    """Draw the fields of a transposed convolution."""
    groups = draw(st.sampled_from([g for g in (1, 2, 3) if channels % g == 0]))
    spread: dict[str, Any] = {"kernel_size": [draw(st.integers(1, 3)) for _ in size]}
    spread["stride"] = [draw(st.integers(1, 3)) for _ in size]
    spread["dilation"] = [draw(st.integers(1, 2)) for _ in size]
    spread["output_padding"] = [draw(st.integers(0, stride - 1)) for stride in spread["stride"]]
    reach = [d * (k - 1) for d, k in zip(spread["dilation"], spread["kernel_size"], strict=True)]
    spread["padding"] = [draw(st.integers(0, (extra + (n - 1)) // 2)) for extra, n in zip(reach, size, strict=True)]
    fields = {"in_channels": channels, "out_channels": groups * draw(st.integers(1, 3)), "groups": groups}
    along = spread if len(size) == 2 else {field: values[0] for field, values in spread.items()}
    return fields | {"bias": draw(st.booleans())} | along


@st.composite
def joins(
    draw: st.DrawFn, name: str, shapes: dict[str, Shape], bits: dict[str, int]
) -> list[tuple[dict[str, Any], Shape]]:
    """Draw a join of the last node, and the shape that leaves it; or none, where nothing fits or sums would round.

    A matrix product takes a node that fits, or the last one's own transposed, which is a node before it.
    """
    kind, last = draw(st.sampled_from(JOINS)), list(shapes)[-1]
    shape = shapes[last]
    fits = [other for other in shapes if bits[other] + bits[last] <= ROOM]
    if kind == "Multiply":
        same = [other for other in fits if shapes[other] == shape]
        return [({"type": kind, "name": name, "inputs": [last, draw(st.sampled_from(same))]}, shape)] if same else []
    if kind == "Concatenate":
        axis = draw(st.integers(0, len(shape) - 1))
        dyadic = [other for other in shapes if bits[other] < NOT_DYADIC]
        joined = [other for other in dyadic if _without(shapes[other], axis) == _without(shape, axis)]
        if not joined or last not in dyadic:
            return []
        inputs = draw(st.permutations([last, *draw(st.lists(st.sampled_from(joined), min_size=1, max_size=2))]))
        length = sum(shapes[other][axis] for other in inputs)
        leaving = (*shape[:axis], length, *shape[axis + 1 :])
        return [({"type": kind, "name": name, "inputs": inputs, "axis": axis}, leaving)]
    if len(shape) < 2 or not fits:
        return []
    rights = [other for other in fits if _without(shapes[other], -1) == (*shape[:-2], shape[-1])]
    rights = [other for other in rights if len(shapes[other]) == len(shape)]
    product: dict[str, Any] = {"type": kind, "name": name}
    if draw(st.booleans()) and rights:
        right = draw(st.sampled_from(rights))
        return [(product | {"inputs": [last, right]}, (*shape[:-1], shapes[right][-1]))]
    if last not in fits or math.prod(shape[:-1]) * shape[-2] > 512:
        return []
    order = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
    turned = {"type": "Permute", "name": f"{name}_turned", "order": order}
    leaving = (*shape[:-1], shape[-2])
    return [(turned, (*shape[:-2], shape[-1], shape[-2])), (product | {"inputs": [last, f"{name}_turned"]}, leaving)]


def _without(shape: Shape, axis: int) -> Shape | None:
    axis %= max(len(shape), 1)
    return (*shape[:axis], *shape[axis + 1 :])


def _bits(node: dict[str, Any], given: list[int]) -> int:
    """Return about how many bits the values that leave a node have, from those that arrive."""
    match node["type"]:
        case "Multiply":
            return sum(given)
        case "MatMul":
            return sum(given) + 4
        case "Linear" | "Conv1d" | "Conv2d" | "ConvTranspose1d" | "ConvTranspose2d":
            return max(given) + 8
        case "Scale" | "SumPool1d" | "SumPool2d" | "AvgPool1d" | "AvgPool2d":
            return max(given) + 3
        case kind if kind in INTEGRATING:
            return NOT_DYADIC
        case kind if kind in FIRING and node.get("fire") is not rules.Fire.MULTIPLE:
            return 2 if kind == "Neuron" else 1
        case _:
            return max(given)


@st.composite
def dyadic_cases(draw: st.DrawFn, *, dyadic: bool = True) -> Case:
    """Draw a network of any of the spec's nodes and resets, recurrent or not, stack or DAG, and a batch for it.

    Without `dyadic`, weights, biases, scales and inputs that are no spikes are any floats.
    """
    coding = draw(st.sampled_from([Coding.DIRECT, Coding.SPIKES, Coding.CURRENT]))
    shape: Shape = draw(
        st.one_of(
            st.tuples(st.integers(1, 12)),
            st.tuples(st.integers(1, 3), st.integers(2, 8)),
            st.tuples(st.integers(1, 3), st.integers(2, 6), st.integers(2, 6)),
        )
    )
    input_shape = shape
    time_steps = draw(st.one_of(st.just(1), st.integers(2, 12)))
    nodes: list[dict[str, Any]] = []
    shapes: dict[str, Shape] = {"input": shape}
    bits = {"input": 5}  # of a signal's values, about: a product has those of both, and needs room for them

    def append(node: dict[str, Any], leaving: Shape) -> None:
        nonlocal shape
        sources = node.get("inputs", [list(shapes)[-1]])
        given = [bits[name] for name in sources]
        bits[node["name"]] = _bits(node, given)
        nodes.append(node)
        shapes[node["name"]] = shape = leaving

    for layer in range(draw(st.integers(0, 4))):
        if draw(st.integers(0, 3)) == 0:
            for joined, leaving in draw(joins(f"j{layer}", shapes, bits)):
                append(joined, leaving)
        if len(shape) in CONNECTIONS:
            node = draw(connections(f"c{layer}", shape, time_steps, dyadic=dyadic))
            append(node, node_of(node).output_shape(shape))
        if draw(st.booleans()):
            filtered = draw(st.integers(0, 3)) == 0
            if filtered:  # right before neurons that are not recurrent: what it gives is not dyadic, so that no sum is
                append(draw(neurons(f"i{layer}", draw(st.sampled_from(INTEGRATING)))), shape)
            others = [name for name, other in shapes.items() if other == shape and bits[name] < NOT_DYADIC]
            others = [name for name in others if name != nodes[-1]["name"]]
            shortcut = draw(st.sampled_from([None, *others]))
            inputs = [nodes[-1]["name"], shortcut] if shortcut else None
            neuron = draw(neurons(f"n{layer}", draw(st.sampled_from(FIRING)), inputs))
            if filtered and neuron.get("recurrent"):
                neuron |= {"recurrent": None}
                if program := neuron.get("program"):
                    program["step"] = [line.replace("feedback", "current") for line in program["step"]]
            append(neuron, shape)
    if not nodes or draw(st.integers(0, 3)):  # otherwise the output has the shape that there is, read flat
        if len(shape) > 1:
            append({"type": "Flatten", "name": "flat"}, (math.prod(shape),))
        classes = draw(st.integers(1, 4))
        append({"type": "Linear", "name": "last", "in_features": shape[0], "out_features": classes}, (classes,))
    readout = draw(st.sampled_from(Readout))
    kinds = [*FIRING] if readout.of_spikes else [*FIRING, *INTEGRATING, *INTEGRATING]
    kinds += [] if readout.of_spikes or readout.of_membrane else [None, None, None]  # any node may be the last
    if kind := draw(st.sampled_from(kinds)):
        append(draw(neurons("out", kind)), shape)
    if draw(st.integers(0, 3)) == 0:
        append({"type": "Flatten", "name": "flat_out"}, (math.prod(shape),))
    classes = math.prod(shape)
    spec = Spec(
        input=Input(shape=input_shape, low=-2, high=2),
        coding=coding,
        time_steps=time_steps,
        nodes=nodes,
        readout=readout,
        labels=tuple(f"class {index}" for index in range(classes)),
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    by_name = {node.name: node for node in spec.nodes}
    whole = draw(st.sampled_from([0, 0, 4, 6, 7, 8, 12]))  # bits of weights that are narrow, or just not
    network = Network(
        spec,
        {
            name: _whole(rng, wanted, whole)
            if whole and _only_drives_neurons(spec, name)
            else _tensor(name, wanted, rng, by_name[name.partition(".")[0]], dyadic)
            for name, wanted in spec.tensor_shapes.items()
        },
    )
    if every := draw(st.sampled_from([0, 0, 2, 16, 128])):
        network = pruned(network, rng, every, said=draw(st.booleans()))
    batch = draw(st.sampled_from([0, 1, 2, 7]))
    if coding is Coding.DIRECT:
        steps = _values(rng, (1, batch, *input_shape), dyadic)
    elif coding is Coding.CURRENT:
        steps = _values(rng, (spec.time_steps, batch, *input_shape), dyadic)
    else:
        steps = (rng.random((spec.time_steps, batch, *input_shape)) < rng.choice([0.0, 0.1, 0.5, 1.0])).astype(
            np.float32
        )
    cuts = draw(st.sets(st.integers(1, spec.time_steps - 1), max_size=3)) if spec.time_steps > 1 else set[int]()
    return Case(network, DenseInputs(steps, spec.time_steps), tuple(sorted(cuts)))


def pruned(network: Network, rng: np.random.Generator, every: int, *, said: bool) -> Network:
    """Return a network of whose Linears one weight of so many is left, at least one; `said`: their spec says so."""
    tensors, counts = dict(network.tensors), dict[str, int]()
    for node in network.spec.nodes:
        if isinstance(node, Linear):
            name, weight = f"{node.name}.weight", tensors[f"{node.name}.weight"].copy()
            weight.reshape(-1)[rng.permutation(weight.size)[max(1, weight.size // every) :]] = 0
            tensors[name], left = weight, int(np.count_nonzero(weight))
            counts |= {name: left} if said and left else {}
    return Network(network.spec.with_nonzero(counts), tensors)


def _charges(kind: str) -> list[rules.Charge]:
    """Return the charge rules of a kind of neuron that keep its membrane within float32, however it is driven."""
    return [charge for charge in rules.Charge if kind in FIRING or charge not in rules.GROWS]


def _values(rng: np.random.Generator, shape: Shape, dyadic: bool) -> FloatArray:
    if dyadic:
        return (rng.integers(-8, 9, shape) / 8).astype(np.float32)
    scale = 2.0 ** rng.uniform(-12, 0, shape)  # small and large ones, which float32 adds up in another way each time
    return np.clip(rng.normal(0, 1, shape) * scale, -2, 2).astype(np.float32)


def _only_drives_neurons(spec: Spec, name: str) -> bool:
    """Return whether a tensor is a connection's weight, or bias, whose sums go to neurons: they need not be dyadic."""
    node, _, parameter = name.partition(".")
    readers = [each for each in spec.nodes if node in spec.sources[each.name]]
    feeds = any(each.name == node and isinstance(each, Weighted) for each in spec.nodes)
    alone = bool(readers) and all(isinstance(each, Neuron) for each in readers)
    return parameter.startswith("recurrent.") or (feeds and alone)


def _whole(rng: np.random.Generator, shape: Shape, bits: int) -> FloatArray:
    """Draw weights of so many bits with an exponent for each output, or biases that are any floats."""
    if len(shape) == 1:
        return rng.normal(0, 0.2, shape).astype(np.float32)
    whole = rng.integers(1 - 2 ** (bits - 1), 2 ** (bits - 1), shape)
    exponents = rng.integers(-2, 3, (shape[0], *[1] * (len(shape) - 1))) - bits
    return np.ldexp(whole.astype(np.float32), exponents).astype(np.float32)


def _tensor(name: str, shape: Shape, rng: np.random.Generator, node: Any, dyadic: bool) -> FloatArray:
    parameter = name.rpartition(".")[2]
    match parameter:
        case "delay" | "refractory":
            return rng.integers(0, 5, shape).astype(np.float32)
        case "scale" | "offset":
            return (rng.integers(-2, 3, shape) / (2 if dyadic else 3)).astype(np.float32)
        case known if known in RANGES:
            low, high, _ = range_of(parameter, dict(node))
            return (low + (high - low) * rng.random(shape, np.float32)).astype(np.float32)
        case _:
            return _values(rng, shape, dyadic)
