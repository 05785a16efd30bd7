"""Warnings about samples and labels: leaks, test samples that are training samples, values taken for classes."""

from __future__ import annotations

import numpy as np

from spikeserve.models.spec import Input
from spikeserve.training.data.dataset import Split

JUDGED = 8  # samples of each class at least: of fewer, a column may tell the classes apart by chance
MANY = 20  # classes: more of them that are floats are rather measured values


def oddities(training: Split, test: Split, declared: Input, *, of_floats: bool) -> tuple[str, ...]:
    """Return a sentence for each: many classes of floats, a column that tells the classes apart, shared samples."""
    sentences = []
    if (classes := len(np.unique(training.labels))) > MANY and of_floats:
        sentences.append(f"y: its whole numbers are taken for {classes} classes: fit learns classes, not values")
    if leaks := _leaks(training):
        name = f"column '{declared.feature_names[leaks[0]]}'" if declared.feature_names else f"feature {leaks[0]} of x"
        others = f" (and so do {len(leaks) - 1} others)" if leaks[1:] else ""
        sentences.append(f"{name} alone tells the classes apart{others}: leave it out unless a client knows it")
    known = {hash(sample.tobytes()) for sample in training.samples}
    if twins := sum(hash(sample.tobytes()) in known for sample in test.samples):
        sentences.append(f"x: {twins} of {len(test)} test samples are training samples too, which flatters accuracy")
    return tuple(sentences)


def _leaks(training: Split) -> list[int]:
    """Return the features of samples (n, features) whose values in one class all lie below those in the next."""
    classes = [training.samples[training.labels == label] for label in np.unique(training.labels)]
    if training.samples.ndim != 2 or min(map(len, classes)) < JUDGED:
        return []
    low, high = (np.stack([end(samples, axis=0) for samples in classes]) for end in (np.min, np.max))
    order = low.argsort(axis=0)  # (classes, features)
    gaps = np.take_along_axis(low, order, 0)[1:] - np.take_along_axis(high, order, 0)[:-1]
    return [int(feature) for feature in np.flatnonzero((gaps > 0).all(axis=0))]
