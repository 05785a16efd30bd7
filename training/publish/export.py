"""Export: from a finished run to a bundle in a repository, once every engine has agreed on the test set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from models.bundle.repository import ModelRepository
from models.engines import EngineName, create
from training.data.datasets import Dataset
from training.fit.folder import RunFolder
from training.publish.publish import publish
from training.report.card import write_card
from training.report.evaluate import Evaluation, evaluate
from training.report.parity import Parity, compare_engines, require_parity


@dataclass(frozen=True)
class Exported:
    """What was published, and how the engines compared on the way."""

    folder: Path
    version: int
    evaluation: Evaluation
    parity: list[Parity]


def export(run: RunFolder, data: Dataset, repository: ModelRepository, name: str) -> Exported:
    """Publish the run's network as the next version of `name`.

    Raises ExportRefused where the engines that are installed here disagree on a test sample.
    """
    network, config = run.network(), run.config()
    evaluation = evaluate(create(EngineName.TORCH, network), data.test)
    parity = compare_engines(network, data.test)
    require_parity(parity, len(data.test))
    sizes = (len(data.training), len(data.validation), len(data.test))
    card = write_card(name, network, config, sizes, evaluation, parity, exact=bool(run.metrics["exact"]))
    version = publish(network, repository, name, data.test, card, _metrics(run, evaluation))
    return Exported(repository.root / name / str(version), version, evaluation, parity)


def _metrics(run: RunFolder, evaluation: Evaluation) -> dict[str, float]:
    rates = {f"firing_rate.{node}": rate for node, rate in evaluation.firing_rates.items()}
    return {
        "test_accuracy": evaluation.accuracy,
        "validation_accuracy": float(run.metrics["validation_accuracy"]),
        "synaptic_operations": float(evaluation.synaptic_operations.mean()),
        "training_seconds": round(float(run.metrics["seconds"]), 1),
    } | rates
