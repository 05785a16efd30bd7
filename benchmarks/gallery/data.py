"""Data that is drawn: event cameras, sounds and series of values, each by a seed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
SIDE, STEPS, STEP_US = 16, 32, 10_000  # of the camera: pixels a side, and the steps of a recording
MOVES = ("left", "right", "up", "down", "clockwise", "counterclockwise", "grows", "shrinks")
BANDS, FRAMES = 16, 64  # of a sound's spectrum: bands, and frames of 8 ms
RATE, FRAME = 8000, 64  # samples a second, and of a frame
# Each word is some syllables: the pitch at their beginnings and ends, relative to the speaker's.
WORDS = {
    "rise": ((1.0, 2.0),),
    "fall": ((2.0, 1.0),),
    "hill": ((1.0, 2.0), (2.0, 1.0)),
    "steps": ((1.0, 1.0), (1.5, 1.5), (2.0, 2.0)),
    "twice": ((1.5, 1.5), (1.5, 1.5)),
    "trill": ((1.2, 1.8), (1.8, 1.2), (1.2, 1.8), (1.8, 1.2)),
}


def gestures(folder: Path, each: int = 60, seed: int = 0) -> None:
    """Write recordings of a square that moves, turns, grows or shrinks before a camera: .npy files in class folders.

    An event is a pixel that the square enters (p 1) or leaves (p 0), at a random time of the step; one event in ten is
    noise.
    """
    random = np.random.default_rng(seed)
    for move in MOVES:
        home = folder / move
        home.mkdir(parents=True)
        for number in range(each):
            np.save(home / f"{number:03}.npy", _recording(move, random))


def _recording(move: str, random: np.random.Generator) -> Array:
    time = np.linspace(-1, 1, STEPS + 1)
    x, y, size = np.zeros_like(time), np.zeros_like(time), np.full_like(time, random.uniform(2, 3.5))
    speed = random.uniform(0.6, 1.0)
    match move:
        case "left" | "right":
            x = 8 * speed * time * (1 if move == "right" else -1)
        case "up" | "down":
            y = 8 * speed * time * (1 if move == "down" else -1)
        case "clockwise" | "counterclockwise":
            angle = np.pi * (random.uniform(0, 2) + 1.2 * speed * time * (1 if move == "clockwise" else -1))
            x, y = 4.5 * np.cos(angle), 4.5 * np.sin(angle)
        case _:
            size = 1 + 5 * speed * (1 + time if move == "grows" else 1 - time) / 2
    column, row = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    centre = SIDE / 2 - 0.5 + random.uniform(-1.5, 1.5, 2)
    seen = [
        (abs(column - centre[0] - x[at]) < size[at]) & (abs(row - centre[1] - y[at]) < size[at])
        for at in range(len(time))
    ]
    found = []
    for step in range(STEPS):
        for polarity, changed in enumerate((seen[step] & ~seen[step + 1], ~seen[step] & seen[step + 1])):
            rows, columns = changed.nonzero()
            found += [(step, at_x, at_y, polarity) for at_x, at_y in zip(columns, rows, strict=True)]
    noise = random.integers(0, (STEPS, SIDE, SIDE, 2), (len(found) // 10, 4))
    step, at_x, at_y, polarity = np.concatenate([np.array(found), noise]).T
    events = np.empty(len(step), [("t", "<i8"), ("x", "<u2"), ("y", "<u2"), ("p", "u1")])
    events["t"], events["x"], events["y"], events["p"] = step * STEP_US, at_x, at_y, polarity
    events["t"] += random.integers(0, STEP_US, len(events))
    return np.sort(events, order="t")


def tones(file: Path, each: int = 120, seed: int = 0) -> None:
    """Write words of synthesised tones as the energies of BANDS bands in FRAMES frames: an .npz of (n, frames, bands).

    Speakers differ in pitch (200 to 500 Hz), pace, pauses and overtones; noise lies 10 to 30 dB below.
    """
    random = np.random.default_rng(seed)
    labels = [word for word in WORDS for _ in range(each)]
    x = np.stack([_bands(_sound(WORDS[word], random)) for word in labels]).astype(np.float32)
    np.savez_compressed(file, x=x, y=np.array(labels))


def _sound(syllables: tuple[tuple[float, float], ...], random: np.random.Generator) -> Array:
    base, length = random.uniform(200, 500), FRAMES * FRAME
    sound, at = np.zeros(length), int(random.uniform(0, 0.12) * length)
    pace, harmonics = random.uniform(0.85, 1.15), random.uniform(0, 0.6, 3)
    for first, last in syllables:
        size = int(pace * 0.6 * length / len(syllables))
        size = min(size, length - at)
        if size <= 0:
            break
        phase = 2 * np.pi * np.cumsum(base * np.geomspace(first, last, size)) / RATE
        tone = np.sin(phase) + sum(each * np.sin((2 + n) * phase) for n, each in enumerate(harmonics))
        sound[at : at + size] += tone * np.hanning(size)
        at += size + int(random.uniform(0.02, 0.08) * length)
    noise = random.standard_normal(length)
    loud = 10 ** (-random.uniform(10, 30) / 20)
    return random.uniform(0.3, 1) * (sound + loud * sound.std() * noise / noise.std())


def _bands(sound: Array) -> Array:
    frames = sound.reshape(FRAMES, FRAME) * np.hanning(FRAME)
    power = abs(np.fft.rfft(frames, 4 * FRAME)) ** 2
    edges = np.geomspace(4, power.shape[1] - 1, BANDS + 1).astype(int)
    energies = np.stack([power[:, a : max(b, a + 1)].mean(1) for a, b in itertools.pairwise(edges)], 1)
    return np.round(np.log10(energies + 1e-3) + 3, 3)


def series(file: Path, each: int = 150, seed: int = 0) -> None:
    """Write the series of Saito (1994): a cylinder, a bell or a funnel in noise, 128 values each."""
    random = np.random.default_rng(seed)
    time = np.arange(128)
    shapes: dict[str, Callable[[Array], Array]] = {
        "cylinder": np.ones_like,
        "bell": lambda part: part,
        "funnel": lambda part: 1 - part,
    }
    x, y = [], []
    for name, shape in shapes.items():
        for _ in range(each):
            begin = random.integers(16, 33)
            end = begin + random.integers(32, 97)
            part = np.clip((time - begin) / (end - begin), 0, 1)
            inside = (time >= begin) & (time <= end)
            x.append(inside * (6 + random.standard_normal()) * shape(part) + random.standard_normal(128))
            y.append(name)
    np.savez_compressed(file, x=np.round(np.array(x, np.float32)[..., np.newaxis], 3), y=np.array(y))
