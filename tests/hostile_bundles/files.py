"""Files of a bundle that are damaged, or that lie: each kind with the sentence that it must give."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from safetensors.numpy import load_file, save

from spikeserve.models.bundle import File
from tests.bundles import rehash, rewrite


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
    os.truncate(folder / File.WEIGHTS, 2**42)  # a hole takes no room on the disk, but reads as 4 TiB of zeros


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


def safetensors_of(entries: dict[str, Any], values: int) -> Callable[[Path], None]:
    """Return a function that puts a header of these entries before so many bytes of values."""

    def corrupt(folder: Path) -> None:
        safetensors_header(folder, json.dumps(entries).encode(), bytes(values))

    return corrupt


def entry(dtype: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def header_beyond_the_file(folder: Path) -> None:
    rehash(folder, File.WEIGHTS, (2**63).to_bytes(8, "little") + b"{}")


def header_of_most_bytes(folder: Path) -> None:
    safetensors_header(folder, b"{}" + b" " * (100_000_001 - 2))


def header_nested(folder: Path) -> None:
    safetensors_header(folder, b'{"__metadata__":' + b"[" * 10**6)


def header_of_no_text(folder: Path) -> None:
    safetensors_header(folder, b"\xff\xfe{}")


def header_of_many_tensors(folder: Path) -> None:
    safetensors_header(folder, json.dumps({f"t{k}": entry("F32", [0], 0, 0) for k in range(10_000)}).encode())


def metrics_not_finite(folder: Path) -> None:
    rewrite(folder, lambda manifest: manifest["metrics"].update(accuracy=float("nan")))


def metrics_beyond_float(folder: Path) -> None:
    manifest = folder / "bundle.json"
    manifest.write_text(manifest.read_text().replace('"test_accuracy": 0.5', '"test_accuracy": 1e999'))


def unknown_field_of_two_lines(folder: Path) -> None:
    rewrite(folder, lambda manifest: manifest.update({"x\n\x1b[2Jforged" + "y" * 10**6: 1}))


def surrogate_in_a_label(folder: Path) -> None:
    manifest = folder / "bundle.json"
    manifest.write_text(manifest.read_text().replace('"left"', '"\\ud800"'))


def number_of_a_million_digits(folder: Path) -> None:
    manifest = folder / "bundle.json"
    manifest.write_text(manifest.read_text().replace('"version": 1', '"version": ' + "1" * 10**6))


def nested_field(folder: Path) -> None:
    manifest = folder / "bundle.json"
    manifest.write_text(manifest.read_text().replace('"spec":', '"more": ' + "[" * 10**5 + "]" * 10**5 + ', "spec":'))


def path_as_a_name(folder: Path) -> None:
    rewrite(folder, lambda manifest: manifest.update(name="../../etc/passwd"))


def card_that_is_linked(folder: Path) -> None:
    (folder / File.CARD).unlink()
    (folder / File.CARD).symlink_to("/etc/passwd")


def golden_of_huge_inputs(folder: Path) -> None:
    change_tensor(folder, File.GOLDEN, "inputs", lambda inputs: inputs + np.float32(1e38))


def golden_of_more_steps(folder: Path) -> None:
    change_tensor(folder, File.GOLDEN, "inputs", lambda inputs: np.repeat(inputs, 50, axis=0))


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


def named(name: str, corrupt: Callable[[Path], None]) -> Callable[[Path], None]:
    corrupt.__name__ = name
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
    **{
        named(name, safetensors_of(entries, values)): "weights.safetensors: not a safetensors file: "
        for name, entries, values in (
            ("offsets_backwards", {"fc.weight": entry("F32", [2, 2], 16, 0)}, 16),
            ("offsets_overlap", {"fc.weight": entry("F32", [2, 2], 0, 16), "more": entry("F32", [2, 2], 8, 24)}, 24),
            ("offsets_with_a_hole", {"fc.weight": entry("F32", [2, 2], 8, 24)}, 24),
            ("offsets_before_the_end", {"fc.weight": entry("F32", [2, 2], 0, 16)}, 4096),
            ("shape_of_another_size", {"fc.weight": entry("F32", [2, 3], 0, 16)}, 16),
            ("shape_that_overflows", {"fc.weight": entry("F32", [2**62, 8], 0, 16)}, 16),
            ("shape_negative", {"fc.weight": entry("F32", [-2, -2], 0, 16)}, 16),
            ("dtype_unknown", {"fc.weight": entry("F31", [2, 2], 0, 16)}, 16),
            ("entry_of_nothing", {"fc.weight": {}}, 16),
        )
    },
    **{
        named(f"dtype_{dtype}", safetensors_of({"fc.weight": entry(dtype, [2, 2], 0, 4 * size)}, 4 * size)): (
            "weights.safetensors: "
        )
        for dtype, size in (("BF16", 2), ("F8_E5M2", 1), ("F64", 8), ("BOOL", 1), ("C64", 8))
    },
    header_beyond_the_file: "weights.safetensors: not a safetensors file: ",
    header_of_most_bytes: "weights.safetensors: not a safetensors file: ",
    header_nested: "weights.safetensors: not a safetensors file: ",
    header_of_no_text: "weights.safetensors: not a safetensors file: ",
    header_of_many_tensors: "weights.safetensors: ",
    metrics_not_finite: "bundle.json: metrics.accuracy: input should be a finite number",
    metrics_beyond_float: "bundle.json: metrics.test_accuracy: input should be a finite number",
    unknown_field_of_two_lines: r"bundle.json: x\n\x1b[2Jforged",
    surrogate_in_a_label: "bundle.json: ",
    number_of_a_million_digits: "bundle.json: ",
    nested_field: "bundle.json: Invalid JSON: recursion limit exceeded",
    path_as_a_name: "bundle.json: name: string should match pattern",
    card_that_is_linked: "card.md: is a symbolic link, expected a file of the bundle's own",
    golden_of_huge_inputs: "golden.safetensors: sample 1 gives spike counts ",
    golden_of_more_steps: "golden.safetensors: ",
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
