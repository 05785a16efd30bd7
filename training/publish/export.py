"""Export: from a finished run to a bundle in a repository, once every engine has agreed on the test set."""

from __future__ import annotations

from spikeserve.models.bundle import FIRING_RATE
from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.engines import EngineName, available, create
from spikeserve.training.data.datasets import Dataset
from spikeserve.training.fit.folder import RunFolder
from spikeserve.training.publish.calibrate import calibrate
from spikeserve.training.publish.publish import Published, publish_trained
from spikeserve.training.report.card import training_card
from spikeserve.training.report.evaluate import Evaluation, evaluate


def export(run: RunFolder, data: Dataset, repository: ModelRepository, name: str) -> Published:
    """Publish the run's network as the next version of `name`.

    It is calibrated for `confident` on the validation split. Raises ExportRefused where the engines that are installed
    here disagree on a test sample.
    """
    network, config, metrics = run.network(), run.config(), run.metrics
    evaluation = evaluate(create(EngineName.TORCH, network), data.test)
    sizes = (len(data.training), len(data.validation), len(data.test))
    exact = bool(metrics["exact"])  # `fit` wrote it when it rounded the weights
    calibration = calibrate(create(available()[0], network), data.validation, data.training)
    return publish_trained(
        network,
        repository,
        name,
        data.test,
        lambda parity: training_card(name, network, config, sizes, evaluation, parity, calibration, exact=exact),
        _metrics(run, evaluation),
        calibration,
    )


def _metrics(run: RunFolder, evaluation: Evaluation) -> dict[str, float]:
    return measured(evaluation) | {
        "validation_accuracy": float(run.metrics["validation_accuracy"]),
        "training_seconds": round(float(run.metrics["seconds"]), 1),
    }


def measured(evaluation: Evaluation) -> dict[str, float]:
    """Return the metrics of a bundle that an evaluation of its test samples gives."""
    rates = {f"{FIRING_RATE}{node}": rate for node, rate in evaluation.firing_rates.items()}
    return {
        "test_accuracy": evaluation.accuracy,
        "synaptic_operations": float(evaluation.synaptic_operations.mean()),
    } | rates
