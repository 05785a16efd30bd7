"""No flag is ignored in silence: each changes a run, or is refused by a sentence that names it and says why."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from spikeserve.models.errors import SpikeserveError
from spikeserve.training.commands.flags import typed_fields
from spikeserve.training.commands.runs import FLAGS, start_run
from spikeserve.training.config import TrainingConfig
from spikeserve.training.data.dataset import Dataset
from spikeserve.training.data.datasets import LOADERS
from spikeserve.training.fit import loop
from spikeserve.training.fit.architecture import Architecture
from spikeserve.training.fit.job import architecture_for
from tests.apps import app, command_of
from tests.bundles import publish
from tests.networks import toy

# For each field another value than its default, for images and for sequences.
VALUES = {
    "seed": "3", "device": "cuda", "dataset": "events", "file": "other.npz", "folder": "other", "download": "",
    "test_share": "0.4", "validation_share": "0.4", "split_seed": "5", "low": "-7", "high": "99",
    "normalise": "standard",
    "window": "20000", "max_steps": "2", "sensor": "7", "downsample": "2",
    "shift": "1", "event_drop": "0.5", "time_jitter": "2", "time_shift": "1",
    "architecture": "5", "neuron": "IF", "decay": "0.3", "fire": "above_threshold", "reset": "value",
    "learn": "threshold",
    "readout": "last_membrane", "coding": "rate", "time_steps": "3",
    "epochs": "1", "batch_size": "5", "learning_rate": "0.3", "schedule": "constant", "average": "0.0",
    "surrogate": "arctan", "slope": "2",
    "rate_penalty": "9", "label_smoothing": "0.5", "class_weights": "balanced",
    "patience": "1", "precision": "bf16-mixed",
}  # fmt: skip
OF_FILE = {flag.text: flag for flag in FLAGS if flag.schema.get("file")}
OTHERWISE = {"fire": "multiple", "dataset": "digits"}
# These say when a run may end, or what is done after it, which its fitted weights do not show.
UNSEEN = {"patience"}
OF_DATA = {"events", "digits"}  # runs that are tried with the flags of their data alone
# The data, and the flags of a run on it.
PENALTY = "--rate-penalty 1"
RUNS: Mapping[str, str] = {
    "images": f"--file images.npz --architecture 4C3-AP2-6 --time-steps 4 {PENALTY}",
    "rasters": f"--file rasters.npz --coding spikes --architecture 6R {PENALTY}",
    "readings": "--file splits.npz --coding current --architecture none --readout mean --normalise range",
    "membranes": "--file images.npz --architecture 6:alif(decay=0.5) --neuron CubaLIF --readout max_membrane"
    f" --learn decay --surrogate triangular {PENALTY}",
    "stated": "--file images.npz --architecture 6:if-6:lif(decay=0.5,threshold=1,reset=value,fire=at_threshold)"
    " --readout mean --rate-penalty 0",
    "events": f"--dataset events --folder recordings --coding spikes --architecture 4 --readout spike_count {PENALTY}",
    "digits": "--architecture none --readout mean",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that RUNS names: 30 small samples, two thirds of them in one class."""
    folder = tmp_path_factory.mktemp("home")
    rng = np.random.default_rng(0)
    y = np.arange(30) % 3 // 2
    images = rng.integers(0, 17, (30, 1, 4, 4)).astype(np.float32)
    rasters = (rng.random((30, 6, 5)) < 0.4).astype(np.float32)
    np.savez(folder / "images.npz", x=images, y=y)
    np.savez(folder / "other.npz", x=images[::-1], y=y)
    np.savez(folder / "rasters.npz", x=rasters, y=y)
    readings = {"train": slice(0, 18), "val": slice(18, 24), "test": slice(24, 30)}
    arrays: dict[str, Any] = {f"x_{part}": rng.normal(0, 1, (30, 6, 2))[of] for part, of in readings.items()}
    arrays |= {f"y_{part}": y[of] for part, of in readings.items()}
    np.savez(folder / "splits.npz", **arrays)
    for name in ("recordings", "other"):
        for index, label in enumerate(y[:20]):
            (folder / name / str(label)).mkdir(parents=True, exist_ok=True)
            t, unit = rng.integers(0, 40_000, 30), rng.integers(0, 4, 30)
            np.savez(folder / name / str(label) / f"{index}.npz", t=t, unit=unit)
    return folder


@cache  # it takes longer to make than a run to begin
def fit_command() -> Any:
    return command_of("fit")


def begun(words: list[str]) -> tuple[TrainingConfig, Dataset, Architecture]:
    """Begin `fit` under these flags, some of which its file says; raises the errors with which it refuses them."""
    typed, own = list(words), dict[str, dict[str, Any]]()
    for word in words:
        if flag := OF_FILE.get(word):
            at = typed.index(word)
            own.setdefault(flag.section, {})[flag.name] = flag.value(typed[at + 1])
            del typed[at : at + 2]
    context = fit_command().make_context("fit", typed)
    values = typed_fields(context, FLAGS)
    for section, fields in own.items():
        values.setdefault(section, {}).update(fields)
    config, data = start_run(context, TrainingConfig.read(context.params["config"], values))
    return config, data, architecture_for(config, data)


