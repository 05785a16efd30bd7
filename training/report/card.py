"""The model card, in Markdown: of what was trained here, and of what came from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from json import dumps

from spikeserve.models.engines.anytime import Calibration
from spikeserve.models.spec import Spec
from spikeserve.models.spec.network import Network
from spikeserve.models.spec.parameters import show
from spikeserve.training.config import TrainingConfig
from spikeserve.training.importers.options import ImportedNetwork
from spikeserve.training.report.evaluate import ACCURACY_VARIES, Evaluation
from spikeserve.training.report.parity import Parity

NARROW = "Weights of few bits"  # of what these change
EARLY = "Answers before the last step"  # the heading of what a calibration does


def markdown(title: str, introduction: str, facts: Mapping[str, str], sections: Mapping[str, str]) -> str:
    """Return a card as Markdown: a title, a paragraph, a list of facts by name, and sections by heading."""
    listed = "\n".join(f"- **{name}**: {fact}" for name, fact in facts.items())
    written = "".join(f"\n## {heading}\n\n{text}\n" for heading, text in sections.items())
    return f"# {title}\n\n{introduction}\n\n{listed}\n{written}"


def with_front_matter(
    card: str, name: str, data: str, metrics: Mapping[str, float], task: str = "other", license_id: str | None = None
) -> str:
    """Return a card that begins with what registries read of a model: the fields of Hugging Face's model cards.

    `license_id` is in their list of licences, such as apache-2.0; where it is None, the author adds theirs.
    """
    licensed = "" if license_id is None else f"license: {license_id}\n"
    listed = ", ".join(f"{{type: {each}, value: {value:.4f}}}" for each, value in metrics.items())
    return (
        f"---\n{licensed}library_name: spikeserve\ntags: [spiking-neural-network]\nmetrics: [{', '.join(metrics)}]\n"
        f"model-index:\n- name: {dumps(name)}\n  results:\n  - task: {{type: {task}}}\n"
        f"    dataset: {{name: {dumps(data)}, type: {dumps(data)}}}\n    metrics: [{listed}]\n---\n{card}"
    )


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def parity_table(parity: Sequence[Parity]) -> str:
    """Return a table of how each engine compares with the reference."""
    rows = [
        (row.engine, row.other_predictions, f"{row.differing_spikes} of {row.spikes}", f"{row.per_million:.3g}")
        for row in parity
    ]
    return table(("engine", "other predictions", "differing spikes", "in a million"), rows)


def weights_text(spec: Spec) -> str:
    """Say of how many bits each layer's weights are."""
    layers: dict[str, list[str]] = {}
    for name, bits in spec.weight_bits.items():
        width = "float32" if bits is None else f"whole numbers of {bits} bits times a power of two for each output"
        layers.setdefault(width, []).append(name.removesuffix(".weight"))
    return "; ".join(width if len(layers) == 1 else f"of {', '.join(names)} {width}" for width, names in layers.items())


def calibration_text(calibration: Calibration | None) -> str:
    """Say how much a calibration saves and loses, as measured, and how sure so many samples make that."""
    if calibration is None:
        return (
            'A request with `"stop": "confident"` is refused: samples differ in length, or none was held out, so that '
            "nothing was calibrated."
        )
    of, allowed = calibration.samples, 100 * calibration.target
    *others, last = ["no"] if len(calibration.checks) == 1 else map(str, calibration.checks[:-1])
    looks = f"{', '.join(others)} and {last}" if others else last
    trained, split = "", "training"  # the one split where nothing was held out for validation
    if calibration.training_samples:
        trained = f"Of {calibration.training_samples} training samples no more than the allowed share was lost. "
        split = "validation"
    lost, changed = round(calibration.lost * of), round(calibration.changed * of)
    return (
        f'A request with `"stop": "confident"` ends a sample once its class leads by {calibration.threshold:g} for '
        f"each remaining step; it looks after {looks} steps. The {of} {split} samples, which chose these numbers, "
        f"took {calibration.mean_steps:.1f} of {calibration.time_steps} steps on average. Of those that a whole run "
        f"answers right, {lost} were lost ({100 * calibration.lost:.2f} points of accuracy; {allowed:g} were allowed); "
        f"{changed} got another class than in a whole run. {trained}Other samples may lose more: {lost} of {of} rules "
        f"out, at 95 % confidence, only more than {100 * upper_bound(lost, of):.1f} points."
    )


def with_section(card: str, heading: str, text: str) -> str:
    """Return a card with a section, in the place of one of that heading or else at the end."""
    before, separator, after = card.partition(f"\n## {heading}\n")
    following = after.find("\n## ")
    rest = after[following:] if separator and following >= 0 else ""
    return f"{before.rstrip()}\n\n## {heading}\n\n{text}\n{rest}"


