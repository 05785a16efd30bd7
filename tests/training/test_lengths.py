"""Sequences of different lengths: padding is neither a current nor counted, in training as in serving."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from spikeserve.models.bundle import Bundle
from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.coding import encode
from spikeserve.models.engines import available, create
from spikeserve.models.engines.torch.operations import HardThreshold, Threshold
from spikeserve.models.spec import Coding, Input, Readout
from spikeserve.training.config import AugmentConfig, NetworkConfig, OptimisationConfig, Surrogate, TrainingConfig
from spikeserve.training.data.augment import augment
from spikeserve.training.data.dataset import Dataset, Split
from spikeserve.training.errors import InvalidData
from spikeserve.training.fit.architecture import build_architecture
from spikeserve.training.fit.devices import join
from spikeserve.training.fit.exact import round_to_grid
from spikeserve.training.fit.loop import fit, start
from spikeserve.training.fit.losses import class_scores, readout_loss, spike_loss
from spikeserve.training.fit.network import Activity, TrainingNetwork, forward
from spikeserve.training.fit.surrogate import SurrogateThreshold
from spikeserve.training.publish.publish import publish_trained
from spikeserve.training.report.evaluate import evaluate
from tests.training.command_line import training_here

LENGTHS = np.array([3, 11, 1, 8, 8, 12, 5])
LONGEST, CHANNELS = 12, 4
SURROGATE = SurrogateThreshold(Surrogate.SUPERSPIKE, 5.0)
PLAIN = "16R:lif(decay=0.5)-12T3d2:cubalif(decay=0.5,syn_decay=0.25)-D3-8:alif(decay=0.75,adapt_decay=0.5)"


def split(coding: Coding = Coding.CURRENT) -> Split:
    """Draw samples of quarters, or of spikes, whose padding is anything that may be sent."""
    rng = np.random.default_rng(0)
    values = rng.integers(-8, 9, (len(LENGTHS), LONGEST, CHANNELS)) / 4
    samples = (values > 0 if coding is Coding.SPIKES else values).astype(np.float32)
    return Split(samples, np.arange(len(LENGTHS)) % 3, LENGTHS)


def alone(whole: Split) -> list[Split]:
    """Return each sample as a split of its own, without padding."""
    return [whole[index : index + 1].cut() for index in range(len(whole))]


def dyadic(text: str, coding: Coding = Coding.CURRENT, **config: Any) -> TrainingNetwork:
    """Draw a network whose every sum is exact."""
    settings = NetworkConfig(architecture=text, coding=coding, decay=0.5, learn=(), **config)
    torch.manual_seed(0)
    low = -2.0 if coding is Coding.CURRENT else 0.0
    declared = Input(shape=(CHANNELS,), low=low, high=2.0)
    module = TrainingNetwork(build_architecture(settings, declared, ("a", "b", "c"), LONGEST))
    with torch.no_grad():
        for name, values in module.named_parameters():
            if name.rpartition(".")[2] in ("weight", "bias") and "norm" not in name:
                values.copy_(torch.randint(-6, 10, values.shape) / (8 if values.ndim > 1 else 16))
    return module


def scores(passed: Activity, readout: Readout) -> NDArray[np.float32]:
    return class_scores(passed.output.detach(), readout, passed.lengths).numpy()


@pytest.mark.parametrize(
    ("readout", "coding", "threshold"),
    [
        (Readout.SPIKE_COUNT, Coding.CURRENT, HardThreshold()),
        (Readout.SPIKE_COUNT, Coding.SPIKES, SURROGATE),
        (Readout.MEAN_MEMBRANE, Coding.CURRENT, SURROGATE),
        (Readout.LAST_MEMBRANE, Coding.SPIKES, HardThreshold()),
        (Readout.MAX_MEMBRANE, Coding.CURRENT, SURROGATE),
        (Readout.MEAN, Coding.SPIKES, HardThreshold()),
        (Readout.LAST, Coding.CURRENT, HardThreshold()),
    ],
)
def test_a_sample_is_answered_alone_as_if_padded(readout: Readout, coding: Coding, threshold: Threshold) -> None:
    module, whole = dyadic(PLAIN, coding, readout=readout), split(coding)
    together = forward(module, whole.samples, threshold, lengths=whole.lengths)
    found = scores(together, readout)
    each = [forward(module, one.samples, threshold) for one in alone(whole)]
    np.testing.assert_array_equal(found, np.concatenate([scores(one, readout) for one in each]))
    assert len(np.unique(found, axis=0)) > 3
    for name, rate in together.firing_rates.items():
        assert rate > 0.01
        assert rate == pytest.approx(np.mean([one.firing_rates[name] for one in each]), rel=1e-5)
    network = module.network()
    for name in available():
        engine = create(name, network)
        evaluation = evaluate(engine, whole)
        np.testing.assert_array_equal(evaluation.readout, found, str(name))
        for index, one in enumerate(alone(whole)):
            served, _ = engine.run(encode(one.samples, network.spec))
            np.testing.assert_array_equal(served.readout[0], evaluation.readout[index])
            assert served.synaptic_operations is not None
            assert served.synaptic_operations[0] == evaluation.synaptic_operations[index]
        assert evaluation.firing_rates == pytest.approx(together.firing_rates, rel=1e-5)


@pytest.mark.parametrize("readout", [Readout.SPIKE_COUNT, Readout.MEAN, Readout.MAX_MEMBRANE, Readout.LAST])
def test_the_gradient_of_a_padded_batch_is_the_mean_of_its_samples(readout: Readout) -> None:
    module, whole = dyadic(PLAIN, readout=readout), split()

    def gradients(part: Split) -> dict[str, torch.Tensor]:
        module.zero_grad()
        passed = forward(module, part.samples, SURROGATE, lengths=part.lengths)
        loss = readout_loss(passed.output, torch.from_numpy(part.labels), readout, lengths=passed.lengths)
        sum(passed.rates.values(), loss).backward()  # type: ignore[no-untyped-call]
        return {name: value.grad.clone() for name, value in module.named_parameters() if value.grad is not None}

    found = gradients(whole)
    noise = Split(whole.samples.copy(), whole.labels, whole.lengths)
    for sample, length in zip(noise.samples, LENGTHS, strict=True):
        sample[length:] = -1.75
    for name, value in gradients(noise).items():
        assert torch.equal(value, found[name]), name  # whatever the padding holds
    each = [gradients(one) for one in alone(whole)]
    for name, value in found.items():
        mean = torch.stack([one[name] for one in each]).mean(dim=0)
        torch.testing.assert_close(value, mean, rtol=1e-4, atol=1e-6, msg=name)


def test_augmentation_drops_a_span_of_a_samples_own_time() -> None:
    samples, declared = np.ones((400, 50, 1), np.float32), Input(shape=(1,), low=0, high=1)
    how: dict[str, Any] = {"declared": declared, "coding": Coding.SPIKES, "lengths": np.full(400, 5)}
    varied = augment(samples, AugmentConfig(event_drop=1.0), np.random.default_rng(0), **how)
    assert varied[:, 5:].all()
    assert 0.3 < 1 - varied[:, :5].mean() < 0.7


@pytest.mark.parametrize("lengths", [[1, 4], [0, 3], [1.0, 2.0], [1]])
def test_a_loss_refuses_lengths_that_are_none(lengths: list[float]) -> None:
    with pytest.raises(InvalidData, match=r"lengths: are \[.*\], expected 2 whole numbers from 1 to 3"):
        spike_loss(torch.zeros(3, 2, 4), torch.tensor([0, 1]), lengths=torch.tensor(lengths))


def noisy(whole: Split, extra: int, seed: int) -> Split:
    """Return a split with more steps, and random values as padding."""
    noise = np.random.default_rng(seed).normal(0, 9, (len(whole), whole.samples.shape[1] + extra, CHANNELS))
    own = np.arange(whole.samples.shape[1]) < LENGTHS[np.arange(len(whole)) % len(LENGTHS), np.newaxis]
    noise[:, : own.shape[1]][own] = whole.samples[own]
    return Split(noise.clip(-2, 2).astype(np.float32), whole.labels, whole.lengths)


def test_padding_changes_no_fit(tmp_path: Path) -> None:
    chosen = np.arange(98) % len(LENGTHS)
    moved = np.arange(98)[:, np.newaxis, np.newaxis] % 3 / 4 - 0.25  # by class
    samples = (split().samples[chosen] + moved).clip(-2, 2).astype(np.float32)
    whole = Split(samples, np.arange(98) % 3, LENGTHS[chosen])
    config = TrainingConfig(
        network=NetworkConfig(architecture="8T3-BN-8R", coding=Coding.CURRENT),
        optimisation=OptimisationConfig(epochs=2, batch_size=16),
    )
    declared = Input(shape=(CHANNELS,), low=-2.0, high=2.0)
    architecture = build_architecture(config.network, declared, ("a", "b", "c"), LONGEST)
    found: list[Any] = []
    for seed, extra in ((0, 0), (1, 5)):
        training, validation = (noisy(part, extra, seed) for part in (whole[:70], whole[70:]))
        data = Dataset("mine", declared, ("a", "b", "c"), training, validation, whole[70:])
        begun = start(architecture, data, config, join(config))[0].state_dict()
        fitted = fit(architecture, data, config, tmp_path / f"{seed}.pt")
        network = round_to_grid(fitted.network).network
        publish_trained(network, ModelRepository(tmp_path / str(seed)), "mine", data.test, lambda _: "card", {})
        bundle = Bundle.read(tmp_path / str(seed) / "mine/1")
        epochs = [replace(epoch, seconds=0.0) for epoch in fitted.epochs]
        found.append((begun, fitted.network.tensors, bundle.manifest.files, epochs))
    (begun, tensors, files, epochs), (other_begun, other_tensors, other_files, other_epochs) = found
    for one, other in ((begun, other_begun), (tensors, other_tensors)):
        assert {name: np.array_equal(values, other[name]) for name, values in one.items()} == dict.fromkeys(one, True)
    assert epochs == other_epochs
    assert files == other_files


def test_what_was_fitted_and_published_answers_each_sample_as_it_was_evaluated(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lengths, y = rng.integers(2, 12, 60), np.arange(60) % 2
    x = np.concatenate([rng.normal(2 * label - 1, 0.5, (length, 2)) for length, label in zip(lengths, y, strict=True)])
    np.savez(tmp_path / "mine.npz", x=x, lengths=lengths, y=y)
    flags = ("--coding", "current", "--architecture", "16R", "--epochs", "5", "--repository", "repository")
    fitted = training_here("fit", "--file", "mine.npz", *flags, cwd=tmp_path, plots=False)
    assert fitted.returncode == 0, fitted.stderr
    bundle = Bundle.read(tmp_path / "repository/mine/1")
    assert bundle.calibration is None
    assert '`"stop": "confident"` is refused' in bundle.card
    tested = np.load(tmp_path / "runs/mine-1/evaluation.npz")
    assert len(set(tested["lengths"])) > 1
    for index, length in enumerate(tested["lengths"]):
        sample = tested["x"][index : index + 1, :length]
        served, _ = bundle.engine(available()[0]).run(encode(sample, bundle.network.spec))
        np.testing.assert_array_equal(served.readout[0], tested["readout"][index])
