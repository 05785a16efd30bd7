"""Corrupt bundles of every kind: each is refused with a sentence, and what is served beside and before it goes on."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import structlog
from safetensors.numpy import load_file, save

from models.bundle import File
from models.bundle.repository import ModelRepository
from models.errors import InvalidBundle
from service.catalog.registry import Registry, scan
from service.errors import LoadFailed
from tests.bundles import publish, rehash, rewrite
from tests.networks import toy
from tests.service.asgi import Client, started

# At 1, the first of the toy's neurons reaches its threshold of 1 at each of the three steps and the second at none.
ASKED = {"inputs": [[1, 0]]}
COUNTS = [3, 0]

NOBODY = 65534  # a user who is not root, where the tests run as root


def truncated(folder: Path) -> None:
    weights = folder / File.WEIGHTS
    os.truncate(weights, weights.stat().st_size // 2)


def truncated_and_hashed(folder: Path) -> None:
    rehash(folder, File.WEIGHTS, (folder / File.WEIGHTS).read_bytes()[:-1])


def bit_flipped(folder: Path) -> None:
    content = bytearray((folder / File.WEIGHTS).read_bytes())
    content[-1] ^= 0x80
    (folder / File.WEIGHTS).write_bytes(content)


def wrong_hash(folder: Path) -> None:
    rewrite(folder, lambda manifest: manifest["files"].update({File.CARD: "0" * 64}))


def change_tensor(folder: Path, file: File, name: str, change: Callable[[Any], Any]) -> None:
    tensors = load_file(folder / file)
    tensors[name] = change(tensors[name])
    rehash(folder, file, save(tensors))


def wrong_shape(folder: Path) -> None:
    change_tensor(folder, File.WEIGHTS, "fc.weight", lambda weight: np.vstack([weight, weight]))


def nan_weights(folder: Path) -> None:
    change_tensor(folder, File.WEIGHTS, "fc.weight", lambda weight: weight * np.float32(np.nan))


def safetensors_header(folder: Path, header: bytes, values: bytes = b"") -> None:
    rehash(folder, File.WEIGHTS, len(header).to_bytes(8, "little") + header + values)


def terabytes_claimed(folder: Path) -> None:
    header = {"fc.weight": {"dtype": "F32", "shape": [2**20, 2**20], "data_offsets": [0, 2**42]}}
    safetensors_header(folder, json.dumps(header).encode())


def terabytes_of_holes(folder: Path) -> None:
    os.truncate(folder / File.WEIGHTS, 2**42)  # the disk gives no block to a hole, but whoever reads it gets all zeros


def terabytes_of_parameters(folder: Path) -> None:
    def widened(manifest: dict[str, Any]) -> None:
        manifest["spec"]["input"]["shape"] = [2**31 - 1]
        manifest["spec"]["nodes"][0]["in_features"] = 2**31 - 1

    rewrite(folder, widened)


def huge_manifest(folder: Path) -> None:
    os.truncate(folder / "bundle.json", 2**42)


def nested_manifest(folder: Path) -> None:
    (folder / "bundle.json").write_bytes(b"[" * 10**6)


def missing_file(folder: Path) -> None:
    (folder / File.GOLDEN).unlink()


def symlink_out(folder: Path) -> None:
    secret = folder.parents[2] / "secret.safetensors"
    (folder / File.WEIGHTS).rename(secret)
    (folder / File.WEIGHTS).symlink_to(secret)


def manifest_linked_out(folder: Path) -> None:
    secret = folder.parents[2] / "secret.json"
    (folder / "bundle.json").rename(secret)
    (folder / "bundle.json").symlink_to(secret)


def manifest_a_folder(folder: Path) -> None:
    (folder / "bundle.json").unlink()
    (folder / "bundle.json").mkdir()


def manifest_a_dangling_link(folder: Path) -> None:
    (folder / "bundle.json").unlink()
    (folder / "bundle.json").symlink_to("nowhere")


def manifest_a_pipe(folder: Path) -> None:
    (folder / "bundle.json").unlink()
    os.mkfifo(folder / "bundle.json")


def manifest_a_socket(folder: Path) -> None:
    (folder / "bundle.json").unlink()
    os.mknod(folder / "bundle.json", stat.S_IFSOCK)


def weights_a_pipe(folder: Path) -> None:
    (folder / File.WEIGHTS).unlink()
    os.mkfifo(folder / File.WEIGHTS)


def path_out(folder: Path) -> None:
    rewrite(folder, lambda manifest: manifest["files"].update({"../../../secret.json": "0" * 64}))


def unknown_schema_version(folder: Path) -> None:
    rewrite(folder, lambda manifest: manifest.update(schema_version=2))


def wrong_golden(folder: Path) -> None:
    change_tensor(folder, File.GOLDEN, "spike_counts", lambda counts: counts + 1)


def nan_golden_inputs(folder: Path) -> None:
    change_tensor(folder, File.GOLDEN, "inputs", lambda inputs: inputs * np.float32(np.nan))


def infinite_golden_inputs(folder: Path) -> None:
    change_tensor(folder, File.GOLDEN, "inputs", lambda inputs: inputs - np.float32(np.inf))


def infinite_golden_readout(folder: Path) -> None:
    change_tensor(folder, File.GOLDEN, "readout", lambda readout: readout + np.float32(np.inf))


def negative_golden_counts(folder: Path) -> None:
    change_tensor(folder, File.GOLDEN, "spike_counts", lambda counts: counts - 100)


def duplicate_field(folder: Path) -> None:
    manifest = folder / "bundle.json"
    manifest.write_text(manifest.read_text().replace('"producer"', '"name": "other", "producer"'))


def duplicate_nodes(folder: Path) -> None:
    rewrite(folder, lambda manifest: manifest["spec"]["nodes"].append(manifest["spec"]["nodes"][-1]))


def duplicate_tensors(folder: Path) -> None:
    entry = b'"fc.weight":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}'
    safetensors_header(folder, b"{%s,%s}" % (entry, entry), np.eye(2, dtype=np.float32).tobytes())


def empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.write_bytes(b"")


def empty_weights(folder: Path) -> None:
    rehash(folder, File.WEIGHTS, b"")


def no_golden_samples(folder: Path) -> None:
    tensors = load_file(folder / File.GOLDEN)
    tensors = {name: tensor[:, :0] if name == "inputs" else tensor[:0] for name, tensor in tensors.items()}
    rehash(folder, File.GOLDEN, save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}))


def golden_header(folder: Path, header: bytes, values: bytes = b"") -> None:
    rehash(folder, File.GOLDEN, len(header).to_bytes(8, "little") + header + values)


def golden_truncated_and_hashed(folder: Path) -> None:
    rehash(folder, File.GOLDEN, (folder / File.GOLDEN).read_bytes()[:-1])


def golden_terabytes_claimed(folder: Path) -> None:
    header = {"inputs": {"dtype": "F32", "shape": [1, 2**20, 2**20], "data_offsets": [0, 2**42]}}
    golden_header(folder, json.dumps(header).encode())


def golden_of_other_inputs(folder: Path) -> None:
    change_tensor(folder, File.GOLDEN, "inputs", lambda inputs: np.concatenate([inputs, inputs], axis=-1))


def golden_of_fewer_answers(folder: Path) -> None:
    change_tensor(folder, File.GOLDEN, "spike_counts", lambda counts: np.ascontiguousarray(counts[:-1]))


def golden_of_another_type(folder: Path) -> None:
    change_tensor(folder, File.GOLDEN, "spike_counts", lambda counts: counts.astype(np.int32))


def golden_nan_inputs(folder: Path) -> None:
    change_tensor(folder, File.GOLDEN, "inputs", lambda inputs: inputs * np.float32(np.nan))


def golden_nan_readout(folder: Path) -> None:
    change_tensor(folder, File.GOLDEN, "readout", lambda readout: readout * np.float32(np.nan))


def golden_wrong_readout(folder: Path) -> None:
    change_tensor(folder, File.GOLDEN, "readout", lambda readout: readout + 1)


def golden_without_answers(folder: Path) -> None:
    rehash(folder, File.GOLDEN, save({"inputs": load_file(folder / File.GOLDEN)["inputs"]}))


def golden_duplicate_tensors(folder: Path) -> None:
    content = (folder / File.GOLDEN).read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size].decode().rstrip()
    again = json.dumps({"inputs": json.loads(header)["inputs"]})
    golden_header(folder, f"{again[:-1]},{header[1:]}".encode(), content[8 + size :])


def golden_not_listed(folder: Path) -> None:
    rewrite(folder, lambda manifest: manifest["files"].pop(File.GOLDEN))


def weights_missing_a_tensor(folder: Path) -> None:
    rehash(folder, File.WEIGHTS, save({}))


def weights_of_too_many_tensors(folder: Path) -> None:
    tensors = load_file(folder / File.WEIGHTS)
    rehash(folder, File.WEIGHTS, save(tensors | {"other.weight": np.zeros(1, np.float32)}))


def weights_of_another_type(folder: Path) -> None:
    change_tensor(folder, File.WEIGHTS, "fc.weight", lambda weight: weight.astype(np.float64))


def infinite_weights(folder: Path) -> None:
    change_tensor(folder, File.WEIGHTS, "fc.weight", lambda weight: weight + np.float32(np.inf))


def manifest_truncated(folder: Path) -> None:
    os.truncate(folder / "bundle.json", (folder / "bundle.json").stat().st_size // 2)


def manifest_bit_flipped(folder: Path) -> None:
    content = bytearray((folder / "bundle.json").read_bytes())
    content[0] ^= 0x80
    (folder / "bundle.json").write_bytes(content)


def schema_version_as_text(folder: Path) -> None:
    rewrite(folder, lambda manifest: manifest.update(schema_version="1"))


def no_schema_version(folder: Path) -> None:
    rewrite(folder, lambda manifest: manifest.update(schema_version=None))


def of_another_version(folder: Path) -> None:
    rewrite(folder, lambda manifest: manifest.update(version=7))


def of_another_model(folder: Path) -> None:
    rewrite(folder, lambda manifest: manifest.update(name="other"))


def onnx_truncated_and_hashed(folder: Path) -> None:
    rehash(folder, File.ONNX_MODEL, (folder / File.ONNX_MODEL).read_bytes()[:-20])


def onnx_that_is_none(folder: Path) -> None:
    rehash(folder, File.ONNX_MODEL, b"\x80\x04\x95.")  # as a pickle begins


def onnx_empty_and_hashed(folder: Path) -> None:
    rehash(folder, File.ONNX_MODEL, b"")


REAL = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)  # of weights that are added up in either


def onnx_of_other_weights(folder: Path) -> None:
    model = onnx.load_model_from_string((folder / File.ONNX_MODEL).read_bytes())
    for tensor in model.graph.initializer:
        if tensor.data_type in REAL and len(tensor.dims) == 2:
            values = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(-values, tensor.name))
    rehash(folder, File.ONNX_MODEL, model.SerializeToString())


def onnx_with_weights_elsewhere(folder: Path) -> None:
    # A graph may say that a tensor's values lie in another file: here one outside of the repository.
    secret = folder.parents[2] / "secret.bin"
    secret.write_bytes(np.eye(2).tobytes())
    model = onnx.load_model_from_string((folder / File.ONNX_MODEL).read_bytes())
    for tensor in model.graph.initializer:
        if tensor.data_type in REAL and list(tensor.dims) == [2, 2]:
            length = onnx.numpy_helper.to_array(tensor).nbytes
            onnx.external_data_helper.set_external_data(tensor, str(secret), offset=0, length=length)
            tensor.ClearField("raw_data")
            tensor.ClearField("float_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
    rehash(folder, File.ONNX_MODEL, model.SerializeToString())


def cut_short(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def mishashed(file: Path) -> None:
    rewrite(file.parent, lambda manifest: manifest["files"].update({file.name: "0" * 64}))


def linked_out(file: Path) -> None:
    outside = file.parents[3] / file.name
    file.rename(outside)
    file.symlink_to(outside)


def of_holes(file: Path) -> None:
    os.truncate(file, 2**42)


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


# What can befall each file alike, with what is then said of it.
BEFALL: dict[Callable[[Path], None], str] = {
    cut_short: "its sha256 is ",
    flipped: "its sha256 is ",
    emptied: "its sha256 is ",
    mishashed: "its sha256 is ",
    Path.unlink: "missing from the bundle",
    linked_out: "is a symbolic link, expected a file of the bundle's own",
    of_holes: f"has {2**42} bytes, expected at most ",
    a_folder: "is not a file",
    a_pipe: "is not a file",
}


def befallen(damage: Callable[[Path], None], file: File) -> Callable[[Path], None]:
    def corrupt(folder: Path) -> None:
        damage(folder / file)

    corrupt.__name__ = f"{file}_{damage.__name__}"
    return corrupt


CORRUPT: dict[Callable[[Path], None], str] = {
    truncated: "weights.safetensors: its sha256 is ",
    truncated_and_hashed: "weights.safetensors: not a safetensors file: ",
    bit_flipped: "weights.safetensors: its sha256 is ",
    wrong_hash: "card.md: its sha256 is ",
    wrong_shape: "weights.safetensors: tensor 'fc.weight': its shape is 4×2, but the spec needs 2×2",
    nan_weights: "weights.safetensors: tensor 'fc.weight': holds NaN or infinite values, expected finite ones",
    terabytes_claimed: "weights.safetensors: not a safetensors file: ",
    terabytes_of_holes: f"weights.safetensors: has {2**42} bytes, expected at most {2**31}",
    terabytes_of_parameters: "bundle.json: node 'input': its shape of 2147483647 takes ",
    huge_manifest: f"bundle.json: has {2**42} bytes, expected at most {2**24}",
    nested_manifest: "bundle.json: Invalid JSON: recursion limit exceeded",
    missing_file: "golden.safetensors: missing from the bundle",
    symlink_out: "weights.safetensors: is a symbolic link, expected a file of the bundle's own",
    manifest_linked_out: "bundle.json: is a symbolic link, expected a file of the bundle's own",
    manifest_a_folder: "bundle.json: is not a file",
    manifest_a_dangling_link: "bundle.json: is a symbolic link, expected a file of the bundle's own",
    manifest_a_pipe: "bundle.json: is not a file",
    manifest_a_socket: "bundle.json: cannot be read: ",
    weights_a_pipe: "weights.safetensors: is not a file",
    path_out: "bundle.json: files.../../../secret.json",
    unknown_schema_version: "bundle.json: schema_version: input should be 1, got 2",
    wrong_golden: "golden.safetensors: sample 0 gives spike counts ",
    nan_golden_inputs: "golden.safetensors: 'inputs' holds NaN or infinite values, expected finite ones",
    infinite_golden_inputs: "golden.safetensors: 'inputs' holds NaN or infinite values, expected finite ones",
    infinite_golden_readout: "golden.safetensors: 'readout' holds NaN or infinite values, expected finite ones",
    negative_golden_counts: "golden.safetensors: 'spike_counts' holds -100, expected at least 0",
    duplicate_field: "bundle.json: says 'name' twice in one object, expected each name once",
    duplicate_nodes: "bundle.json: spec: node 'out': another node, or the network's input, has that name already",
    duplicate_tensors: "weights.safetensors: says 'fc.weight' twice in one object, expected each name once",
    empty: "bundle.json: Invalid JSON: EOF while parsing",
    empty_weights: "weights.safetensors: not a safetensors file: ",
    no_golden_samples: "golden.safetensors: ",
    golden_truncated_and_hashed: "golden.safetensors: not a safetensors file: ",
    golden_terabytes_claimed: "golden.safetensors: not a safetensors file: ",
    golden_of_other_inputs: "golden.safetensors: 'inputs' has shape ",
    golden_of_fewer_answers: "golden.safetensors: 'spike_counts' has shape ",
    golden_of_another_type: "golden.safetensors: lacks 'spike_counts' of type int64",
    golden_nan_inputs: "golden.safetensors: ",
    golden_nan_readout: "golden.safetensors: 'readout' holds NaN or infinite values, expected finite ones",
    golden_wrong_readout: "golden.safetensors: sample 0 reads out ",
    golden_without_answers: "golden.safetensors: lacks 'spike_counts' of type int64",
    golden_duplicate_tensors: "golden.safetensors: says 'inputs' twice in one object, expected each name once",
    golden_not_listed: "golden.safetensors: not listed in bundle.json, and a bundle needs it",
    weights_missing_a_tensor: "weights.safetensors: ",
    weights_of_too_many_tensors: "weights.safetensors: ",
    weights_of_another_type: "weights.safetensors: ",
    infinite_weights: "weights.safetensors: tensor 'fc.weight': holds NaN or infinite values, expected finite ones",
    manifest_truncated: "bundle.json: Invalid JSON: EOF while parsing",
    manifest_bit_flipped: "bundle.json: Invalid JSON: ",
    schema_version_as_text: "bundle.json: schema_version: input should be 1, got '1'",
    no_schema_version: "bundle.json: schema_version: input should be 1, got None",
    of_another_version: "bundle.json: ",
    of_another_model: "bundle.json: ",
    **{befallen(damage, file): f"{file}: {sentence}" for file in File for damage, sentence in BEFALL.items()},
}

# What only the engine finds that runs the graph.
CORRUPT_ON_ONNX: dict[Callable[[Path], None], str] = {
    onnx_truncated_and_hashed: "model.onnx: ",
    onnx_that_is_none: "model.onnx: ",
    onnx_empty_and_hashed: "model.onnx: ",
    onnx_of_other_weights: "golden.safetensors: sample ",
    onnx_with_weights_elsewhere: "model.onnx: ",
}


async def answers_as_ever(client: Client) -> None:
    answer = await client.post(ASKED, "/models/toy/predict")
    assert (answer.status, answer.json["version"]) == (200, 1)
    assert answer.json["predictions"][0]["spike_counts"] == COUNTS


@pytest.mark.parametrize("corrupt", CORRUPT, ids=lambda corrupt: corrupt.__name__)
@pytest.mark.anyio
async def test_a_corrupt_bundle_is_refused_with_a_sentence_while_the_rest_serves(
    repository: Path, corrupt: Callable[[Path], None]
) -> None:
    await is_refused(repository, corrupt, CORRUPT[corrupt], "event")


@pytest.mark.parametrize("corrupt", CORRUPT_ON_ONNX, ids=lambda corrupt: corrupt.__name__)
@pytest.mark.anyio
async def test_a_corrupt_graph_is_refused_with_a_sentence_while_the_rest_serves(
    repository: Path, corrupt: Callable[[Path], None]
) -> None:
    await is_refused(repository, corrupt, CORRUPT_ON_ONNX[corrupt], "onnx")


async def is_refused(repository: Path, corrupt: Callable[[Path], None], expected: str, engine: str) -> None:
    """Corrupt a model, and then a new version of one that is served: both are refused, and what serves goes on."""
    publish(repository, toy(), "corrupt")
    corrupt(repository / "corrupt" / "1")
    async with started(repository, default_model="toy", engine=engine) as client:
        await answers_as_ever(client)
        (listed,) = [model for model in (await client.get("/models")).json["models"] if model["name"] == "corrupt"]
        (status,) = listed["versions"]
        asked = await client.post(ASKED, "/models/corrupt/predict")

        publish(repository, toy())
        corrupt(repository / "toy" / "2")
        registry: Registry = client.app.state.services.registry
        with pytest.raises(LoadFailed) as refused:
            await registry.load("toy")
        await answers_as_ever(client)
        assert (await client.get("/health/live")).status == 200

    assert status["state"] == "failed"
    assert asked.status == 503
    assert asked.json == {"error": f"model 'corrupt' version 1 could not be loaded: {status['error']}"}
    for sentence in (status["error"], str(refused.value)):
        assert expected in sentence
        assert str(repository.parent) not in sentence
        assert "Traceback" not in sentence
        assert "internal error" not in sentence
        assert "\n" not in sentence
        assert len(sentence) < 400


@contextmanager
def unprivileged() -> Iterator[Path]:
    """Yield an empty folder to somebody whom a mode keeps out of a folder, as it does not keep out root."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as name:  # not pytest's own, whose parents only this user may enter
        if user == 0:
            os.chown(name, NOBODY, -1)
            os.seteuid(NOBODY)
        try:
            yield Path(name)
        finally:
            os.seteuid(user)


