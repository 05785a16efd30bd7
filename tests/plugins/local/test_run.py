"""`spikeserve run`: what comes on standard input is answered as the server answers it."""

import io
import json
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikeserve.models.bundle.repository import PRETRAINED, ModelRepository
from tests.bundles import publish
from tests.contracts.ways import run as run_here
from tests.networks import network_of, task
from tests.service.http.recordings import COUNTS, camera, csv, npy
from tests.serving import ROOT, serving

GOLDEN = ModelRepository(PRETRAINED).read("digits").golden  # encoded: its currents are the pixels, normalised
RECORD = [("t", "<u4"), ("x", "<u2"), ("y", "<u2")]


def run(content: bytes, *arguments: str, status: int = 0) -> list[Any]:
    """Run the command on some input; returns the lines that it writes, or after `status` 1 its sentence."""
    found, lines, sentence = run_here(["--format", "json", *arguments], content)
    assert (found, bool(sentence)) == (status, bool(status))
    return [sentence] if status else [json.loads(line) if line[0] == "{" else line for line in lines]


def digits(count: int) -> Any:
    """Return random images (count, 1, 8, 8) of whole numbers, which every engine sums exactly."""
    return np.random.default_rng(0).integers(0, 17, (count, 1, 8, 8)).astype(np.float32)


def test_lines_arrays_and_requests_have_the_same_answers_as_a_server() -> None:
    images = digits(200)  # more than one run takes
    with serving(PRETRAINED) as client:
        expected = client.post("/predict", json={"inputs": images.tolist()}).json()["predictions"]
    lines = "\n\n".join(json.dumps(image.tolist()) for image in images).encode()
    assert run(lines, "digits") == expected
    assert run(json.dumps({"inputs": images.reshape(200, 64).tolist()}).encode() + b"\n", "digits") == expected
    assert run(npy(images), "digits") == run(npy(images.reshape(200, 64)), str(PRETRAINED / "digits/1")) == expected
    assert run(npy(images[0]), "digits", "--engine", "reference") == expected[:1]


def test_a_table_has_a_row_for_each_sample() -> None:
    head, *rows = run(npy(digits(2)), "digits", "--format", "table")
    assert head.split() == ["answer", "probability", "operations"]
    assert [row.split()[:2] for row in rows] == [
        [str(n), each["label"]] for n, each in enumerate(run(npy(digits(2)), "digits"))
    ]


NOT_NUMBERS = np.array([[{}] * 64])
ONE = npy(np.zeros((1, 64)))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "input: it is empty, expected JSON lines, an .npy or a recording"),
        (b"\n\n" + json.dumps([0] * 63 + [17]).encode(), "line 3: sample[0][7][7] is 17, expected 0 to 16"),
        (b"[0],[0]\n", "line 1: sample has shape 1"),
        (b'[0]],"seed":1,"time_steps":9,"stop":null,"return":[],"x":[[0]\n', "line 1: "),
        (b"[" * 100, "line 1: "),
        (b"[0" + b",0" * 2**24, "line 1: has more than 16777216 bytes, expected at most as many (max_body_bytes)"),
        (npy(NOT_NUMBERS), "input: it is an .npy of Python objects, expected numbers"),
        (npy(np.array([["a"] * 64])), "input: it is an array of <U1, expected numbers"),
        (npy(17.0 * (np.arange(200) == 130)[:, np.newaxis] + np.zeros(64)), "input, from sample 128: inputs[2][0]"),
        (ONE.replace(b"(1, 64)", b"(9, 64)"), "input: its values end before sample 9 of 9"),
        (npy(np.zeros((1, 64))) + b"x", "input: more bytes follow its 1 samples, expected none"),
        (
            ONE.replace(b"(1, 64), }" + b" " * 13, b"(9, 999999999999999), }"),
            "input: a sample takes 7999999999999992 bytes, expected at most 16777216 (max_body_bytes)",
        ),
        (ONE[:20], "input: it is an .npy whose header has 118 bytes, expected at most 10 here"),
        (b"PK\x03\x04" + bytes(100), "input: it cannot be read as NPZ: File is not a zip file"),
        (npy(np.asfortranarray(np.zeros((2, 64)))), "input: its array is in Fortran order, expected C order"),
        (bytes(16), "input: it is event records, but model 'digits' does not say how recorded events become"),
    ],
)
def test_wrong_input_is_one_sentence_that_says_where(content: bytes, sentence: str) -> None:
    (said,) = run(content, "digits", "--engine", "reference", status=1)
    assert said.startswith(f"spikeserve: {sentence}")
    assert said.count("\n") == 1


def test_a_wrong_bundle_is_a_sentence() -> None:
    for bundle in ("../digits", "nothing", "/etc"):
        assert f"bundle: '{bundle}' is no bundle's folder" in run(ONE, bundle, status=1)[0]


def letter() -> Any:
    """Return event records of a letter that `braille` reads: its first example, a step each 5 ms."""
    steps, _, units = ModelRepository(PRETRAINED).read("braille").golden.inputs.steps[:, :1].nonzero()
    records = np.zeros(len(steps), RECORD)
    records["t"], records["x"] = 5000 * steps, units
    return records


