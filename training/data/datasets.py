"""The data sets: raw samples with integer labels, and their split into training, validation and test.

digits          scikit-learn's 8×8 handwritten digits, 1797 of them, values 0 to 16; shipped with scikit-learn
mnist           28×28 digits, values 0 to 255; the user's own copy, or downloaded with --download
fashion-mnist   28×28 garments, likewise
arrays          a user's .npz with x and y: values (n, *shape), or spikes (n, time, *shape)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from models.spec import Coding, Input
from models.spec.network import FloatArray
from models.spec.parameters import show
from training.config import DataConfig
from training.errors import InvalidData

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """One split of a data set: raw samples (n, *shape), or spikes (n, time_steps, *shape), and class indices (n,)."""

    samples: FloatArray
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, chosen: Any) -> Split:
        """Return some of the samples."""
        return Split(self.samples[chosen], self.labels[chosen])


@dataclass(frozen=True)
class Dataset:
    """A data set: its three splits, the declaration of its input, and the classes' names."""

    name: str
    declared: Input
    class_names: tuple[str, ...]
    training: Split
    validation: Split
    test: Split


def load(config: DataConfig, coding: Coding) -> Dataset:
    """Load and split a data set; raises InvalidData, with one sentence, for data that cannot be trained on."""
    try:
        loader = LOADERS[config.dataset]
    except KeyError:
        raise InvalidData(f"dataset: '{config.dataset}' is not one, expected {', '.join(LOADERS)}") from None
    return loader(config, coding)


def _digits(config: DataConfig, _: Coding) -> Dataset:
    digits = load_digits()
    images = digits.images.astype(np.float32)[:, np.newaxis]
    # Sixteenths, not fractions of the largest value: sums of them are exact in float32.
    declared = Input(shape=(1, 8, 8), low=0, high=16, scale=1 / 16)
    return _divide("digits", declared, Split(images, digits.target.astype(np.int64)), _names(10), config)


def _names(classes: int) -> tuple[str, ...]:
    return tuple(str(index) for index in range(classes))


def _mnist(config: DataConfig, _: Coding) -> Dataset:
    return _torchvision("MNIST", _names(10), config)


def _fashion_mnist(config: DataConfig, _: Coding) -> Dataset:
    names = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
    return _torchvision("FashionMNIST", names, config)


def _torchvision(kind: str, names: tuple[str, ...], config: DataConfig) -> Dataset:
    from torchvision import datasets  # imported here since it takes a second and the other data sets do not need it

    parts = []
    for train in (True, False):
        try:
            part = getattr(datasets, kind)(config.folder, train=train, download=config.download)
        except (RuntimeError, OSError) as error:
            raise InvalidData(
                f"dataset: {kind} is not in '{config.folder / kind / 'raw'}' and could not be had ({error}); "
                "put its four idx files there or pass --download"
            ) from error
        images = part.data.numpy().astype(np.float32)[:, np.newaxis]
        parts.append(Split(images, part.targets.numpy().astype(np.int64)))
    # 256ths, not 255ths: sums of them are exact in float32.
    declared = Input(shape=(1, 28, 28), low=0, high=255, scale=1 / 256)
    training, validation = _hold_out(parts[0], config.validation_share, config.split_seed, "validation")
    return Dataset(kind.lower(), declared, names, training, validation, parts[1])


def _arrays(config: DataConfig, coding: Coding) -> Dataset:
    if config.file is None:
        raise InvalidData("file: not given, and dataset 'arrays' needs the path of an .npz with x and y")
    samples, raw_labels = _read_npz(config.file)
    spikes = coding is Coding.SPIKES
    if not samples.size:
        raise InvalidData(f"x: holds no sample, its shape is {show(samples.shape)}")
    if samples.ndim < (3 if spikes else 2):
        expected = "(n, time, …)" if spikes else "(n, …)"
        raise InvalidData(f"x: shape is {show(samples.shape)}, expected {expected} with coding '{coding}'")
    names, labels = _classes(raw_labels, len(samples))
    low = float(samples.min()) if config.low is None else config.low
    high = float(samples.max()) if config.high is None else config.high
    if samples.min() < low or samples.max() > high:
        raise InvalidData(
            f"x: values go from {samples.min():g} to {samples.max():g}, outside low {low:g} to high {high:g}"
        )
    if low >= high:
        raise InvalidData(f"x: every value is {low:g}, so there is nothing to tell samples apart by")
    scale = 1.0 if spikes else 1 / (high - low)
    declared = Input(
        shape=samples.shape[2:] if spikes else samples.shape[1:],
        low=low,
        high=high,
        scale=scale,
        offset=0.0 if spikes else -low * scale,
    )
    return _divide(config.file.stem, declared, Split(samples, labels), names, config)


def _read_npz(path: Path) -> tuple[FloatArray, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("x", "y") if name in file.files}
    except (OSError, ValueError, EOFError) as error:
        raise InvalidData(f"file: '{path}' cannot be read as an .npz of numbers: {error}") from error
    for name in ("x", "y"):
        if name not in arrays:
            raise InvalidData(f"file: '{path}' holds no '{name}', expected x and y")
    samples = arrays["x"]
    if samples.dtype.kind not in "biuf":
        raise InvalidData(f"x: type is {samples.dtype}, expected numbers")
    samples = samples.astype(np.float32)
    if not np.isfinite(samples).all():
        where = tuple(int(index) for index in np.argwhere(~np.isfinite(samples))[0])
        raise InvalidData(f"x: the value at {where} is {samples[where]}, expected finite numbers")
    return samples, arrays["y"]


def _classes(labels: NDArray[Any], samples: int) -> tuple[tuple[str, ...], Labels]:
    """Return the classes' names in order and each sample's index into them."""
    if labels.shape != (samples,):
        raise InvalidData(f"y: shape is {show(labels.shape)}, expected {samples} labels as x has that many samples")
    if labels.dtype.kind not in "iuU":
        raise InvalidData(f"y: type is {labels.dtype}, expected integers (or strings) that name the classes")
    names, indices = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        raise InvalidData(f"y: holds {len(names)} class, expected at least 2")
    return tuple(str(name) for name in names), indices.astype(np.int64)


def _divide(name: str, declared: Input, whole: Split, names: tuple[str, ...], config: DataConfig) -> Dataset:
    rest, test = _hold_out(whole, config.test_share, config.split_seed, "test")
    training, validation = _hold_out(rest, config.validation_share, config.split_seed, "validation")
    return Dataset(name, declared, names, training, validation, test)


def _hold_out(whole: Split, share: float, seed: int, name: str) -> tuple[Split, Split]:
    """Split off a share of the samples, stratified by class; a seed always gives the same split."""
    try:
        kept, held = train_test_split(
            np.arange(len(whole)), test_size=share, random_state=seed, stratify=whole.labels, shuffle=True
        )
    except ValueError as error:
        raise InvalidData(
            f"{name} split: {share:g} of {len(whole)} samples cannot hold every class in proportion: {error}"
        ) from error
    return whole[kept], whole[held]


LOADERS: dict[str, Callable[[DataConfig, Coding], Dataset]] = {
    "digits": _digits,
    "mnist": _mnist,
    "fashion-mnist": _fashion_mnist,
    "arrays": _arrays,
}