def prepared(data: Dataset, architecture: Architecture) -> bytes:
    """Return all that is known before the first step: the samples of each split, and the network."""
    splits = [data.training, data.validation, data.test]
    arrays = b"".join(np.asarray(part).tobytes() for split in splits for part in (split.samples, split.labels))
    return arrays + repr((data.declared, architecture.spec, sorted(architecture.training.items()))).encode()


def fitted(run: tuple[TrainingConfig, Dataset, Architecture], folder: Path) -> bytes:
    """Return the result of two epochs: the losses, and the weights."""
    config, data, architecture = run
    result = loop.fit(architecture, data, config, folder / "checkpoint.pt")
    losses = [(epoch.training_loss, epoch.validation_loss) for epoch in result.epochs]
    return repr(losses).encode() + b"".join(values.tobytes() for values in result.network.tensors.values())


@cache
def unchanged(run: str) -> bytes:
    """Return the result of a run without a further flag."""
    return fitted(begun(words_of(run)), Path())


def words_of(run: str) -> list[str]:
    return [*RUNS[run].split(), "--epochs", "2", "--batch-size", "8", "--average", "0.1"]


def typed_flags(name: str, configuration: Mapping[str, Any]) -> list[str]:
    """Return the words that give a field another value than the run has."""
    value = VALUES[name]
    if name in OTHERWISE and ((value == "" and configuration[name]) or str(configuration[name]) == value):
        value = OTHERWISE[name]
    flag = name.replace("_", "-")
    if value in ("", "no"):
        return [f"--{'no-' if value else ''}{flag}"]
    return [f"--{flag}", value]


def refused(*words: str | Path) -> str:
    """Return the sentence with which a command refuses these words."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert isinstance(result.exception, SpikeserveError), result.output
    return str(result.exception)


def test_a_file_without_a_data_set_is_one_of_arrays(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    config, data, _ = begun(["--file", "images.npz"])
    assert (config.data.dataset, data.name, len(data.class_names)) == ("arrays", "images", 2)
    assert refused("fit", "--dataset", "digits", "--file", "images.npz") == (
        "--file would be ignored: data set 'digits' has no use for it; it is for arrays"
    )


def test_a_field_that_would_be_ignored_is_refused(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    written = tmp_path / "written.toml"
    begun(words_of("images"))[0].write(written)  # with time_shift and all other fields
    assert begun(["--config", str(written)])[0].network.architecture == "4C3-AP2-6"
    own = tmp_path / "own.toml"
    own.write_text(written.read_text().replace("downsample = 1", "downsample = 2"))
    assert refused("fit", "--config", own).startswith("data.downsample would be ignored: ")


def test_a_report_knows_its_data_by_the_run_or_names_the_flags(home: Path, tmp_path: Path) -> None:
    publish(tmp_path, toy())
    for words in (("report", tmp_path / "toy" / "1"), ("calibrate", "toy", "--repository", tmp_path)):
        assert refused(*words) == (
            "the data of model 'toy' is not known; give --data with the folder of its run, the file that `fit` read, "
            f"your own .npz, or one of {', '.join(LOADERS)}"
        )
        assert refused(*words, "--data", "nowhere").endswith(": 'nowhere' is not there")
        own = tmp_path / "own.toml"
        own.write_text(f"[data]\nfile = '{home}/images.npz'\nmax_steps = 5\n")
        assert "data.max_steps would be ignored" in refused(*words, "--data", own)


def test_every_field_has_a_value_to_be_tried_with() -> None:
    assert VALUES.keys() == {flag.name for flag in FLAGS}


@pytest.mark.parametrize("run", RUNS)
def test_each_flag_changes_a_run_or_fails(
    run: str, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setattr(TrainingConfig, "firing_rates", (0.01, 0.01))  # so narrow that a penalty counts
    begins = begun(words_of(run))
    before, settings = prepared(*begins[1:]), begins[0].model_dump(mode="json")
    sections = [section for section in settings.values() if isinstance(section, dict)]
    values = {name: value for section in sections for name, value in section.items()}
    silent, unnamed = [], []
    for flag in FLAGS:
        if run in OF_DATA and flag.section != "data":
            continue
        words = typed_flags(flag.name, values)
        try:
            begins = begun([*words_of(run), *words])
            if flag.name in UNSEEN or prepared(*begins[1:]) != before or fitted(begins, tmp_path) != unchanged(run):
                continue
            silent.append(" ".join(words))
        except SpikeserveError as error:
            if flag.name != "dataset" and not re.search(rf"{flag.text}\b|\b{flag.name}\b", str(error)):
                unnamed.append(f"{' '.join(words)}: {error}")
    assert (silent, unnamed) == ([], [])
