"""Quantisation after training: the weights of a network rounded to few bits, and what that changes."""

from __future__ import annotations

from spikeserve.models.bundle import Bundle
from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.engines import available, create
from spikeserve.models.spec.narrow import stored
from spikeserve.models.spec.network import Network
from spikeserve.training.data.datasets import Dataset
from spikeserve.training.publish.calibrate import calibrate
from spikeserve.training.publish.publish import Publication, measured, publish_imported, publish_trained
from spikeserve.training.report.card import EARLY, NARROW, calibration_text, weights_text, with_section
from spikeserve.training.report.evaluate import evaluate
from spikeserve.training.report.parity import compare_engines

UNCALIBRATED = "This version is not calibrated for it; `spikeserve calibrate` does that."


def publish_quantised(
    bundle: Bundle, narrow: Network, repository: ModelRepository, data: Dataset | None
) -> tuple[Publication, str]:
    """Publish a bundle's network of few bits as the next version of its model, with what its test samples measure.

    Returns it and, in words, what rounding changed. It is calibrated again where the bundle is. Without data nothing is
    measured, and golden samples are random. Raises ExportRefused as `publish_trained` does.
    """
    manifest, network = bundle.manifest, bundle.network
    before, after = (sum(tensor.nbytes for tensor in stored(each).values()) for each in (network, narrow))
    text = (
        f"Rounded after training, from version {manifest.version}: {weights_text(narrow.spec)}. The tensors have "
        f"{after} bytes instead of {before}. "
    )
    if data is None:
        text += f"Nothing was measured with them; what else stands here is of version {manifest.version}."
        card = with_section(bundle.card, NARROW, text)
        if bundle.calibration is not None:
            card = with_section(card, EARLY, UNCALIBRATED)
        return publish_imported(narrow, repository, manifest.name, lambda _: card), text
    engines = [create(available()[0], each) for each in (network, narrow)]
    was, now = (evaluate(engine, data.test) for engine in engines)
    (changed,) = compare_engines(narrow, dict(zip(("reference", "event"), engines, strict=True)), data.test)
    text += (
        f"On the {len(data.test)} test samples the accuracy is {now.accuracy:.2%} instead of {was.accuracy:.2%}; "
        f"{changed.other_predictions} get another answer, and {changed.differing_spikes} of {changed.spikes} "
        f"spikes differ ({changed.share:.2%}). What else stands here was measured with version {manifest.version}."
    )
    card, calibration = with_section(bundle.card, NARROW, text), None
    if bundle.calibration is not None:
        calibration = calibrate(engines[1], data.validation, data.training, bundle.calibration.target)
        card = with_section(card, EARLY, calibration_text(calibration))
    published = publish_trained(
        narrow, repository, manifest.name, data.test, lambda _: card, measured(now), calibration
    )
    return published, text
