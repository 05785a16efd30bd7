"""Whether a served network spikes as its framework does, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table

from spikeserve.models.bundle import TOLERANCE, close
from spikeserve.models.coding import DenseInputs, encode
from spikeserve.models.engines import Engine, Record
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec import Spec
from spikeserve.models.spec.expressions import FIRES, Expression, evaluate, made, maximum
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.nodes import ProgramNeuron, Spiking
from spikeserve.models.spec.program import write
from spikeserve.models.spec.readouts import Readout, Reduction
from spikeserve.plugins.frameworks.entry import first_line
from spikeserve.plugins.frameworks.framework import Framework
from spikeserve.plugins.frameworks.graph import run_graph
from spikeserve.plugins.frameworks.nouns import INPUT
from spikeserve.training.data.datasets import random_samples
from spikeserve.training.errors import NotConvertible
from spikeserve.training.fit.losses import OVER_TIME

if TYPE_CHECKING:
    from spikeserve.plugins.frameworks.convert import ConvertedNetwork


@dataclass(frozen=True)
class LayerParity:
    """How a layer of an engine compares with the framework's own module.

    `differing` of all `neuron_steps`: those in which the spikes are not the same, or a readout's membrane strays by
    more than a sum's rounding. `spikes` are those that the framework gives, None for a readout. `membrane` is the
    largest difference, and None where the module does not show its membrane. `strayed` (time_steps, batch, units) is
    where they differ, and `apart`, of the same shape, where their membranes do by more than a sum's rounding.
    """

    node: str
    module: str
    neuron_steps: int
    spikes: int | None
    differing: int
    membrane: float | None
    strayed: NDArray[np.bool_]
    apart: NDArray[np.bool_] | None


@dataclass(frozen=True)
class FirstDifference:
    """Where two runs of a sample part: the first neuron-step that differs, counted from 0.

    `alike` is whether the membranes of all other neurons agree until then, but for rounding; None where none is shown.
    `near` is whether all that differ there were so near their thresholds that rounding can decide.
    """

    sample: int
    step: int
    node: str
    unit: int
    alike: bool | None
    near: bool = False

    @property
    def is_rounding(self) -> bool:
        """Whether the runs part by the rounding of sums, and not by other rules or weights."""
        return self.near and self.alike is not False

    def __str__(self) -> str:
        place = f"sample {self.sample} first differs in step {self.step}, unit {self.unit} of '{self.node}'"
        if self.is_rounding:
            return (
                f"{place}; all other membranes agree until then, and this one was so near its threshold that the "
                "rounding of sums decided"
            )
        if self.alike is False:
            return f"{place}; other membranes differ before that by more than rounding, so the rules or weights differ"
        return f"{place}; what differs there does so by more than rounding, so the rules or weights differ"


def random_encoded(spec: Spec, samples: int, seed: int = 0) -> DenseInputs:
    """Return random samples as the network sees them."""
    return encode(random_samples(spec, samples, seed), spec)


ANSWER = "(the answer)"  # as a row of the comparison
FACTORS = (1, 8, 64, 512)  # of random inputs, until neurons spike
Outputs: TypeAlias = dict[int, tuple[FloatArray, FloatArray | None]]


def run_framework(converted: ConvertedNetwork, framework: Framework, inputs: DenseInputs) -> Outputs:
    """Return the spikes of each neuron's module, or what it gives, (time_steps, batch, *shape), and its membrane.

    Each runs from rest, by the framework's own code, on what the graph gives it. Raises NotConvertible where a module
    does not take what is before it.
    """
    steps = _every_step(inputs)
    compared = {*converted.places.values(), converted.graph.readout.node}
    return {
        index: (
            (result.output if result.spikes is None else result.spikes).numpy(),
            None if result.membrane is None else result.membrane.numpy(),
        )
        for index, result in run_graph(converted.graph, framework, steps)
        if index in compared
    }


def _every_step(inputs: DenseInputs) -> torch.Tensor:
    """Return inputs as a tensor (time_steps, batch, *shape), repeated if they are the same at every step."""
    return torch.from_numpy(np.broadcast_to(inputs.steps, (inputs.time_steps, *inputs.steps.shape[1:])).copy())


def random_run(converted: ConvertedNetwork, framework: Framework, samples: int) -> tuple[DenseInputs, Outputs, int]:
    """Return random inputs, what a framework makes of them, and the factor by which they are scaled.

    It is the least of FACTORS with which as many layers spike as with any: silence says little of a rule.
    """
    spec, encoded = converted.network.spec, random_encoded(converted.network.spec, samples)
    neurons = [converted.places[node.name] for node in spec.nodes if isinstance(node, Spiking)]
    runs = list[tuple[int, DenseInputs, Outputs, int]]()
    for factor in FACTORS:
        inputs = replace(encoded, steps=encoded.steps * np.float32(factor))
        theirs = run_framework(converted, framework, inputs)
        finite = all(np.isfinite(each).all() for both in theirs.values() for each in both if each is not None)
        runs.append((finite * sum(bool(theirs[place][0].any()) for place in neurons), inputs, theirs, factor))
        if runs[-1][0] == len(neurons):
            break
    return max(runs, key=lambda run: run[0])[1:]  # the first of those


def compare(converted: ConvertedNetwork, theirs: Outputs, engine: Engine, inputs: DenseInputs) -> list[LayerParity]:
    """Compare every neuron of an engine of ours with what the framework's modules made of the same inputs."""
    result, _ = engine.run(inputs, record=Record.RASTER | Record.MEMBRANE)
    rows = []
    for node, place in converted.places.items():
        if place not in theirs:  # a trace may have some layers only
            continue
        output, membrane = theirs[place]
        ours, raster = result.membranes[node], result.rasters.get(node)
        strayed = ~close(ours, output) if raster is None else raster != output
        rows.append(
            LayerParity(
                node=node,
                module=converted.graph.nodes[place].path,
                neuron_steps=output.size,
                spikes=None if raster is None else int(output.sum()),
                differing=int(np.count_nonzero(strayed)),
                membrane=None if membrane is None else float(np.abs(ours - membrane).max(initial=0.0)),
                strayed=_units(strayed),
                apart=None if membrane is None else _units(~close(ours, membrane)),
            )
        )
    of_a_neuron = converted.network.spec.readout not in [*Reduction]  # whose spikes and membranes are compared already
    read = converted.graph.readout.node
    if not of_a_neuron and read in theirs and read not in {INPUT, *converted.places.values()}:
        rows.append(_answer(converted, theirs, result.readout))
    if (answer := _author(converted, inputs, result.readout)) is not None:
        rows.append(answer)
    return rows


