"""Audio to spikes: a mel filter bank, and a spike wherever the level of a band crosses a threshold, up or down.

1. The signal is cut into frames of `frame` seconds, one every `step` seconds, under a Hann window.
2. Each frame's power spectrum is summed by triangular filters that are equally wide on the mel scale (O'Shaughnessy
   1987: 2595 * log10(1 + f / 700)), and taken in decibels below the loudest band of the recording, down to `floor`.
3. Level crossing (delta modulation): each band has a reference level, which begins at the floor. Where the level is
   `threshold` decibels or more above the reference, the band's up channel spikes, and below it the down channel; the
   reference then moves towards the level by as many whole thresholds as lie between them.

So a recording is a raster (steps, 2 * bands) of 0 and 1, up channels first, and loudness does not matter. Nothing is
random.
"""

from __future__ import annotations

import wave
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from spikeserve.training.errors import InvalidData
from spikeserve.training.files import require_plain

Signal: TypeAlias = NDArray[np.float64]

MAX_SECONDS = 60.0
MAX_BYTES = 2**28  # a minute of eight channels of 32 bits at 96 kHz has 184 million


@dataclass(frozen=True)
class AudioToSpikes:
    """The settings of the encoding: times in seconds, frequencies in hertz, levels in decibels."""

    bands: int = 40
    lowest: float = 80.0
    highest: float = 4000.0
    frame: float = 0.032
    step: float = 0.01
    floor: float = 40.0
    threshold: float = 4.0

    @property
    def channels(self) -> int:
        """The number of channels: one up and one down for each band."""
        return 2 * self.bands

    def raster(self, signal: Signal, rate: int) -> NDArray[np.uint8]:
        """Return a signal's spikes (steps, channels)."""
        return crossings(self.levels(signal, rate), self.threshold)

    def levels(self, signal: Signal, rate: int) -> Signal:
        """Return each band's level (steps, bands) in decibels above the floor, from 0 to `floor`."""
        size, hop = round(self.frame * rate), round(self.step * rate)
        frames = max(1, -(-max(0, len(signal) - size) // hop) + 1)
        padded = np.pad(signal, (0, max(0, (frames - 1) * hop + size - len(signal))))
        cut = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop][:frames]
        power = np.abs(np.fft.rfft(cut * np.hanning(size))) ** 2
        energy = power @ mel_filters(self.bands, self.lowest, min(self.highest, rate / 2), size, rate).T
        loudest = energy.max()
        if loudest == 0:
            return np.zeros_like(energy)
        smallest = loudest * 10 ** (-self.floor / 10)
        return 10 * np.log10(np.maximum(energy, smallest) / smallest)


def mel_filters(bands: int, lowest: float, highest: float, size: int, rate: int) -> Signal:
    """Return triangular filters (bands, size // 2 + 1) over the frequencies of a spectrum, equally wide in mel.

    A triangle that would lie between two frequencies of the spectrum is widened to the nearer one.
    """
    edges = _hertz(np.linspace(_mel(lowest), _mel(highest), bands + 2))
    frequencies = np.fft.rfftfreq(size, 1 / rate)
    low, middle, high = edges[:-2, np.newaxis], edges[1:-1, np.newaxis], edges[2:, np.newaxis]
    rising, falling = (frequencies - low) / (middle - low), (high - frequencies) / (high - middle)
    filters = np.maximum(0.0, np.minimum(rising, falling))
    nearest = np.abs(frequencies - middle).argmin(axis=1)
    empty = filters.sum(axis=1) == 0
    filters[empty, nearest[empty]] = 1.0
    return filters


def _mel(hertz: float) -> float:
    return float(2595 * np.log10(1 + hertz / 700))


def _hertz(mel: Signal) -> Signal:
    return 700 * (10 ** (mel / 2595) - 1)


def crossings(levels: Signal, threshold: float) -> NDArray[np.uint8]:
    """Return the spikes (steps, 2 * bands) of levels (steps, bands) that begin at 0: up channels first, then down."""
    steps, bands = levels.shape
    spikes = np.zeros((steps, 2 * bands), np.uint8)
    reference = np.zeros(bands)
    for step in range(steps):
        moves = np.trunc((levels[step] - reference) / threshold)
        reference += moves * threshold
        spikes[step, :bands], spikes[step, bands:] = moves > 0, moves < 0
    return spikes


def read_wav(path: Path) -> tuple[Signal, int]:
    """Return a wav file's signal, from -1 to 1, and its samples per second; raises InvalidData.

    Files of 8, 16 or 32 bits are read; several channels are averaged.
    """
    try:
        require_plain(path, MAX_BYTES)
        with wave.open(str(path), "rb") as file:
            channels, width, rate, frames, *_ = file.getparams()
            if frames > MAX_SECONDS * rate:
                raise InvalidData(f"'{path}': lasts {frames / rate:g} seconds, expected at most {MAX_SECONDS:g}")
            content = file.readframes(frames)
    except (OSError, EOFError, wave.Error) as error:
        raise InvalidData(f"'{path}': cannot be read as a wav file: {error}") from error
    if width not in (1, 2, 4):
        raise InvalidData(f"'{path}': has {8 * width} bits, expected 8, 16 or 32")
    whole = len(content) // (width * channels) * width * channels
    samples = np.frombuffer(content[:whole], f"<{'u' if width == 1 else 'i'}{width}").astype(np.float64)
    if not samples.size:
        raise InvalidData(f"'{path}': holds no sound")
    middle, largest = (128, 128) if width == 1 else (0, 2 ** (8 * width - 1))
    return ((samples - middle) / largest).reshape(-1, channels).mean(axis=1), rate
