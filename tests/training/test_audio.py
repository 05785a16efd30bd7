"""Audio to spikes: a tone is heard in its band, and a rise and a fall are spikes worked out by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikeserve.models.spec import Coding
from spikeserve.training.config import DataConfig, NetworkConfig, TrainingConfig
from spikeserve.training.data.audio import AudioToSpikes, crossings, read_wav
from spikeserve.training.data.datasets import Dataset, load
from spikeserve.training.errors import InvalidData
from spikeserve.training.fit.job import architecture_for
from tests.contracts.datasets import RATE, tone, write_wav


def test_a_band_spikes_up_and_down_where_its_level_has_moved_by_the_threshold() -> None:
    # Threshold 4, one band. 3 is too little. 9 is two thresholds above 0: up, and the reference is 8. 5 is 3 below it.
    # 4 is a whole threshold below: down, and the reference is 4. 16 is three above: up, 16. 1 is three below: down, 4.
    levels = np.array([[3.0], [9], [5], [4], [16], [1]])
    assert crossings(levels, 4).T.tolist() == [[0, 1, 0, 0, 1, 0], [0, 0, 0, 1, 0, 1]]


@pytest.mark.parametrize("hertz", [200, 500, 1000, 2500])
def test_a_tone_is_loudest_in_the_band_of_its_frequency(hertz: float) -> None:
    encoding = AudioToSpikes()
    levels = encoding.levels(tone(hertz, 0.2), RATE)
    lowest, highest = (2595 * np.log10(1 + f / 700) for f in (80, 4000))
    middles = np.linspace(lowest, highest, 42)[1:-1]
    nearest = int(np.abs(middles - 2595 * np.log10(1 + hertz / 700)).argmin())
    assert abs(int(levels[5].argmax()) - nearest) <= 1
    assert levels.max() == pytest.approx(encoding.floor)


def test_a_tone_after_silence_is_up_spikes_and_its_end_down_spikes() -> None:
    signal = np.concatenate([np.zeros(1600), tone(1000, 0.2), np.zeros(1600)])  # 0.2 s of each
    raster = AudioToSpikes().raster(signal, RATE)
    up, down = raster[:, :40].sum(axis=1), raster[:, 40:].sum(axis=1)
    assert not raster[:16].any()  # no frame of 32 ms that begins before 0.168 s hears the tone
    assert up[16:21].sum() > 5
    assert down[21:37].sum() < up[16:21].sum()  # the tone is steady
    assert down[37:41].sum() > 5  # frames of 32 ms that begin from 0.37 s on hear its end
    assert not raster[41:].any()


def test_loudness_does_not_matter_and_silence_has_no_spikes() -> None:
    signal = np.concatenate([tone(300, 0.1), tone(1500, 0.1)])
    encoding = AudioToSpikes()
    np.testing.assert_array_equal(encoding.raster(signal, RATE), encoding.raster(signal / 64, RATE))
    assert not encoding.raster(np.zeros(800), RATE).any()
    assert encoding.raster(np.zeros(10), RATE).shape == (1, 80)  # shorter than a frame


@pytest.mark.parametrize(("width", "channels", "within"), [(1, 1, 0.02), (2, 1, 1e-4), (4, 1, 1e-6), (2, 2, 1e-4)])
def test_a_wav_file_gives_back_its_signal(tmp_path: Path, width: int, channels: int, within: float) -> None:
    write_wav(tmp_path / "a.wav", tone(440, 0.05), width=width, channels=channels)
    signal, rate = read_wav(tmp_path / "a.wav")
    assert rate == RATE
    np.testing.assert_allclose(signal, tone(440, 0.05), atol=within)


@pytest.mark.parametrize(
    ("signal", "rate", "bits", "sentence"),
    [
        (np.zeros(0), RATE, 16, "holds no sound"),
        (np.zeros(61 * 100), 100, 16, "lasts 61 seconds, expected at most 60"),
        (np.zeros(9), RATE, 24, "has 24 bits, expected 8, 16 or 32"),
    ],
)
def test_a_wav_file_that_cannot_be_used_gets_one_sentence(
    tmp_path: Path, signal: Any, rate: int, bits: int, sentence: str
) -> None:
    write_wav(path := tmp_path / "a.wav", signal, rate)
    content = path.read_bytes()
    path.write_bytes(content[:34] + bytes([bits]) + content[35:])  # where its header says how wide samples are
    with pytest.raises(InvalidData, match=rf"a\.wav': {sentence}"):
        read_wav(path)


def read(folder: Path, **config: Any) -> Dataset:
    return load(DataConfig(dataset="spoken-digits", folder=folder, **config), Coding.SPIKES)


@pytest.mark.parametrize("place", [".", "recordings", "free-spoken-digit-dataset/recordings"])
def test_the_official_split_tests_on_the_recordings_0_to_4(tmp_path: Path, place: str) -> None:
    for number in range(15):
        for digit in (0, 7):
            write_wav(tmp_path / place / f"{digit}_jackson_{number}.wav", tone(300 + 100 * digit, 0.2 + 0.01 * number))
    data = read(tmp_path)
    assert data.test.labels.tolist() == [0] * 5 + [7] * 5
    # The longest lasts 0.34 s: 1 + ceil((340 - 32) / 10) = 32 steps.
    assert data.test.samples.shape == (10, 32, 80)
    expected = AudioToSpikes().raster(*read_wav(tmp_path / place / "7_jackson_3.wav"))
    np.testing.assert_array_equal(data.test.samples[8, : len(expected)], expected)
    assert not data.test.samples[8, len(expected) :].any()
    assert (data.dt, len(data.class_names)) == (0.01, 10)
    config = TrainingConfig(network=NetworkConfig(coding=Coding.SPIKES, architecture="8R"))
    assert architecture_for(config, data).spec.dt == 0.01
    # Steps are as long and as many as the user says.
    assert read(tmp_path, window=5000).test.samples.shape[1] == 63  # 1 + ceil(308 / 5)
    assert read(tmp_path, max_steps=20).test.samples.shape[1] == 20
    for path in [*(tmp_path / place).glob("?_jackson_[5-9].wav"), *(tmp_path / place).glob("?_jackson_1?.wav")]:
        path.unlink()
    with pytest.raises(InvalidData, match="holds only one part of the Free Spoken Digit Dataset"):
        read(tmp_path)
