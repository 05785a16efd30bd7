"""`spikeserve batch` writes what the server answers, each part once, and says what does not fit."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikeserve.models.bundle.repository import PRETRAINED, ModelRepository
from spikeserve.models.coding.records import make_records
from spikeserve.models.engines import create
from spikeserve.models.spec import Spec
from spikeserve.service.errors import Misconfigured
from spikeserve.service.settings import Settings
from spikeserve.training.data.datasets import Split
from spikeserve.training.report.evaluate import evaluate
from tests.bundles import publish, rewrite
from tests.networks import network_of, task
from tests.plugins.ray.processes import actors
from tests.plugins.ray.stateful import STEPS, UNITS, recurrent
from tests.serving import ROOT, serving
from tests.storage import s3

pytest.importorskip("ray", reason="Ray is not installed: ./scripts/test-ray")

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSelector
from sklearn.datasets import load_digits

from spikeserve.plugins.local.model import read_bundle
from spikeserve.plugins.ray.__main__ import main
from spikeserve.plugins.ray.job import UNFINISHED, Job, Predictor
from spikeserve.plugins.ray.parts import LAST, inputs, place

DIGITS = PRETRAINED / "digits/1"
COLUMNS = ("class_index", "label", "spike_counts", "synaptic_operations")


@pytest.fixture(scope="module")
def samples() -> np.ndarray[Any, Any]:
    return load_digits().data[:300].astype(np.float32)


@pytest.fixture(scope="module")
def files(samples: np.ndarray[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same samples in every form."""
    folder = tmp_path_factory.mktemp("files")
    np.savez(folder / "plain.npz", x=samples, y=np.zeros(len(samples)))
    np.savez_compressed(folder / "compressed.npz", data=samples.reshape(-1, 1, 8, 8))
    (folder / "below").mkdir()
    np.save(folder / "below/array.npy", samples.astype(np.float64))
    pq.write_table(pa.table({"x": list(samples)}), folder / "flat.parquet", row_group_size=64)
    nested = [each.reshape(1, 8, 8).tolist() for each in samples]
    pq.write_table(pa.table({"samples": nested, "id": list(range(len(samples)))}), folder / "nested.parquet")
    return folder


