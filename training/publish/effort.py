"""How much a network is run before it is published: reckoned from its spec, so that no small file asks for hours of it.

A spec of a kilobyte may have millions of steps, or layers whose values for sixteen samples take more memory than there
is, although loading it takes little, since one sample is run at a time then. So fewer samples are tried where each
takes long, fewer at a time where each is large, and a network is refused where one sample alone takes too long.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from spikeserve.models.spec import Spec
from spikeserve.models.spec.nodes import Neuron
from spikeserve.models.spec.price import LoadLimits, Price
from spikeserve.training.errors import ExportRefused

CANDIDATES = 64  # samples that are tried at most
AT_ONCE = 16
BYTES = 2**30  # of the signals of the samples that run at once, as priced; what a run takes is a few times that
ENOUGH = 5 * 10**10  # operations after which no more samples are tried: under a minute
RUNS = 10  # of a sample: on four engines to compare them, on four for golden samples, and twice with moved thresholds
STEPPED = 4  # of these runs that Python takes step by step, those of the engines `reference` and `torch`
STEP = 25_000  # operations that one such step of a layer of neurons takes as long as, for any number of samples


@dataclass(frozen=True)
class Effort:
    """How many samples are run at once, and how many at most."""

    at_once: int
    samples: int

    @classmethod
    def of(cls, spec: Spec) -> Self:
        """Return the effort for a network; raises ExportRefused where one sample alone takes too long."""
        price, layers = Price.of(spec), sum(isinstance(node, Neuron) for node in spec.nodes)
        bytes_of_sample = spec.time_steps * sum(node.per_step for node in price.nodes)
        at_once = max(1, min(AT_ONCE, BYTES // bytes_of_sample))
        stepping, running = STEPPED * STEP * layers, RUNS * sum(node.running for node in price.nodes)
        if (least := spec.time_steps * (stepping + running)) > (most := LoadLimits.operations):
            raise ExportRefused(
                f"time_steps: before a network is published, a sample runs {RUNS} times, which for {spec.time_steps} "
                f"steps through {len(spec.nodes)} nodes takes as long as {least} operations, expected at most {most}"
            )
        batches = max(1, ENOUGH // (spec.time_steps * (stepping + at_once * running)))
        return cls(at_once, min(CANDIDATES, at_once * batches))