def test_a_stream_has_a_line_for_each_window_and_ends_as_the_whole_run() -> None:
    records = letter()
    *windows, end = run(records.tobytes(), "braille", "--window", "64", "--step-us", "5000")
    assert [each["window"] for each in windows] == [0, 1, 2, 3]
    assert end == {"type": "end", "windows": 4, "events": len(records), "late": 0}
    message = {"type": "events", "t": records["t"].tolist(), "unit": records["x"].tolist()}
    *same, _ = run(json.dumps(message).encode(), "braille", "--window", "64", "--step-us", "5000")
    assert [each["scores"] for each in same] == [each["scores"] for each in windows]
    state = run(b'{"type": "state"}', "braille", "--window", "64", "--step-us", "5000")[0]["state"]
    first = json.dumps({"type": "state", "state": state}).encode() + b"\n"
    *same, _ = run(first + json.dumps(message).encode(), "braille", "--window", "64", "--step-us", "5000")
    assert [each["scores"] for each in same] == [each["scores"] for each in windows]
    for content, sentence in {
        records.tobytes()[:-3]: f"input: a message has {8 * len(records) - 3} bytes, expected 8 for each event",
        b'{"type": "stat"}': "input: message: type is 'stat', expected events, time, state or end",
        b"t,x,y,p\n1,2,3,0\n": "input: it is a file (CSV), expected event records or messages with --window",
    }.items():
        assert sentence in run(content, "braille", "--window", "64", "--step-us", "5000", status=1)[0]
    assert "--step-us" in run(records.tobytes(), "braille", "--window", "64", status=1)[0]


def test_values_whose_steps_lie_across_two_reads_are_those_of_their_steps(tmp_path: Path) -> None:
    fields = task(3, 1, 3, "current", low=0, high=1)
    publish(tmp_path, network_of([{"type": "IF", "name": "out"}], {}, **fields), "net")
    values = np.full((30_000, 3), [0.5, 0.25, 1], np.float32).tobytes()  # 12 bytes a step, of which no 2**16 are whole
    *windows, _ = run(values, str(tmp_path / "net/1"), "--window", "1000")
    assert windows[-1]["spike_counts"] == [15_000, 7_500, 30_000]
    assert len(windows) == 30


@pytest.mark.parametrize(
    ("times", "sentence"),
    [
        (npy(np.arange(4))[:-3], "it cannot be read as NPZ: EOF: reading array data"),
        (npy(np.arange(4)).replace(b"(4,), }" + b" " * 12, b"(4000000000000,), }"), "Unable to allocate"),
        (npy(np.arange(5)), "it: 5 t for 4 unit, expected as many of both"),
        (b"", "it cannot be read as NPZ: EOF: reading magic string"),
    ],
)
def test_a_packed_recording_that_lies_is_a_sentence(times: bytes, sentence: str) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("t.npy", times)
        archive.writestr("unit.npy", npy(np.arange(4)))
    (said,) = run(packed.getvalue(), "braille", status=1)
    assert said.startswith(f"spikeserve: input: {sentence}")
    assert said.count("\n") == 1


def test_a_recordings_file_is_answered_as_its_events(tmp_path: Path) -> None:
    publish(tmp_path, camera(), "camera")
    (answer,) = run(csv(), str(tmp_path / "camera/1"))
    assert {unit: count for unit, count in enumerate(answer["spike_counts"]) if count} == COUNTS
    t, x, y, p = np.loadtxt(io.BytesIO(csv()), delimiter=",", skiprows=1, dtype=np.int64).T
    np.savez(tmp_path / "packed.npz", t=t, x=x, y=y, p=p)
    assert run((tmp_path / "packed.npz").read_bytes(), str(tmp_path / "camera/1")) == [answer]
    said = "spikeserve: input: it cannot be read as CSV: "
    assert run(b"t,unit\n1,x\n", str(tmp_path / "camera/1"), status=1)[0].startswith(said)


def started(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "spikeserve", "run", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=options.pop("stdout", subprocess.PIPE), stderr=subprocess.PIPE
    )


def test_answers_come_while_input_does_and_the_end_of_a_pipe_or_ctrl_c_is_quiet() -> None:
    records = letter()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background ignores
    with started("braille", "--window", "16", "--step-us", "5000") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(records[records["t"] < 5000 * 20].tobytes())
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["window"] == 0  # while its input goes on
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        assert process.stderr.read() == b""
    with started("digits") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        line = json.dumps([0] * 64).encode() + b"\n"
        process.stdin.write(line)
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["spike_counts"]
        process.stdout.close()
        process.stdin.write(line)
        process.stdin.close()
        assert process.wait() == 141
        assert process.stderr.read() == b""


def test_a_full_disk_is_a_sentence_and_nothing_loads_torch() -> None:
    with Path("/dev/full").open("wb") as full, started("digits", stdout=full) as process:
        _, said = process.communicate(ONE)
    assert (process.returncode, said) == (1, b"spikeserve: 'standard output': No space left on device\n")
    program = "import sys, spikeserve.plugins.local.__main__; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "fastapi", "matplotlib"} & set(done.stdout.split())
