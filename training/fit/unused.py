"""The fields of a configuration that make no difference to a run, each with the reason: `fit` refuses them."""

from __future__ import annotations

from collections.abc import Mapping

from spikeserve.models.spec.nodes import Delay, Neuron, Spiking
from spikeserve.training.config import Surrogate, TrainingConfig
from spikeserve.training.data.datasets import Dataset, unused_splits
from spikeserve.training.fit.architecture import OF_NEURONS, Architecture


def unused_settings(config: TrainingConfig, data: Dataset, architecture: Architecture) -> Mapping[str, str]:
    """Return the fields that a run under `config` ignores, each with the reason as the end of a sentence.

    The fields of the data set that are known before it is loaded are those of `unused_fields`.
    """
    return {
        **unused_splits(data),
        **_of_the_network(config, architecture),
        **_of_the_neurons(config, architecture),
        **_of_the_optimisation(config, architecture),
    }


def _of_the_network(config: TrainingConfig, architecture: Architecture) -> Mapping[str, str]:
    network, unused = config.network, dict[str, str]()
    if network.coding.per_step:
        unused["time_steps"] = f"with coding '{network.coding}' samples have steps of their own"
    if not network.readout.of_membrane:
        unused["readout_decay"] = f"readout '{network.readout}' is of no membrane"
    if absent := [name for name in network.learn if name not in architecture.learned]:
        unused["learn"] = f"no neuron of the network has a {absent[0]} of its own to learn"
    if not architecture.learned:
        unused["learn_per"] = "no parameter of a neuron is learned (--learn)"
        if not any(training.longest_delay for training in architecture.training.values()):
            unused["neuron_rate_factor"] = "no parameter of a neuron is learned (--learn), and no delay"
    elif "learn_per" not in architecture.used:
        unused["learn_per"] = "convolutions have one value for the layer in any case"
    if "decays" not in architecture.used:
        unused["decays"] = "no layer has a decay for each neuron that it could spread"
    return unused


def _of_the_neurons(config: TrainingConfig, architecture: Architecture) -> Mapping[str, str]:
    kinds = sorted({node.type for node in architecture.spec.nodes if isinstance(node, Neuron)})
    reason = (
        f"no neuron of the network takes it (they are {', '.join(kinds)})" if kinds else "the network has no neuron"
    )
    unused = {name: reason for name in ("neuron", *OF_NEURONS) if name not in architecture.used}
    if config.network.decays == "spread":
        drawn = "each neuron starts with one of its own; give --decays alike as well"
        unused |= {name: drawn for name in unused if name.endswith("decay") and _has(architecture, name)}
    return unused


def _has(architecture: Architecture, name: str) -> bool:
    return any(name in type(node).model_fields for node in architecture.spec.nodes)


def _of_the_optimisation(config: TrainingConfig, architecture: Architecture) -> Mapping[str, str]:
    settings, unused = config.optimisation, dict[str, str]()
    spec = architecture.spec
    for name in ("truncate", "recompute"):
        if (getattr(settings, name) or 0) >= spec.time_steps:
            unused[name] = f"a sample has {spec.time_steps} steps, expected fewer"
    if not any(isinstance(node, Neuron | Delay) for node in spec.nodes):
        unused["truncate"] = "no layer of the network has a state"
    if not any(isinstance(node, Spiking) for node in spec.nodes):
        names = ("surrogate", "slope", "detach_reset", "rate_penalty", "rate_low", "rate_high")
        return unused | dict.fromkeys(names, "no neuron of the network fires")
    if settings.surrogate is Surrogate.SOFT:
        unused["detach_reset"] = "surrogate 'soft' passes the reset's gradient in any case"
    if not settings.rate_penalty:
        unused |= dict.fromkeys(("rate_low", "rate_high"), "--rate-penalty is 0")
    return unused
