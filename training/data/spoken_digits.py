"""The Free Spoken Digit Dataset: 3,000 recordings of the digits by six speakers.

https://github.com/Jakobovski/free-spoken-digit-dataset

The user brings a copy (CC BY-SA 4.0): the folder of files `{digit}_{speaker}_{index}.wav`, or one that holds it as
`recordings`. The official split is kept: the recordings 0 to 4 of each speaker and digit are the test set. Audio
becomes spikes as training/data/audio.py says, in steps of `window` microseconds (10,000), of which the first
`max_steps` are kept (100, a second; one recording in a hundred lasts longer).
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from spikeserve.models.spec import Coding, Input
from spikeserve.training.config import DataConfig
from spikeserve.training.data.audio import AudioToSpikes, read_wav
from spikeserve.training.data.dataset import DIGITS, Dataset, Split
from spikeserve.training.data.normalise import method_for
from spikeserve.training.data.splits import hold_out
from spikeserve.training.errors import InvalidData

NAME = re.compile(r"(\d)_([A-Za-z]+)_(\d+)\.wav")
TEST_INDICES = 5  # of each speaker and digit
WINDOW = 10_000  # microseconds
MAX_STEPS = 100
FOLDERS = (".", "recordings", "free-spoken-digit-dataset/recordings")


def spoken_digits(config: DataConfig, coding: Coding) -> Dataset:
    """Read the recordings below the configured folder and encode them as spikes; raises InvalidData."""
    if coding is not Coding.SPIKES:
        raise InvalidData(f"coding: is '{coding}', but dataset '{config.dataset}' becomes spikes, expected spikes")
    method_for(config, coding)
    window, most = config.window or WINDOW, config.max_steps or MAX_STEPS
    encoding = AudioToSpikes(step=window * 1e-6)
    recordings = _recordings(config.folder)
    rasters = [encoding.raster(*read_wav(path))[:most] for path, _, _ in recordings]
    steps = max(map(len, rasters))
    samples = np.zeros((len(recordings), steps, encoding.channels), np.uint8)
    for sample, raster in zip(samples, rasters, strict=True):
        sample[: len(raster)] = raster
    whole = Split(samples, np.array([digit for _, digit, _ in recordings], np.int64))
    is_test = np.array([index < TEST_INDICES for _, _, index in recordings])
    others = whole[~is_test]
    kept, held_out = hold_out(others.labels, config.validation_share, config.split_seed, "validation")
    declared = Input(shape=(encoding.channels,), low=0, high=1)
    return Dataset("spoken-digits", declared, DIGITS, others[kept], others[held_out], whole[is_test], dt=window * 1e-6)


def _recordings(folder: Path) -> list[tuple[Path, int, int]]:
    """Return each recording's path, digit and index, in order of their names."""
    for place in FOLDERS:
        matches = [(path, NAME.fullmatch(path.name)) for path in sorted((folder / place).glob("*.wav"))]
        files = [(path, int(match[1]), int(match[3])) for path, match in matches if match]
        if files:
            break
    else:
        raise InvalidData(
            f"folder: '{folder}' holds no recordings of the Free Spoken Digit Dataset, expected files such as "
            "7_jackson_32.wav, there or in 'recordings'"
        )
    if not any(index < TEST_INDICES for _, _, index in files) or all(index < TEST_INDICES for _, _, index in files):
        raise InvalidData(
            f"folder: '{folder}' holds only one part of the Free Spoken Digit Dataset, expected the recordings 0 to 4 "
            "of each speaker to test on and others to train on"
        )
    return files
