"""Golden samples: real inputs that every engine answers alike, so far from a tie that every machine does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.bundle import GoldenSamples, close
from spikeserve.models.coding import encode
from spikeserve.models.engines import Engine, RunResult, available, create
from spikeserve.models.spec import Spec
from spikeserve.models.spec.network import Network
from spikeserve.models.spec.nodes import Neuron
from spikeserve.models.spec.parameters import PER_NEURON
from spikeserve.models.spec.price import LoadLimits, Price
from spikeserve.training.data.datasets import Split
from spikeserve.training.errors import ExportRefused

NUDGE = 2.0**-18  # about ten times what a float32 sum's order can do to it
THRESHOLDS = ("threshold", "adapt_gain")  # what a neuron's threshold is proportional to
CANDIDATES = 64  # samples that are tried at most
AT_ONCE = 16
BYTES = 2**30  # of the signals of the samples that run at once, as priced
ENOUGH = 5 * 10**10  # operations after which no more samples are tried: under a minute
RUNS = 10  # of a sample: on four engines to compare them, on four for golden samples, and twice with moved thresholds
STEPPED = 4  # of these runs that Python takes step by step, those of the engines `reference` and `torch`
STEP = 25_000  # operations that one such step of a layer of neurons takes as long as, for any number of samples


@dataclass(frozen=True)
class Effort:
    """How many samples are run at once, and how many at most, before a network is published.

    A spec of a kilobyte may have millions of steps, or layers whose values for sixteen samples take more memory than
    there is. So fewer samples are tried where each takes long, and fewer at a time where each is large.
    """

    at_once: int
    samples: int

    @classmethod
    def of(cls, spec: Spec) -> Self:
        """Return the effort for a network; raises ExportRefused where one sample alone takes too long."""
        price, layers = Price.of(spec), sum(isinstance(node, Neuron) for node in spec.nodes)
        at_once = min(AT_ONCE, price.at_once(BYTES))
        stepping, running = STEPPED * STEP * layers, RUNS * sum(node.running for node in price.nodes)
        if (least := spec.time_steps * (stepping + running)) > (most := LoadLimits.operations):
            raise ExportRefused(
                f"time_steps: before a network is published, a sample runs {RUNS} times, which for {spec.time_steps} "
                f"steps through {len(spec.nodes)} nodes takes as long as {least} operations, expected at most {most}"
            )
        batches = max(1, ENOUGH // (spec.time_steps * (stepping + at_once * running)))
        return cls(at_once, min(CANDIDATES, at_once * batches))


def choose_golden(network: Network, engines: Mapping[str, Engine], split: Split, count: int = 8) -> GoldenSamples:
    """Return the first samples of a split that all engines answer alike, with thresholds moved a little too.

    Where fewer than `count` of the samples that are tried stay when thresholds move, the first of the others fill up;
    `Effort` says how many are tried. Each is run for the spec's time steps, as all are replayed at once: a shorter one
    is followed by its padding, of a longer one the first steps are taken. A sample on which engines differ is never
    golden: a server on one of them would refuse the bundle. Raises ExportRefused where engines differ on every sample,
    and where one takes too long to run.
    """
    effort = Effort.of(network.spec)
    tried = min(effort.samples, len(split))
    nudged = [create(available()[0], _with_thresholds(network, 1 + n)) for n in (-NUDGE, NUDGE)]
    reference = engines["reference"]
    others = [engine for engine in engines.values() if engine is not reference]
    steady: list[tuple[NDArray[Any], ...]] = []
    near: list[tuple[NDArray[Any], ...]] = []
    for start in range(0, tried, effort.at_once):
        samples = split.samples[start : start + effort.at_once]
        samples = samples[:, : network.spec.time_steps] if network.spec.coding.per_step else samples
        inputs = encode(samples, network.spec, network.spec.time_steps)
        expected, _ = reference.run(inputs)
        results, moved = ([engine.run(inputs)[0] for engine in engines] for engines in (others, nudged))
        agreed = np.all([_same(each, expected) for each in [expected, *results]], axis=0)
        stays = np.all([_same(each, expected) for each in moved], axis=0)
        for index in np.flatnonzero(agreed):
            sample = inputs.steps[:, index], expected.spike_counts[index], expected.readout[index]
            (steady if stays[index] else near).append(sample)
        if len(steady) >= count:
            break
    if not steady + near:
        names = ", ".join(f"'{name}'" for name in engines)
        raise ExportRefused(
            f"the engines {names} differ on each of the {tried} samples that were tried, so none can be golden and the "
            "network is not exported"
        )
    steps, spike_counts, readout = zip(*(steady + near)[:count], strict=True)
    return GoldenSamples(
        inputs=type(inputs)(np.stack(steps, axis=1), inputs.time_steps),
        spike_counts=np.stack(spike_counts),
        readout=np.stack(readout),
    )


def _same(result: RunResult, expected: RunResult) -> NDArray[np.bool_]:
    """Return for which samples an engine gives what `Bundle.verify` asks of it, (batch,)."""
    counts = (result.spike_counts == expected.spike_counts).all(axis=1)
    both: NDArray[np.bool_] = counts & close(result.readout, expected.readout).all(axis=1)
    return both


def _with_thresholds(network: Network, factor: float) -> Network:
    spec: dict[str, Any] = network.spec.model_dump(mode="json")
    for node in spec["nodes"]:
        for values in (node, node.get("parameters", {})):
            for name in THRESHOLDS:
                if values.get(name, PER_NEURON) != PER_NEURON:
                    values[name] *= factor
    scale = np.float32(factor)
    tensors = {
        name: tensor * scale if name.rpartition(".")[2] in THRESHOLDS else tensor
        for name, tensor in network.tensors.items()
    }
    return Network(Spec.read(spec), tensors)
