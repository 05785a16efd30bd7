"""Audio to spikes: a tone is heard in its band, and a rise and a fall are spikes worked out by hand."""

import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikeserve.models.spec import Coding
from spikeserve.training.config import DataConfig, NetworkConfig, TrainingConfig
from spikeserve.training.data.audio import AudioToSpikes, crossings, mel_filters, read_wav
from spikeserve.training.data.datasets import Dataset, load
from spikeserve.training.errors import InvalidData
from spikeserve.training.fit.job import architecture_for

RATE = 8000


def tone(hertz: float, seconds: float, rate: int = RATE) -> Any:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def write_wav(path: Path, signal: Any, rate: int = RATE, width: int = 2, channels: int = 1) -> None:
    """Write a signal from -1 to 1 as a wav file of `width` bytes a sample, the same in each channel."""
    largest = 2 ** (8 * width - 1)
    values = np.round(np.clip(signal, -1, 1) * (largest - 1)) + (128 if width == 1 else 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(np.repeat(values, channels).astype(f"<{'u' if width == 1 else 'i'}{width}").tobytes())


def test_a_band_spikes_up_and_down_where_its_level_has_moved_by_the_threshold() -> None:
    # Threshold 4, one band. 3 is too little. 9 is two thresholds above 0: up, and the reference is 8. 5 is 3 below it.
    # 4 is a whole threshold below: down, and the reference is 4. 16 is three above: up, 16. 1 is three below: down, 4.
    levels = np.array([[3.0], [9], [5], [4], [16], [1]])
    assert crossings(levels, 4).T.tolist() == [[0, 1, 0, 0, 1, 0], [0, 0, 0, 1, 0, 1]]


def test_filters_are_triangles_between_the_middles_of_their_neighbours() -> None:
    filters = mel_filters(10, 0, 4000, 256, RATE)  # frequencies of the spectrum are 31.25 Hz apart
    assert filters.shape == (10, 129)
    top = filters.argmax(axis=1) * 31.25
    mel = 2595 * np.log10(1 + top / 700)
    np.testing.assert_allclose(np.diff(mel), 2146 / 11, atol=45)  # 4,000 Hz are 2,146 mel, in eleven parts
    inner = filters[:, 8:105].sum(axis=0)  # from the first middle to the last, what one filter loses the next one has
    np.testing.assert_allclose(inner, 1, atol=1e-9)


def test_a_filter_between_two_frequencies_of_the_spectrum_is_not_deaf() -> None:
    filters = mel_filters(80, 0, 4000, 64, RATE)  # 125 Hz apart, and the lowest filters 20 Hz wide
    assert (filters.sum(axis=1) > 0).all()


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


def test_a_recording_has_a_step_for_each_frame_at_any_rate() -> None:
    for rate in (8000, 16_000, 44_100):
        # 0.5 s hold 1 + ceil((500 - 32) / 10) = 48 frames that begin every 10 ms.
        assert AudioToSpikes().raster(tone(440, 0.5, rate), rate).shape == (48, 80)


@pytest.mark.parametrize(("width", "channels", "within"), [(1, 1, 0.02), (2, 1, 1e-4), (4, 1, 1e-6), (2, 2, 1e-4)])
def test_a_wav_file_gives_back_its_signal(tmp_path: Path, width: int, channels: int, within: float) -> None:
    write_wav(tmp_path / "a.wav", tone(440, 0.05), width=width, channels=channels)
    signal, rate = read_wav(tmp_path / "a.wav")
    assert rate == RATE
    np.testing.assert_allclose(signal, tone(440, 0.05), atol=within)


def test_a_wav_file_that_cannot_be_used_gets_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"RIFF")
    with pytest.raises(InvalidData, match=r"a\.wav': cannot be read as a wav file"):
        read_wav(path)
    write_wav(path, np.zeros(0))
    with pytest.raises(InvalidData, match="holds no sound"):
        read_wav(path)
    write_wav(path, np.zeros(61 * 100), rate=100)
    with pytest.raises(InvalidData, match="lasts 61 seconds, expected at most 60"):
        read_wav(path)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(3)
        file.setframerate(RATE)
        file.writeframes(bytes(30))
    with pytest.raises(InvalidData, match="has 24 bits, expected 8, 16 or 32"):
        read_wav(path)


def read(folder: Path, coding: Coding = Coding.SPIKES, **config: Any) -> Dataset:
    return load(DataConfig(dataset="spoken-digits", folder=folder, **config), coding)


def digits_of(folder: Path, indices: range = range(15)) -> Path:
    """Write recordings of two digits, whose tones tell them apart, in the names of the real ones."""
    for digit in (0, 7):
        for index in indices:
            write_wav(folder / f"{digit}_jackson_{index}.wav", tone(300 + 100 * digit, 0.2 + 0.01 * index))
    return folder


@pytest.mark.parametrize("place", [".", "recordings", "free-spoken-digit-dataset/recordings"])
def test_the_official_split_tests_on_the_recordings_0_to_4(tmp_path: Path, place: str) -> None:
    digits_of(tmp_path / place)
    data = read(tmp_path)
    assert (len(data.training), len(data.validation), len(data.test)) == (18, 2, 10)
    assert data.test.labels.tolist() == [0] * 5 + [7] * 5
    # The longest lasts 0.34 s: 1 + ceil((340 - 32) / 10) = 32 steps.
    assert data.test.samples.shape == (10, 32, 80)
    signal, rate = read_wav(tmp_path / place / "7_jackson_3.wav")
    expected = AudioToSpikes().raster(signal, rate)
    np.testing.assert_array_equal(data.test.samples[8, : len(expected)], expected)
    assert not data.test.samples[8, len(expected) :].any()
    assert (data.declared.shape, data.dt, len(data.class_names)) == ((80,), 0.01, 10)


def test_the_network_of_a_run_knows_how_long_its_steps_last(tmp_path: Path) -> None:
    config = TrainingConfig(network=NetworkConfig(coding=Coding.SPIKES, architecture="8R"))
    assert architecture_for(config, read(digits_of(tmp_path))).spec.dt == 0.01


def test_steps_are_as_long_and_as_many_as_the_user_says(tmp_path: Path) -> None:
    folder = digits_of(tmp_path)
    assert read(folder, window=5000).test.samples.shape[1] == 63  # 1 + ceil(308 / 5)
    assert read(folder, max_steps=20).test.samples.shape[1] == 20


def test_a_folder_without_the_recordings_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=r"holds no recordings of the Free Spoken Digit Dataset, expected files such"):
        read(tmp_path)
    digits_of(tmp_path, range(4))
    with pytest.raises(InvalidData, match="holds only one part of the Free Spoken Digit Dataset"):
        read(tmp_path)
    with pytest.raises(InvalidData, match="coding: is 'direct', but dataset 'spoken-digits' becomes spikes, expected"):
        read(tmp_path, Coding.DIRECT)
