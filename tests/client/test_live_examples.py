"""Each example of live input runs against a real server, from the command line, as its first lines say."""

import re
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.live.microphone import LiveEncoder, of_wav
from spikeserve import Client
from spikeserve.training.data.audio import AudioToSpikes, mel_filters, read_wav
from tests.client.conftest import SIZE
from tests.serving import ROOT, Process


def command(example: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"examples.live.{example}", *arguments]


def run(example: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(example, *arguments), cwd=ROOT, capture_output=True, text=True, check=False)


def camera_events(count: int = 600) -> dict[str, Any]:
    """Events at 100 µs each: off for 30 ms, then on; no two at one place and step."""
    at = np.arange(count)
    return {"t": 1000 + 100 * at, "x": at % SIZE, "y": at // SIZE % SIZE, "p": (at >= count // 2).astype(int)}


def told(output: str) -> list[tuple[int, str]]:
    return [(int(events), label) for events, label in re.findall(r"s: (\d+) events, (\w+)", output)]


def test_a_recorded_file_is_replayed(service: Process, tmp_path: Path) -> None:
    given = camera_events()
    rows = np.column_stack([given[name] for name in ("t", "x", "y", "p")])
    np.savetxt(tmp_path / "events.csv", rows, "%d", ",", header="t,x,y,p", comments="")
    done = run("replay", str(tmp_path / "events.csv"), "--url", service.url, "--model", "camera", "--speed", "10")
    assert done.stderr == ""
    found = told(done.stdout)
    with Client(service.url, model="camera") as client:
        expected = [(each.events, each.label) for each in client.stream(given)]
    assert found == expected
    assert found[-1] == (100, "first")  # 300 of each; of equal classes, it is the first
    assert [events for events, _ in found] == [100] * 6


def test_a_file_that_cannot_be_replayed_is_one_sentence(service: Process, tmp_path: Path) -> None:
    done = run("replay", str(tmp_path / "none.csv"), "--url", service.url)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "none.csv' cannot be read as CSV" in done.stderr


def write_wav(path: Path, signal: np.ndarray[Any, Any], rate: int) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((signal * 32767).astype("<i2").tobytes())


def chirp(rate: int = 8000) -> np.ndarray[Any, Any]:
    """Half a second that rises from 200 to 2,600 Hz."""
    t = np.arange(rate // 2) / rate
    return 0.8 * np.sin(2 * np.pi * (200 * t + 2400 * t**2))


def test_a_microphones_spikes_are_those_that_training_makes_once_the_loudest_is_known(tmp_path: Path) -> None:
    write_wav(tmp_path / "chirp.wav", chirp(), 8000)
    signal, rate = read_wav(tmp_path / "chirp.wav")
    encoding = AudioToSpikes()
    expected = encoding.raster(signal, rate)
    size, hop = round(encoding.frame * rate), round(encoding.step * rate)
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(signal, (0, size)), size)[::hop] * np.hanning(size)
    filters = mel_filters(encoding.bands, encoding.lowest, encoding.highest, size, rate)
    loudest = float((np.abs(np.fft.rfft(frames)) ** 2 @ filters.T).max())
    encoder = LiveEncoder(encoding, rate, loudest)
    raster = np.zeros((len(expected) + 9, encoding.channels), np.uint8)
    for block in of_wav(signal, rate):
        found = encoder.events(block)
        raster[found["t"] // 10_000, found["unit"]] = 1
    assert expected.sum() > 100
    np.testing.assert_array_equal(raster[: len(expected)], expected)


def test_a_wav_file_is_streamed_as_a_microphone_is(service: Process, tmp_path: Path) -> None:
    write_wav(tmp_path / "chirp.wav", chirp(), 8000)
    done = run("microphone", "--wav", str(tmp_path / "chirp.wav"), "--url", service.url, "--model", "sound")
    assert done.stderr == ""
    found = told(done.stdout)
    assert len(found) == 6  # windows of a tenth of a second; the last frame reaches beyond the sound
    assert found[0][1] == "first"  # sound begins: up channels
    assert sum(events for events, _ in found) > 100


def test_without_a_microphone_it_says_what_is_missing(service: Process) -> None:
    program = "import sys; sys.modules['sounddevice'] = None; from examples.live.microphone import main; main()"
    arguments = ["--url", service.url, "--model", "sound"]
    done = subprocess.run([sys.executable, "-c", program, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install sounddevice" in done.stderr


def write_es(folder: Path) -> Path:
    """Write the camera's events as an Event Stream file, by faery."""
    faery = pytest.importorskip("faery", reason="faery is not installed here: it is of the extra 'events'")
    given = camera_events()
    events = np.zeros(len(given["t"]), faery.EVENTS_DTYPE)
    events["t"], events["x"], events["y"], events["on"] = given["t"], given["x"], given["y"], given["p"]
    faery.events_stream_from_array(events, (SIZE, SIZE)).to_file(folder / "events.es")
    return folder / "events.es"


@pytest.mark.parametrize(("form", "flags"), [("t32_x16_y15_on1", []), ("t64_x16_y16_on8", ["--long"])])
def test_what_faery_sends_arrives(service: Process, tmp_path: Path, form: str, flags: list[str]) -> None:
    given, file = camera_events(), write_es(tmp_path)
    arguments = [*flags, "--port", "0", "--idle", "2", "--url", service.url, "--model", "camera"]
    bridge = command("from_faery", *arguments)
    with subprocess.Popen(bridge, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().rpartition(" ")[2])
        words = f"input file {file} output udp 127.0.0.1:{port} --format {form} --no-progress"
        subprocess.run([sys.executable, "-m", "faery", *words.split()], check=True)
        output, errors = process.communicate(timeout=60)
    assert errors == ""
    with Client(service.url, model="camera") as client:
        assert told(output) == [(each.events, each.label) for each in client.stream(given)]
