"""The model card: what a person should know before using a bundle."""

from __future__ import annotations

from models.spec.network import Network
from models.spec.parameters import show
from training.config import TrainingConfig
from training.report.evaluate import Evaluation
from training.report.parity import Parity


def write_card(
    name: str,
    network: Network,
    config: TrainingConfig,
    sizes: tuple[int, int, int],
    evaluation: Evaluation,
    parity: list[Parity],
    *,
    exact: bool,
) -> str:
    """Return card.md; `sizes` are those of the training, validation and test splits."""
    spec = network.spec
    weights = sum(tensor.size for tensor in network.tensors.values())
    worst = int(evaluation.confusion.diagonal().argmin())
    rates = "\n".join(f"| {node} | {rate:.2%} |" for node, rate in evaluation.firing_rates.items())
    agreement = "\n".join(
        f"| {row.engine} | {row.other_predictions} | {row.differing_spikes} of {row.spikes} |" for row in parity
    )
    sums = (
        "Weights lie on a dyadic grid, so that for whole-number inputs every sum is exact and every engine, machine "
        "and batch size gives the same spikes."
        if exact
        else "Sums may round in another order elsewhere, so that a membrane within rounding of its threshold may fall "
        "otherwise on another engine."
    )
    return f"""# {name}

A spiking network that tells {spec.classes} classes apart: {config.network.architecture}, {config.network.neuron}
neurons, {weights} parameters, {spec.time_steps} time steps, {spec.coding} coding.

- **Input**: {show(spec.input.shape)} raw values from {spec.input.low:g} to {spec.input.high:g}
- **Classes**: {", ".join(spec.labels)}
- **Data**: {config.data.dataset}, {sizes[0]} samples to train on, {sizes[1]} to validate, {sizes[2]} to test
  (split seed {config.data.split_seed}); the test samples chose nothing
- **Accuracy** on the test samples: {evaluation.accuracy:.2%}
- **Synaptic operations** per sample: {evaluation.synaptic_operations.mean():.0f} on average
- **Training**: surrogate {config.optimisation.surrogate} (slope {config.optimisation.slope:g}), seed {config.seed}

## Firing rates

Spikes per neuron and step on the test samples.

| layer | rate |
|---|---|
{rates}

## Agreement of the engines

Against the reference engine on the test samples. {sums}

| engine | other predictions | differing spikes |
|---|---|---|
{agreement}

## Limits

It knows only what it was trained on: samples from elsewhere (another scanner, another scale, no {config.data.dataset}
at all) get one of its classes too. The class that it misses most often is "{spec.labels[worst]}".
"""