@pytest.mark.parametrize("mode", [0o000, 0o444], ids=["closed", "listed"])
def test_a_version_whose_folder_cannot_be_read_stops_no_other(mode: int) -> None:
    with unprivileged() as root:
        publish(root, toy())
        publish(root, toy())
        (root / "toy" / "2").chmod(mode)
        found = scan(ModelRepository(root))
        assert {name: list(versions) for name, versions in found.items()} == {"toy": [1, 2]}
        with pytest.raises(InvalidBundle, match=r"^bundle\.json: cannot be read: Permission denied$"):
            ModelRepository(root).read("toy", 2)
        (root / "toy" / "2").chmod(0o755)
        assert scan(ModelRepository(root))["toy"][2] != found["toy"][2]  # and so a poll tries it again


def test_a_model_whose_folder_cannot_be_read_is_logged_and_stops_no_other() -> None:
    with unprivileged() as root:
        publish(root, toy())
        publish(root, toy(), "closed")
        (root / "closed").chmod(0o000)
        with structlog.testing.capture_logs() as entries:
            assert list(scan(ModelRepository(root))) == ["toy"]
        (entry,) = entries
        assert (entry["event"], entry["model"], entry["error"]) == ("model_unreadable", "closed", "Permission denied")
        with pytest.raises(InvalidBundle, match=r"^the folder of model 'closed' cannot be read: Permission denied$"):
            ModelRepository(root).read("closed", 1)
        (root / "closed").chmod(0o755)