def _author(converted: ConvertedNetwork, inputs: DenseInputs, readout: FloatArray) -> LayerParity | None:
    """Compare the readout (batch, classes) with the answer that the author's own forward returns.

    None for modules in order, and where the readout is another than the forward's: --readout chose it.
    """
    read, served = converted.graph.readout, converted.network.spec.readout
    over = Reduction.SUM if served is Readout.SPIKE_COUNT else served.reduction
    is_other = served is Readout.FIRST_SPIKE or read.over not in (None, over) or read.membrane != served.of_membrane
    if converted.graph.answer is None or is_other or (read.over is None and (read.softmax or read.sigmoid)):
        return None
    try:
        answer = converted.graph.answer(_every_step(inputs))
    except (Exception, SystemExit) as error:  # the author's own code may raise anything
        raise NotConvertible(f"its answer to random samples is not comparable: {first_line(error)}") from error
    answer = OVER_TIME[over](answer) if read.over is None else answer
    returned = answer.reshape(len(answer), -1)[: len(readout)].numpy()
    ours = torch.from_numpy(readout[: len(returned)]) * read.factor
    possible = [ours.softmax(1), ours.log_softmax(1)] if read.softmax else [ours]
    possible = [ours.sigmoid()] if read.sigmoid else possible
    if not answer.is_floating_point():
        possible.append(ours.argmax(1, keepdim=True))
    if served is Readout.SPIKE_COUNT and ours.any():  # a layer may give a multiple of its spikes
        possible.append(ours * (returned.max() / ours.max()))
    apart = [~close(each.numpy(), returned) for each in possible if each.shape == returned.shape]
    if not apart:
        return None
    differing = min(apart, key=np.count_nonzero)
    return _row(ANSWER, "forward", differing, (inputs.time_steps, len(readout)), None)


def _answer(converted: ConvertedNetwork, theirs: Outputs, readout: FloatArray) -> LayerParity:
    """Compare the readout of a last node that is no neuron with that of the framework's module."""
    place, spec = converted.graph.readout.node, converted.network.spec
    output, _ = theirs[place]
    own = OVER_TIME[Reduction(spec.readout)](torch.from_numpy(output)).flatten(1).numpy()
    largest = float(np.abs(readout - own).max(initial=0.0))
    name, module = spec.nodes[-1].name, converted.graph.nodes[place].path
    return _row(name, module, ~close(readout, own), output.shape[:2], largest)


def _row(
    node: str, module: str, differing: NDArray[np.bool_], size: tuple[int, ...], largest: float | None
) -> LayerParity:
    """Return the row of an answer (samples, classes) after the last step; `size` is (time_steps, batch) of the run."""
    strayed = np.zeros((*size, differing.shape[1]), np.bool_)
    strayed[-1, : len(differing)] = differing
    count = int(np.count_nonzero(differing))
    return LayerParity(node, module, differing.size, None, count, largest, strayed, None)