def rows(output: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the predictions of each input, in the order of its samples."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in output.glob("*.parquet"):
        for row in pq.read_table(path).to_pylist():
            found.setdefault(row["input"], []).append(row)
    for each in found.values():
        each.sort(key=lambda row: row["sample"])
    return found


def answered(folder: Path, bodies: list[Any]) -> list[dict[str, Any]]:
    """Return the server's predictions for bodies, JSON or bytes."""
    with serving(folder.parents[1]) as client:
        predictions = []
        for body in bodies:
            given = {"content": body} if isinstance(body, bytes) else {"json": body}
            kind = {"content-type": "application/octet-stream"} if isinstance(body, bytes) else {}
            answer = client.post(f"/models/{folder.parent.name}/predict", headers=kind, **given)
            assert answer.status_code == 200, answer.text
            predictions += answer.json()["predictions"]
    return predictions


def differing(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> int:
    assert len(found) == len(expected)
    return sum(one[name] != other[name] for one, other in zip(found, expected, strict=True) for name in COLUMNS)


@pytest.mark.usefixtures("cluster")
def test_every_form_of_input_gives_the_predictions_of_the_server_and_of_evaluate(
    files: Path, samples: np.ndarray[Any, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [str(DIGITS), str(files), "--output", str(tmp_path / "out"), "--part-samples", "200", "--actors", "2"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert said.startswith("5 files, 0 of them done before\n")
    assert said.endswith("1500 samples predicted, 10 parts\n")  # 200 samples of each file, and then 100
    found = rows(tmp_path / "out")
    assert found.keys() == {"plain.npz", "compressed.npz", "below/array.npy", "flat.parquet", "nested.parquet"}
    expected = answered(DIGITS, [{"inputs": samples.tolist()}])
    assert {name: differing(each, expected) for name, each in found.items()} == dict.fromkeys(found, 0)

    network = ModelRepository(PRETRAINED).read("digits", 1).network
    split = Split(samples.reshape(-1, *network.spec.input.shape), np.zeros(300, np.int64))
    evaluation = evaluate(create("reference", network), split)
    assert evaluation.spike_counts.tolist() == [row["spike_counts"] for row in found["plain.npz"]]
    assert evaluation.synaptic_operations.tolist() == [row["synaptic_operations"] for row in found["plain.npz"]]
    (first, *_) = (tmp_path / "out").glob("plain*")
    says = pq.read_schema(first).metadata
    assert (says[b"model"], says[b"version"]) == (b"digits", b"1")
    assert says[b"bundle"].decode() == read_bundle(DIGITS, Settings()).digest

    # A second run does what is missing, and nothing else.
    before = {each: each.stat().st_mtime_ns for each in (tmp_path / "out").iterdir()}
    lost = min(before)
    lost.unlink()
    (tmp_path / "out/.unfinished-1").touch()
    capsys.readouterr()
    assert main(command) == 0
    said = capsys.readouterr().out
    assert said.startswith("5 files, 4 of them done before\n")
    assert said.endswith(" samples predicted, 1 parts\n")
    after = {each: each.stat().st_mtime_ns for each in (tmp_path / "out").iterdir()}
    assert after.keys() == before.keys()
    assert {each for each in after if after[each] != before[each]} == {lost}
    assert rows(tmp_path / "out") == found
    assert main(command) == 0  # and a third does nothing
    assert capsys.readouterr().out == "5 files, 5 of them done before\n"

    changed = tmp_path / "digits/1"
    shutil.copytree(DIGITS, changed)
    rewrite(changed, lambda manifest: manifest.update(name="others"))
    for other in ([*command, "--time-steps", "4"], [*command, "--seed", "1"], [str(changed), *command[1:]]):
        assert main(other) == 1
        assert "of other inputs, another bundle or other settings, expected an empty folder" in capsys.readouterr().err


@pytest.mark.usefixtures("cluster")
def test_recordings_give_what_the_server_answers_to_their_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository, folder = tmp_path / "repository", tmp_path / "recordings"
    publish(repository, recurrent(), "net")
    folder.mkdir()
    rng = np.random.default_rng(3)
    for index in range(4):
        step, unit = (rng.random((STEPS, UNITS)) < 0.3).nonzero()
        t = (step - step[0]) * 1000
        (folder / f"{index}.events").write_bytes(make_records(t, unit).tobytes())
        structured = np.zeros(len(t), [("t", "<i8"), ("unit", "<i4")])
        structured["t"], structured["unit"] = t, unit
        np.save(folder / f"{index}-structured.npy", structured)
        np.savez(folder / f"{index}-fields.npz", t=t, unit=unit)
        lines = ["t,unit", *(f"{time},{place}" for time, place in zip(t, unit, strict=True))]
        (folder / f"{index}-text.csv").write_text("\n".join(lines))
    (folder / "broken.events").write_bytes(b"123")
    bundle = repository / "net/1"
    assert main([str(bundle), str(folder), "--output", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert said.out.endswith("16 samples predicted, 16 parts\n")
    assert "refused: 'broken.events', counted from sample 0: the body has 3 bytes, expected 8 for each eve" in said.err
    found = rows(tmp_path / "out")
    expected = answered(bundle, [(folder / f"{index}.events").read_bytes() for index in range(4)])
    assert sum(sum(each["spike_counts"]) for each in expected) > 10
    for index in range(4):
        for form in (".events", "-structured.npy", "-fields.npz", "-text.csv"):
            assert differing(found[f"{index}{form}"], [expected[index]]) == 0


@pytest.mark.usefixtures("cluster")
def test_an_actor_that_is_killed_costs_no_part(files: Path, tmp_path: Path) -> None:
    bundle = read_bundle(DIGITS, Settings())
    job = Job(DIGITS, bundle.digest, bundle.task, *place(str(tmp_path)), Settings(threads=1), 10)
    sources, done = inputs([str(files)], "job"), []
    for each in job.run(sources, 2, ()):
        done.append(each["output"])
        if len(done) == 5:
            os.kill(min(actors()), signal.SIGKILL)
    assert len(set(done)) == len(done) == 150
    assert {each.output(29, LAST) for each in sources} <= {*done}
    assert sorted(len(each) for each in rows(tmp_path).values()) == [300] * 5


def test_files_and_predictions_may_lie_at_urls(files: Path, samples: np.ndarray[Any, Any], tmp_path: Path) -> None:
    with s3(tmp_path / "cache") as url:
        fsspec.filesystem("s3").put(str(files / "plain.npz"), f"{url}/in/below/plain.npz")
        bundle, (system, folder) = read_bundle(DIGITS, Settings()), place(f"{url}/out")
        job = Job(DIGITS, bundle.digest, bundle.task, system, folder, Settings(threads=1), 200)
        (source,) = inputs([f"{url}/in"], "job")
        assert source.name == "below/plain.npz"
        done = [Predictor(job)(part) for part in job.read({"file": source}, ())]
        assert [each["samples"] for each in done] == [200, 100]
        names = [each.base_name for each in system.get_file_info(FileSelector(folder))]
        assert names == [source.output(0), source.output(1, LAST)]
        assert list(job.read({"file": source}, names)) == []
        assert sum(pq.read_table(f"{folder}/{name}", filesystem=system).num_rows for name in names) == len(samples)


# A file may have 4 KiB: the kernel ends the process that writes more, unless the signal is ignored, as Python does.
KILLED = """
import resource, signal, sys
import pyarrow as pa
from pyarrow.fs import LocalFileSystem
from spikeserve.plugins.ray.job import write_whole

signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
write_whole(pa.table({"sample": list(range(100_000))}), LocalFileSystem(), sys.argv[1], "part.parquet")
"""


def test_a_part_whose_process_is_killed_while_it_writes_has_no_file_of_its_name(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED, tmp_path], cwd=ROOT, check=False)
    assert ended.returncode == -signal.SIGXFSZ
    (left,) = tmp_path.iterdir()
    assert left.stat().st_size == 4096
    assert left.name.startswith(UNFINISHED)


def test_a_bundle_that_changes_while_a_job_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="has changed since the job began, expected it as it was"):
        Predictor(Job(DIGITS, "another", read_bundle(DIGITS, Settings()).task, *place(str(tmp_path)), Settings(), 1))


def test_an_address_at_which_no_cluster_answers_is_refused_at_once(files: Path, tmp_path: Path) -> None:
    with socket.socket() as bound:  # nothing listens there, and nobody else can
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        command = [str(DIGITS), str(files), "--output", str(tmp_path / "out"), "--address", address]
        ended = subprocess.run(
            [sys.executable, "-m", "spikeserve.plugins.ray", *command],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    said = f"error: address: no Ray cluster is at '{address}': [Errno 111] Connection refused\n"
    assert (ended.returncode, ended.stderr) == (1, said)
    assert not (tmp_path / "out").exists()


def test_a_bundle_that_is_not_there_is_named(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "digits/1"), str(files), "--output", str(tmp_path / "out")]) == 1
    assert f"error: bundle: '{tmp_path}/digits/1' is no bundle's folder" in capsys.readouterr().err


def task_of(values: int) -> Spec:
    """Return the spec of a network of so many inputs."""
    return network_of([{"type": "IF", "name": "out"}], {}, **task(values, 3, values)).spec


def test_a_compressed_file_is_read_a_part_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "zeros.npz"  # 128 MiB of samples
    np.savez_compressed(path, x=np.zeros((2**15, 1024), np.float32))
    (source,), spec = inputs([str(path)], "job"), task_of(1024)
    tracemalloc.start()
    sizes = [len(part["body"]) for part in source.parts(spec, 10**6, 2**24)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(sizes) > 2**27
    assert max(sizes) <= 2**24 + 128  # of the header
    assert peak < 6 * 2**24  # of more than 8


names = count()


def write(folder: Path, suffix: str, content: Any) -> Path:
    path = folder / f"{next(names)}{suffix}"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif suffix == ".parquet":
        pq.write_table(pa.table(content), path)
    elif suffix == ".npz":
        np.savez(path, **content)
    else:
        np.save(path, content, allow_pickle=True)
    return path


@pytest.mark.parametrize(
    ("suffix", "content", "sentence"),
    [
        (".npz", {"y": np.zeros(3)}, "it holds y, expected one of x, data, samples, inputs"),
        (".npz", b"PK nothing" * 9, "File is not a zip file"),
        (".npy", np.array(["a", {}], object), "Python objects"),
        (".npy", np.zeros((4, 2)).T, "its array is in Fortran order, expected C order"),
        (".parquet", {"y": [1.0]}, "it holds y, expected one of x, data, samples, inputs"),
        (".parquet", b"PAR1", "Parquet"),
    ],
)
def test_a_file_that_is_none_of_samples_is_refused_by_a_sentence(
    suffix: str, content: Any, sentence: str, tmp_path: Path
) -> None:
    path = write(tmp_path, suffix, content)
    (source,) = inputs([str(path)], "job")
    (part,) = source.parts(read_bundle(DIGITS, Settings()).task, 10, 2**24)
    assert part["refused"].startswith(f"'{path.name}': ")
    assert sentence in part["refused"]
    assert "\n" not in part["refused"]


def wrong() -> Iterator[tuple[str, Any, str]]:
    yield ".npy", np.full((3, 64), 17.0), "counted from sample 0: inputs[0][0][0][0] is 17, expected 0 to 16"
    yield ".npy", np.zeros((3, 65)), "the body is an array of shape 3×65, expected samples×1×8×8, or one"
    yield ".parquet", {"x": [[1.0] * 64, [1.0]]}, "can only be casted to FixedSizeListType if the lists are all the exp"
    yield ".parquet", {"x": [[1.0] * 64, None]}, "the body is an array of shape 2×32, expected samples×1×8×8, or one"
    yield ".parquet", {"x": [[1.0] * 64, [None] * 64]}, "counted from sample 0: inputs[1][0][0][0] is nan, expected"
    yield ".parquet", {"x": ["a"]}, "the body is an .npy of Python objects, expected numbers"
    yield ".events", b"12345678", "the body is event records, but model 'digits' does not say how recorded events"


@pytest.mark.usefixtures("cluster")
def test_samples_that_do_not_fit_are_refused_by_a_sentence_and_the_others_are_predicted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    sentences = []
    for suffix, content, sentence in wrong():
        sentences.append(f"{write(folder, suffix, content).name}'")
        sentences.append(sentence)
    right = write(folder, ".npy", np.zeros((3, 64)))
    assert main([str(DIGITS), str(folder), "--output", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert [sentence for sentence in sentences if sentence not in told] == []
    assert told.endswith("error: 7 parts were refused, expected none; run the command again\n")
    assert rows(tmp_path / "out").keys() == {right.name}
