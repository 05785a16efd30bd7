"""The one way into a model repository, for what was trained here and for what came from elsewhere.

A network's engines are compared, golden samples are chosen, the ONNX model is built, and the next version is written.
What was written is then loaded and verified as a server would do it. Only after that does its folder appear, by one
rename, so a reader sees the whole version or none of it, and no version that the default engine refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from numpy.typing import ArrayLike
from rich.console import Console
from torch import nn

from spikeserve.models.bundle import FIRING_RATE, Bundle, Contents, File
from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.door import named, of_kind
from spikeserve.models.engines import available, create
from spikeserve.models.engines.anytime import Calibration
from spikeserve.models.engines.declared import CPU, preferred
from spikeserve.models.errors import EngineUnavailable, InvalidBundle
from spikeserve.models.spec import Coding, Readout
from spikeserve.models.spec.narrow import found_bits
from spikeserve.models.spec.network import Network
from spikeserve.training.data.datasets import Dataset, Split, random_split
from spikeserve.training.errors import ExportRefused, one_of
from spikeserve.training.fit.diagnostics import chance
from spikeserve.training.fit.folder import RunFolder
from spikeserve.training.fit.job import TrainedRun
from spikeserve.training.publish.calibrate import calibrate
from spikeserve.training.publish.golden import Effort, choose_golden
from spikeserve.training.report.card import NARROW, training_card, weights_text, with_section
from spikeserve.training.report.evaluate import Evaluation, evaluate
from spikeserve.training.report.parity import COMPARED, Parity, compare_engines, engines_of, require_parity


@dataclass(frozen=True)
class Publication:
    """A version that was published, and how the engines compared on the way.

    `place` is the folder or URL that it was published to, and `folder` what was read back from there.
    """

    name: str
    version: int
    place: str
    folder: Path
    parity: tuple[Parity, ...] = ()

    def show(self, console: Console) -> None:
        """Print how the engines agree, and where the version lies."""
        for parity in self.parity:
            spikes = (
                f"{parity.differing_spikes} of {parity.spikes} spikes differ ({parity.per_million:.3g} in a million)"
            )
            spikes = spikes if parity.spikes else "no neuron fired in any sample, so no rule was compared"
            other = f"{parity.other_predictions} other predictions"
            console.print(f"Engine {parity.engine} against reference: {other}, {spikes}")
        console.print(f"Published {self.name} version {self.version}: {self.place}")


def publish_trained(
    network: Network,
    repository: ModelRepository,
    name: str,
    test: Split,
    card: Callable[[list[Parity]], str],
    metrics: Mapping[str, float],
    calibration: Calibration | None = None,
) -> Publication:
    """Publish a network as the next version of `name`, with golden samples of its test split.

    Raises ExportRefused where the engines that are installed here disagree on the class of a test sample, or the
    default engine refuses the bundle.
    """
    engines = engines_of(network)
    parity = compare_engines(network, engines, test)
    require_parity(parity, len(test))
    golden = choose_golden(network, engines, test)
    return _publish(Contents(name, network, golden, dict(metrics), card(parity), calibration), repository, parity)


def export(
    run: RunFolder,
    data: Dataset,
    repository: ModelRepository,
    name: str,
    *,
    job: TrainedRun | None = None,
    at_chance: bool = False,
) -> Publication:
    """Publish the run's network as the next version of `name`; without its `job` it is read and tested again.

    It is calibrated for `confident` on the validation split, unless its samples differ in length, or it consists of
    random kernels that were solved on all samples. Raises ExportRefused
    where the engines that are installed here disagree on a test sample and, unless `at_chance`, where the network is no
    better than chance.
    """
    network, config, metrics = job.network if job else run.network(), run.config(), run.metrics
    evaluation = job.evaluation if job else evaluate(create("torch", network), data.test)
    if not at_chance and (sentence := chance(evaluation)):
        raise ExportRefused(f"{sentence}; `export {run.path} --at-chance` publishes it nevertheless")
    sizes = (len(data.training), len(data.validation), len(data.test))
    exact = bool(metrics["exact"])  # `fit` wrote it when it rounded the weights
    accuracy = metrics["validation_accuracy"]  # None where there was no validation sample
    validated = {} if accuracy is None else {"validation_accuracy": float(accuracy)}
    calibration = None
    held_out = len(data.validation) or not config.network.kernels  # whose scores of training samples are too sure
    if held_out and data.training.lengths is None and data.validation.lengths is None:
        calibration = calibrate(create(available()[0], network), data.validation, data.training)
    return publish_trained(
        network,
        repository,
        name,
        data.test,
        lambda parity: training_card(name, network, config, sizes, evaluation, parity, calibration, exact=exact),
        measured(evaluation) | validated | {"training_seconds": round(float(metrics["seconds"]), 1)},
        calibration,
    )


def measured(evaluation: Evaluation) -> dict[str, float]:
    """Return the metrics of a bundle that an evaluation of its test samples gives."""
    rates = {f"{FIRING_RATE}{node}": rate for node, rate in evaluation.firing_rates.items()}
    return {
        "test_accuracy": evaluation.accuracy,
        "synaptic_operations": float(evaluation.synaptic_operations.mean()),
    } | rates


def publish(
    model: nn.Module,
    repository: str | Path,
    name: str,
    test: tuple[ArrayLike, ArrayLike],
    *,
    coding: Coding | str = Coding.SPIKES,
    time_steps: int | None = None,
    readout: Readout | str | None = None,
    labels: Sequence[str] = (),
) -> Publication:
    """Publish a network as the next version of `name` in a model repository, with its accuracy on test samples.

    `test` holds samples, batch first whatever the modules' order, and their class indices (n,). Samples are (n,
    time_steps, *shape), or (n, *shape) for direct, rate and latency coding, which needs `time_steps`. They lie from 0
    to 1, or to their greatest value. `readout` is what the class is read from: by default the spike count, or of a
    layer that never fires the greatest membrane. Weights are rounded to a grid on which every engine computes the same
    spikes.

    Raises NotConvertible for a module that is no node of the spec, InvalidData for samples that do not fit, and
    ExportRefused where engines disagree on a class.
    """
    coding, readout = one_of(Coding, "coding", coding), readout and one_of(Readout, "readout", readout)
    own: Publication = named("importer", "spikeserve").publish(
        model, repository, name, test, coding=coding, time_steps=time_steps, readout=readout, labels=labels
    )
    return own


def publish_imported(
    network: Network, repository: ModelRepository, name: str, card: Callable[[list[Parity]], str]
) -> Publication:
    """Publish a network that came without data: engines are compared, and golden samples chosen, on random samples.

    Weights that are whole numbers of few bits, times a power of two for each output, are stored as such. Raises
    ExportRefused where engines differ on each of those samples, one of them takes too long to run, or the default
    engine refuses the bundle.
    """
    said, bits = network.spec.weight_bits, found_bits(network)
    network = Network(network.spec.with_weight_bits(bits), network.tensors)
    effort = Effort.of(network.spec)
    samples = random_split(network.spec, effort.samples)
    engines = engines_of(network)
    parity = compare_engines(network, engines, samples[:COMPARED])
    golden, text = choose_golden(network, engines, samples), card(parity)
    if bits != said:
        text = with_section(text, NARROW, f"The network came with weights that are such: {weights_text(network.spec)}.")
    return _publish(Contents(name, network, golden, {}, text, None), repository, parity)


def publish_calibrated(bundle: Bundle, repository: ModelRepository, calibration: Calibration, card: str) -> Publication:
    """Publish a bundle with a calibration and another card as the next version of its model; all else is as it was.

    Raises ExportRefused where the default engine refuses it.
    """
    manifest = bundle.manifest
    contents = Contents(manifest.name, bundle.network, bundle.golden, manifest.metrics, card, calibration)
    return _publish(contents, repository, graph=File.ONNX_MODEL in manifest.files)


def _publish(
    contents: Contents, repository: ModelRepository, parity: Sequence[Parity] = (), *, graph: bool = True
) -> Publication:
    """Write a bundle, with its ONNX graph if asked and where the target `onnx` is there."""
    target = of_kind("target").get("onnx")
    if graph and target and not target.missing:
        contents = replace(contents, onnx_model=partial(target.load().write, contents.network, contents.name))
    version = repository.publish(contents, require_serves)
    name = contents.name  # what is read from a repository elsewhere is copied and verified
    return Publication(name, version, repository.place(name, version), repository.folder(name, version), tuple(parity))


def require_serves(bundle: Bundle) -> None:
    """Load a bundle as a server does by default, and replay its golden samples.

    That is on the first of the CPU's engines that can run it. Raises ExportRefused where the bundle fails.
    """
    for name in preferred(CPU):
        try:
            engine = bundle.engine(name)
        except EngineUnavailable:
            continue  # a server falls back to the next one too
        try:
            bundle.verify(engine)
        except InvalidBundle as error:
            raise ExportRefused(
                f"a server could not serve '{bundle.manifest.name}', so it is not published: {error}"
            ) from error
        return
