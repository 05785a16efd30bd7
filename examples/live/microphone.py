"""Stream a microphone's sound as spikes of mel bands, or a .wav file's, and print a line for each window.

    python -m examples.live.microphone --model digits-spoken              # needs the package sounddevice
    python -m examples.live.microphone --model digits-spoken --wav seven.wav

The spikes are those that training makes of recordings (training/data/audio.py): a band's up or down channel spikes
where its level crosses a threshold. A recording's levels are relative to its loudest band; as a microphone's loudest
sound has not come yet, they are here relative to the loudest so far, and to `--loudest` at least.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeserve import Client, SpikeserveError
from spikeserve.training.data.audio import AudioToSpikes, Signal, mel_filters, read_wav
from spikeserve.training.errors import InvalidData

RATE = 16_000  # samples per second of the microphone
BLOCK_SECONDS = 0.05  # of sound that come at once


class LiveEncoder:
    """Makes spikes of sound while it comes. It keeps the sound that the next frame needs, and each band's reference."""

    def __init__(self, encoding: AudioToSpikes, rate: int, loudest: float) -> None:
        self.encoding, self.loudest = encoding, loudest  # energy of a band
        self.size, self.hop = round(encoding.frame * rate), round(encoding.step * rate)
        highest = min(encoding.highest, rate / 2)
        self.filters = mel_filters(encoding.bands, encoding.lowest, highest, self.size, rate).T
        self.kept: Signal = np.zeros(0)
        self.reference = np.zeros(encoding.bands)
        self.step = 0

    def events(self, sound: Signal) -> dict[str, NDArray[np.int64]]:
        """Return the events of all steps that `sound` completes: `t` in microseconds, and `unit`, a channel each."""
        self.kept = np.concatenate([self.kept, sound])
        times, units = [], []
        while len(self.kept) >= self.size:
            power = np.abs(np.fft.rfft(self.kept[: self.size] * np.hanning(self.size))) ** 2
            moves = self._moves(power @ self.filters)
            channels = np.flatnonzero(np.concatenate([moves > 0, moves < 0]))
            units.append(channels)
            times.append(np.full(len(channels), self.time))
            self.kept = self.kept[self.hop :]
            self.step += 1
        none = np.zeros(0, np.int64)
        return {"t": np.concatenate([none, *times]), "unit": np.concatenate([none, *units])}

    def _moves(self, energy: Signal) -> Signal:
        """Return by how many thresholds each band's reference moves."""
        self.loudest = max(self.loudest, float(energy.max()))
        smallest = (self.loudest or 1.0) * 10 ** (-self.encoding.floor / 10)
        levels = 10 * np.log10(np.maximum(energy, smallest) / smallest)
        moves: Signal = np.trunc((levels - self.reference) / self.encoding.threshold)
        self.reference += moves * self.encoding.threshold
        return moves

    @property
    def time(self) -> int:
        """When the next step begins, in microseconds."""
        return round(self.step * self.encoding.step * 1e6)


def spikes(blocks: Iterable[Signal], encoder: LiveEncoder) -> Iterator[Any]:
    """Yield what a stream is sent: a start at time 0, and the events and the time of each block."""
    yield 0
    for block in blocks:
        yield encoder.events(block)
        yield encoder.time


def of_wav(signal: Signal, rate: int) -> Iterator[Signal]:
    """Yield a signal in blocks, and silence for its last frame."""
    block = round(BLOCK_SECONDS * rate)
    padded = np.pad(signal, (0, round(AudioToSpikes.frame * rate)))
    yield from (padded[start : start + block] for start in range(0, len(padded), block))


def of_microphone() -> Iterator[Signal]:
    """Yield a microphone's sound, until the process is interrupted."""
    import sounddevice

    with sounddevice.InputStream(RATE, channels=1, dtype="float32") as stream:
        while True:
            sound, _ = stream.read(round(BLOCK_SECONDS * RATE))
            yield sound[:, 0].astype(np.float64)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--wav", type=Path, help="a file in place of the microphone")
    parser.add_argument("--url", default="http://localhost:8000")
    parser.add_argument("--key", help="the server's API key, where it has any")
    parser.add_argument("--model", help="by default the server's own")
    parser.add_argument("--loudest", type=float, default=1.0, help="the energy of a band that counts as loud")
    parser.add_argument("--decay", type=float, default=0.9, help="how much a window counts for the next one")
    chosen = parser.parse_args()
    encoding = AudioToSpikes()
    step_us = round(encoding.step * 1e6)
    try:
        signal, rate = read_wav(chosen.wav) if chosen.wav else (np.zeros(0), RATE)
        blocks = of_wav(signal, rate) if chosen.wav else of_microphone()
        source = spikes(blocks, LiveEncoder(encoding, rate, chosen.loudest))
        with Client(chosen.url, chosen.key, chosen.model) as client:
            for window in client.stream(source, step_us=step_us, window_steps=10, scores="decay", decay=chosen.decay):
                print(f"{window.t / 1e6:.1f} s: {window.events} events, {window.label}")
    except (SpikeserveError, InvalidData) as error:
        parser.exit(1, f"{error}\n")
    except ImportError as error:
        parser.exit(1, f"the microphone is read by the package sounddevice: pip install sounddevice ({error})\n")
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