def first_differences(rows: Sequence[LayerParity]) -> list[FirstDifference]:
    """Return where each sample that differs does so first; the rows are in the order of the layers."""
    differences = []
    for sample in range(rows[0].strayed.shape[1] if rows else 0):
        firsts = [
            (int(row.strayed[:, sample].any(axis=1).argmax()), place)
            for place, row in enumerate(rows)
            if row.strayed[:, sample].any()
        ]
        if firsts:
            step, place = min(firsts)
            unit = int(rows[place].strayed[step, sample].argmax())
            differences.append(FirstDifference(sample, step, rows[place].node, unit, _alike(rows, sample, step, place)))
    return differences


def judged(rows: Sequence[LayerParity], network: Network, inputs: DenseInputs) -> list[FirstDifference]:
    """Return where each sample that differs does so first, and whether rounding can have decided there.

    It can where the spike of ours becomes another too if its threshold is moved by no more than sums may round.
    """
    differences = first_differences(rows)
    strayed = {row.node: row.strayed for row in rows}
    hanging = {
        node: _hanging(network, node, inputs) for node in {each.node for each in differences if each.alike is not False}
    }

    def near(origin: FirstDifference) -> bool:
        at = (origin.step, origin.sample)
        return origin.node in hanging and bool(hanging[origin.node][at][strayed[origin.node][at]].all())

    return [replace(origin, near=near(origin)) for origin in differences]


def _hanging(network: Network, name: str, inputs: DenseInputs) -> NDArray[np.bool_]:
    """Return which spikes of a layer (time_steps, batch, units) hang on the rounding of sums: none of a readout."""
    result, _ = ReferenceEngine(network).run(inputs, record=Record.RASTER | Record.MEMBRANE)
    spikes = result.rasters.get(name)
    if spikes is None:
        values = result.membranes.get(name, result.readout[None])
        return np.zeros((inputs.time_steps, inputs.batch, values[0, 0].size), np.bool_)
    usual = float(np.median(np.abs(result.membranes[name])))
    flips = np.zeros_like(spikes, np.bool_)
    for sign in (-1, 1):
        nudged, _ = ReferenceEngine(_nudged(network, name, sign, usual)).run(inputs, record=Record.RASTER)
        flips |= nudged.rasters[name] != spikes
    return _units(flips)


def _nudged(network: Network, name: str, sign: int, usual: float) -> Network:
    """Return a network in which the thresholds of one layer are moved by a rounding error of their sums."""
    spec, key = network.spec, f"{name}.threshold"
    node: Any = next(node for node in spec.nodes if node.name == name)
    if isinstance(node, ProgramNeuron):
        return _with(network, _nudged_program(node, sign, usual))
    threshold = network.tensors[key] if key in network.tensors else np.float32(node.threshold)
    moved = (threshold + sign * TOLERANCE * np.maximum(np.abs(threshold), usual)).astype(np.float32)
    if key in network.tensors:
        return Network(spec, {**network.tensors, key: moved})
    return _with(network, node.model_copy(update={"threshold": float(moved)}))


def _with(network: Network, node: Any) -> Network:
    """Return a network with this node in place of the one of its name."""
    nodes = [node if each.name == node.name else each for each in network.spec.nodes]
    return Network(network.spec.with_nodes(nodes), network.tensors)


def _nudged_program(node: ProgramNeuron, sign: int, usual: float) -> ProgramNeuron:
    """Return a neuron in whose program what a value is compared with, to fire, is moved."""

    def moved(each: Expression, operands: Sequence[Expression]) -> Expression:
        if each.operation not in FIRES:
            return each.of(operands)
        value, threshold = operands
        return made(each.operation, value, threshold + sign * TOLERANCE * maximum(threshold.abs(), usual))

    program = node.read_program
    leaving, *after = evaluate([program.leaving, *program.after.values()], {}, moved)
    lines, spikes = write(replace(program, leaving=leaving, after=dict(zip(program.after, after, strict=True))))
    fields = {field: getattr(node, field) for field in ProgramNeuron.model_fields}
    return ProgramNeuron(**fields | {"program": {"states": node.program.states, "step": lines, "spikes": spikes}})


def _alike(rows: Sequence[LayerParity], sample: int, step: int, place: int) -> bool | None:
    """Return whether a sample's membranes agree before the layer at `place` differs in `step`, None if not shown."""
    shown = [
        (row.apart & ~row.strayed)[: step + (index <= place), sample].any()
        for index, row in enumerate(rows)
        if row.apart is not None
    ]
    return not any(shown) if shown else None


def _units(values: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return (time_steps, batch, *shape) as (time_steps, batch, units)."""
    return values.reshape(*values.shape[:2], -1)


def table(rows: Sequence[LayerParity], title: str) -> Table:
    """Return the comparison as a table for a person."""
    shown = Table("node", "module", "neuron-steps", "spikes", "differing", "membrane", title=title)
    for row in rows:
        membrane = "not shown" if row.membrane is None else f"{row.membrane:.2g}"
        spikes = "none: a readout" if row.spikes is None else str(row.spikes)
        shown.add_row(row.node, row.module, str(row.neuron_steps), spikes, str(row.differing), membrane)
    return shown