def upper_bound(count: int, samples: int, confidence: float = 0.95) -> float:
    """Return the largest share that is not ruled out by `count` of so many samples (Clopper and Pearson, 1934)."""
    from scipy.special import betaincinv  # scikit-learn brings it along; imported here, since it takes long

    return float(betaincinv(count + 1, samples - count, confidence)) if count < samples else 1.0


def training_card(
    name: str,
    network: Network,
    config: TrainingConfig,
    sizes: tuple[int, int, int],
    evaluation: Evaluation,
    parity: Sequence[Parity],
    calibration: Calibration | None,
    *,
    exact: bool,
) -> str:
    """Return the card of a trained network; `sizes` are those of the training, validation and test splits."""
    spec = network.spec
    most_missed = spec.labels[int(evaluation.confusion.diagonal().argmin())]
    kinds = " and ".join(sorted({node.type for node in spec.spiking_nodes})) or "no spiking"
    fitting = f"surrogate {config.optimisation.surrogate} (slope {config.optimisation.slope:g})"
    if config.network.kernels:
        fitting = "random kernels, and a ridge regression of their firing rates"
    steps = (
        f"; a step adds up {config.data.window} of the arrays'"
        if config.data.dataset == "arrays" and config.data.window
        else ""
    )
    inputs = "for whole-number inputs " if spec.input.resolution is None else ""
    sums = (
        f"Weights lie on a dyadic grid, so that {inputs}every sum is exact and every engine, machine and batch size "
        "gives the same spikes."
        if exact
        else "Sums may round in another order elsewhere, so that a membrane within rounding of its threshold may fall "
        "otherwise on another engine."
    )
    card = markdown(
        name,
        f"A spiking network that tells {spec.classes} classes apart: {config.network.architecture}, "
        f"{kinds} neurons, {network.parameter_count} parameters, {spec.time_steps} time steps, "
        f"{spec.coding} coding.",
        {
            "Input": f"{show(spec.input.shape)} raw values from {spec.input.described_range}{steps}",
            **({"Features": ", ".join(spec.input.feature_names)} if spec.input.feature_names else {}),
            "Classes": ", ".join(spec.labels),
            "Data": f"{config.data.dataset}, {sizes[0]} samples to train on, {sizes[1]} to validate, {sizes[2]} to "
            f"test (split seed {config.data.split_seed}); the test samples chose nothing",
            "Accuracy on the test samples": f"{evaluation.accuracy:.2%}",
            "Synaptic operations per sample": f"{evaluation.synaptic_operations.mean():.0f} on average",
            "Weights": weights_text(spec),
            "Training": f"{fitting}, seed {config.seed}. {ACCURACY_VARIES}",
        },
        {
            "Firing rates": "Spikes per neuron and step on the test samples.\n\n"
            + table(("layer", "rate"), [(node, f"{rate:.2%}") for node, rate in evaluation.firing_rates.items()]),
            "Agreement of the engines": f"Against the reference engine on the test samples. {sums}\n\n"
            + parity_table(parity),
            EARLY: calibration_text(calibration),
            "Limits": "It knows only what it was trained on: samples from elsewhere (another scanner, another scale, "
            f"no {config.data.dataset} at all) get one of its classes too. The class that it misses most often is "
            f'"{most_missed}".',
        },
    )
    return with_front_matter(card, name, config.data.dataset, {"accuracy": evaluation.accuracy})


def imported_card(name: str, imported: ImportedNetwork, parity: Sequence[Parity]) -> str:
    """Return the card of a network that an importer took in."""
    spec = imported.network.spec
    return markdown(
        name,
        f"{imported.origin}, {spec.time_steps} time steps, {spec.coding} coding.",
        {
            "Input": f"{show(spec.input.shape)} values from {spec.input.described_range}",
            **_answer(spec),
            **imported.facts,
            "Accuracy": "not measured here, for no data came with the model",
        },
        {
            **imported.sections,
            "Agreement of the engines": f"Against the reference engine, on random samples.\n\n{parity_table(parity)}",
            "Limits": "It knows only what it was trained on, and nothing here says what that was. The golden samples "
            "are random: they show that engines agree, and not how good its answers are.",
        },
    )


def _answer(task: Spec) -> dict[str, str]:
    """Return the card's rows about the model's answer."""
    if task.scores.has_classes:
        rows = {"Classes": ", ".join(task.labels)}
    else:
        units = task.units or ("",) * task.classes
        named = (f"{name} ({unit})" if unit else name for name, unit in zip(task.labels, units, strict=True))
        rows = {"Values": ", ".join(named)}
    return rows | {"Readout": f"{task.readout}, as {task.scores}"}
