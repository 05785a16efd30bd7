"""The fields of a configuration that make no difference to a run, each with the reason: `fit` refuses them."""

from __future__ import annotations

from collections.abc import Mapping

from spikeserve.models.spec.nodes import Neuron, Spiking
from spikeserve.training.config import TrainingConfig
from spikeserve.training.data.datasets import Dataset, unused_splits
from spikeserve.training.fit.architecture import OF_NEURONS, Architecture


def unused_settings(config: TrainingConfig, data: Dataset, architecture: Architecture) -> Mapping[str, str]:
    """Return the fields that a run under `config` ignores, each with the reason as the end of a sentence.

    The fields of the data set that are known before it is loaded are those of `unused_fields`.
    """
    return {
        **unused_splits(data),
        **_of_the_network(config, architecture),
        **_of_the_neurons(architecture),
        **_of_the_optimisation(architecture),
    }


def _of_the_network(config: TrainingConfig, architecture: Architecture) -> Mapping[str, str]:
    network, unused = config.network, dict[str, str]()
    if network.coding.per_step:
        unused["time_steps"] = f"with coding '{network.coding}' samples have steps of their own"
    if absent := [name for name in network.learn if name not in architecture.learned]:
        unused["learn"] = f"no neuron of the network has a {absent[0]} of its own to learn"
    return unused


def _of_the_neurons(architecture: Architecture) -> Mapping[str, str]:
    kinds = sorted({node.type for node in architecture.spec.nodes if isinstance(node, Neuron)})
    reason = (
        f"no neuron of the network takes it (they are {', '.join(kinds)})" if kinds else "the network has no neuron"
    )
    return {name: reason for name in ("neuron", *OF_NEURONS) if name not in architecture.used}


def _of_the_optimisation(architecture: Architecture) -> Mapping[str, str]:
    fires = any(isinstance(node, Spiking) for node in architecture.spec.nodes)
    return {} if fires else dict.fromkeys(("surrogate", "slope", "rate_penalty"), "no neuron of the network fires")
