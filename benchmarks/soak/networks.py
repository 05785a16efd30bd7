"""The networks that are soaked: a small one that answers within a millisecond, and one that computes for long."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.serving.networks import NETWORKS, Served
from spikeserve.models.spec import Coding, Spec
from spikeserve.models.spec.network import Network


@dataclass(frozen=True)
class Drawn(Served):
    """A network whose spikes are drawn anew at every step, so that no step is as the one before and may be skipped."""

    @property
    def name(self) -> str:
        """Its name as a model."""
        return f"rate-{self.title}"

    @property
    def network(self) -> Network:
        """The same weights under `rate` coding."""
        direct = super().network
        spec = Spec.read(direct.spec.model_dump(mode="json") | {"coding": Coding.RATE})
        return Network(spec, direct.tensors)


SMALL = NETWORKS[0]
HEAVY = Drawn(side=28, high=255, hidden=4000)
