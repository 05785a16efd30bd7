"""Files of a bundle that are damaged, or that lie: each kind with the sentence that it must give."""

import json
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from spikeserve.models.bundle import File
from tests.bundles import rehash, rewrite

Corrupt = Callable[[Path], None]  # what damages the bundle in a folder
MANIFEST, WEIGHTS, GOLDEN = "bundle.json", File.WEIGHTS, File.GOLDEN


def manifest(change: Callable[[dict[str, Any]], Any]) -> Corrupt:
    """Make what changes what the manifest says."""
    return lambda folder: rewrite(folder, change)


def text(old: str, new: str) -> Corrupt:
    """Make what replaces a text of the manifest."""

    def corrupt(folder: Path) -> None:
        content = (folder / MANIFEST).read_text()
        (folder / MANIFEST).write_text(content.replace(old, new))

    return corrupt


def hashed(file: File, change: Callable[[bytes], bytes]) -> Corrupt:
    """Make what changes a file, with a right hash."""
    return lambda folder: rehash(folder, file, change((folder / file).read_bytes()))


def tensors(file: File, change: Callable[[dict[str, NDArray[Any]]], Mapping[str, Any]]) -> Corrupt:
    """Make what changes the tensors of a file, with a right hash."""

    def corrupt(folder: Path) -> None:
        changed = change(load_file(folder / file))
        rehash(folder, file, save({name: np.ascontiguousarray(tensor) for name, tensor in changed.items()}))

    return corrupt


def tensor(file: File, name: str, change: Callable[[Any], Any]) -> Corrupt:
    """Make what changes one tensor of a file, with a right hash."""
    return tensors(file, lambda given: given | {name: change(given[name])})


def header(content: bytes | dict[str, Any], values: int = 0, file: File = WEIGHTS) -> Corrupt:
    """Make what puts a header of safetensors before so many bytes of values."""
    written = content if isinstance(content, bytes) else json.dumps(content).encode()
    return hashed(file, lambda _: len(written).to_bytes(8, "little") + written + bytes(values))


def entry(dtype: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def twice(content: bytes) -> bytes:
    """Return a safetensors file whose header lists its first tensor, at the same place, two times."""
    size = int.from_bytes(content[:8], "little")
    listed = content[8 : 8 + size].decode().rstrip()
    name, first = next(iter(json.loads(listed).items()))
    again = f"{json.dumps({name: first})[:-1]},{listed[1:]}".encode()
    return len(again).to_bytes(8, "little") + again + content[8 + size :]


def narrow(bits: int = 8, **damage: Any) -> Corrupt:
    """Make what stores the weights in so many bits, and then puts other tensors in, or with None takes them out."""
    weight = np.array([[1], [16]], np.uint8) if bits == 4 else np.eye(2, dtype=np.int8)
    given = {"weight": weight, "weight_exponent": np.zeros(2, np.int16), **damage}
    stored = save({f"fc.{name}": tensor for name, tensor in given.items() if tensor is not None})

    def corrupt(folder: Path) -> None:
        rewrite(folder, lambda fields: fields["spec"]["nodes"][0].update(weight_bits=bits))
        rehash(folder, WEIGHTS, stored)

    return corrupt


def places(positions: Any, kind: str = "uint32") -> dict[str, Any]:
    return {"weight_position": np.array(positions, kind)}


def sparse(count: Any = 2, bits: int | None = None, **damage: Any) -> Corrupt:
    """Make what stores so many of the weights, those of a unit matrix, and then does as `narrow` does."""
    packed = np.array([[17]], np.uint8) if bits == 4 else np.ones(2, np.int8 if bits else np.float32)
    given = {"weight": packed, "weight_position": np.array([0, 3], np.uint32)}
    given |= {"weight_exponent": np.zeros(2, np.int16)} if bits else {}
    stored = save({f"fc.{name}": tensor for name, tensor in (given | damage).items() if tensor is not None})

    def corrupt(folder: Path) -> None:
        fields = {"nonzero": count} | ({"weight_bits": bits} if bits else {})
        rewrite(folder, lambda manifest: manifest["spec"]["nodes"][0].update(fields))
        rehash(folder, WEIGHTS, stored)

    return corrupt


terabytes_claimed = header({"fc.weight": entry("F32", [2**20, 2**20], 0, 2**42)})


def nested_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_bytes(b"[" * 10**6)


def manifest_a_pipe(folder: Path) -> None:
    a_pipe(folder / MANIFEST)


def manifest_a_dangling_link(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).symlink_to("nowhere")


def manifest_a_socket(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    os.mknod(folder / MANIFEST, stat.S_IFSOCK)


wrong_golden = tensor(GOLDEN, "spike_counts", lambda counts: counts + 1)


def widened(fields: dict[str, Any]) -> None:
    fields["spec"]["input"]["shape"] = [2**31 - 1]
    fields["spec"]["nodes"][0]["in_features"] = 2**31 - 1


def empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.write_bytes(b"")


def manifest_bit_flipped(folder: Path) -> None:
    content = bytearray((folder / MANIFEST).read_bytes())
    content[0] ^= 0x80
    (folder / MANIFEST).write_bytes(content)


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
BEFALL: dict[Corrupt, str] = {
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


NO_SAFETENSORS = "not a safetensors file: "
NOT_FINITE = "holds NaN or infinite values, expected finite ones"
LINKED = "is a symbolic link, expected a file of the bundle's own"
EXPONENTS = "tensor 'fc.weight_exponent'"
NAN, INFINITE = np.float32(np.nan), np.float32(np.inf)


def at(file: str, damage: Callable[[Path], None]) -> Corrupt:
    return lambda folder: damage(folder / file)


# Of each file: a kind of damage, what does it, and what is then said of the file.
KINDS: dict[str, dict[str, tuple[Corrupt, str]]] = {
    MANIFEST: {
        "terabytes of parameters": (manifest(widened), "node 'input': its shape of 2147483647 takes "),
        "of holes": (at(MANIFEST, of_holes), f"has {2**42} bytes, expected at most {2**24}"),
        "nested": (nested_manifest, "Invalid JSON: recursion limit exceeded"),
        "linked out": (at(MANIFEST, linked_out), LINKED),
        "a folder": (at(MANIFEST, a_folder), "is not a file"),
        "a dangling link": (manifest_a_dangling_link, LINKED),
        "a pipe": (manifest_a_pipe, "is not a file"),
        "a socket": (manifest_a_socket, "cannot be read: "),
        "a graph of an older version that is no spiking network": (
            manifest(lambda fields: fields.update(contract=fields.pop("spec"))),
            "has a contract, expected a spec: an ONNX graph that is no spiking network is not served since 0.5.0; "
            "spikeserve convert makes such a network spike",
        ),
        "a path out": (
            manifest(lambda fields: fields["files"].update({"../../../secret.json": "0" * 64})),
            "files.../../../secret.json",
        ),
        "narrow weights of no known width": (narrow(bits=9), "spec.nodes.0.Linear.weight_bits: input should be 8, 7,"),
        "more weights stored than there are": (
            sparse(count=5),
            "spec.nodes.0.Linear: node 'fc': nonzero is 5 of 4 weights, expected no more than there are of at most ",
        ),
        "unknown schema version": (
            manifest(lambda fields: fields.update(schema_version=2)),
            "schema_version: input should be 1, got 2",
        ),
        "schema version as text": (
            manifest(lambda fields: fields.update(schema_version="1")),
            "schema_version: input should be 1, got '1'",
        ),
        "no schema version": (
            manifest(lambda fields: fields.update(schema_version=None)),
            "schema_version: input should be 1, got None",
        ),
        "a field twice": (text('"producer"', '"name": "other", "producer"'), "says 'name' twice in one object, expect"),
        "a node twice": (
            manifest(lambda fields: fields["spec"]["nodes"].append(fields["spec"]["nodes"][-1])),
            "spec: node 'out': another node, or the network's input, has that name already",
        ),
        "all files empty": (empty, "Invalid JSON: EOF while parsing"),
        "truncated": (at(MANIFEST, cut_short), "Invalid JSON: EOF while parsing"),
        "bit flipped": (manifest_bit_flipped, "Invalid JSON: "),
        "metrics that are not finite": (
            manifest(lambda fields: fields["metrics"].update(accuracy=float("nan"))),
            "metrics.accuracy: input should be a finite number",
        ),
        "metrics beyond float": (
            text('"test_accuracy": 0.5', '"test_accuracy": 1e999'),
            "metrics.test_accuracy: input should be a finite number",
        ),
        "an unknown field of two lines": (
            manifest(lambda fields: fields.update({"x\n\x1b[2Jforged" + "y" * 10**6: 1})),
            r"x\n\x1b[2Jforged",
        ),
        "a surrogate in a label": (text('"left"', '"\\ud800"'), ""),
        "a number of a million digits": (text('"version": 1', '"version": ' + "1" * 10**6), ""),
        "a nested field": (
            text('"spec":', '"more": ' + "[" * 10**5 + "]" * 10**5 + ', "spec":'),
            "Invalid JSON: recursion limit exceeded",
        ),
        "a path as a name": (
            manifest(lambda fields: fields.update(name="../../etc/passwd")),
            "name: string should match pattern",
        ),
        "of another version": (manifest(lambda fields: fields.update(version=7)), ""),
        "of another model": (manifest(lambda fields: fields.update(name="other")), ""),
    },
    WEIGHTS: {
        "truncated and hashed": (hashed(WEIGHTS, lambda content: content[:-1]), NO_SAFETENSORS),
        "empty and hashed": (hashed(WEIGHTS, lambda _: b""), NO_SAFETENSORS),
        "terabytes claimed": (terabytes_claimed, NO_SAFETENSORS),
        "not listed": (
            manifest(lambda fields: fields["files"].pop(WEIGHTS)),
            "not listed in bundle.json, and a bundle needs it",
        ),
        "wrong shape": (
            tensor(WEIGHTS, "fc.weight", lambda weight: np.vstack([weight, weight])),
            "tensor 'fc.weight': its shape is 4×2, but the spec needs 2×2",
        ),
        "NaN": (tensor(WEIGHTS, "fc.weight", lambda weight: weight * NAN), f"tensor 'fc.weight': {NOT_FINITE}"),
        "infinite": (
            tensor(WEIGHTS, "fc.weight", lambda weight: weight + INFINITE),
            f"tensor 'fc.weight': {NOT_FINITE}",
        ),
        "a tensor twice": (hashed(WEIGHTS, twice), "says 'fc.weight' twice in one object, expected each name once"),
        "a tensor missing": (tensors(WEIGHTS, lambda _: {}), ""),
        "too many tensors": (tensors(WEIGHTS, lambda given: given | {"other.weight": np.zeros(1, np.float32)}), ""),
        "another type": (tensor(WEIGHTS, "fc.weight", lambda weight: weight.astype(np.float64)), ""),
        **{
            f"narrow, {name}": (narrow(**given), sentence)
            for name, given, sentence in (
                ("no exponents", {"weight_exponent": None}, f"{EXPONENTS}: missing; weight_bits is 8, which needs it"),
                ("no weights", {"weight": None}, "tensor 'fc.weight_exponent': no node of the spec has such a paramet"),
                ("as float32", {"weight": np.eye(2, dtype=np.float32)}, "tensor 'fc.weight': is float32 of shape 2×2,"),
                (
                    "of 4 bits as int8",
                    {"bits": 4, "weight": np.eye(2, dtype=np.int8)},
                    "tensor 'fc.weight': is int8 of ",
                ),
                ("twice as many", {"weight": np.ones((2, 4), np.int8)}, "tensor 'fc.weight': is int8 of shape 2×4, bu"),
                (
                    "an exponent for all",
                    {"weight_exponent": np.zeros(1, np.int16)},
                    f"{EXPONENTS}: is int16 of shape 1, ",
                ),
                (
                    "exponents of int32",
                    {"weight_exponent": np.zeros(2, np.int32)},
                    f"{EXPONENTS}: is int32 of shape 2, ",
                ),
                ("-128", {"weight": np.full((2, 2), -128, np.int8)}, "tensor 'fc.weight': holds -128, expected -127 t"),
                ("of 7 bits", {"bits": 7, "weight": np.full((2, 2), 64, np.int8)}, "tensor 'fc.weight': holds 64, exp"),
                ("-8 of 4 bits", {"bits": 4, "weight": np.full((2, 1), 8, np.uint8)}, "tensor 'fc.weight': holds -8,"),
                (
                    "the greatest exponent",
                    {"weight_exponent": np.array([0, 32767], np.int16)},
                    f"{EXPONENTS}: holds 32767, ",
                ),
                (
                    "the least exponent",
                    {"weight_exponent": np.array([-32767, 0], np.int16)},
                    f"{EXPONENTS}: holds -32767, ",
                ),
                (
                    "beyond float32",
                    {"weight": np.full((2, 2), -2, np.int8), "weight_exponent": np.array([0, 127], np.int16)},
                    "tensor 'fc.weight': -2 * 2**127 of output 1 is beyond float32",
                ),
            )
        },
        **{
            f"sparse, {name}": (sparse(**given), f"tensor 'fc.weight{sentence}")
            for name, given, sentence in (
                ("no positions", {"weight_position": None}, "_position': missing; nonzero is 2, which needs it"),
                ("more than said", {"count": 1}, "_position': is uint32 of shape 2, but nonzero 1 needs uint32 of sh"),
                ("all of them", {"weight": np.eye(2, dtype=np.float32)}, "': is float32 of shape 2×2, but nonzero 2 "),
                ("of float64", {"weight": np.ones(2)}, "': is float64 of shape 2, but nonzero 2 needs float32 of sh"),
                ("a 0", {"weight": np.array([1, 0], np.float32)}, "': holds 0, expected other values, as nonzero is 2"),
                ("NaN", {"weight": np.array([1, NAN], np.float32)}, f"': {NOT_FINITE}"),
                ("of 8 bits as float32", {"bits": 8, "weight": np.ones(2, np.float32)}, "': is float32 of shape 2, bu"),
                ("of 4 bits a byte", {"bits": 4, "weight": np.ones(2, np.int8)}, "': is int8 of shape 2, but weight_b"),
                ("of 4 bits with a 0", {"bits": 4, "weight": np.array([[1]], np.uint8)}, "': holds 0, expected other"),
                ("no exponents", {"bits": 8, "weight_exponent": None}, "_exponent': missing; weight_bits is 8, which "),
                ("positions twice", places([3, 3]), "_position': holds 3 at 1, expected ascending numbers below 4"),
                ("positions backwards", places([3, 0]), "_position': holds 0 at 1, expected ascending numbers below 4"),
                ("positions behind the end", places([0, 4]), "_position': holds 4 at 1, expected ascending numbers "),
                ("the last position", places([0, 2**32 - 1]), "_position': holds 4294967295 at 1, expected ascending"),
                ("positions of int64", places([0, 3], "int64"), "_position': is int64 of shape 2, but nonzero 2 need"),
                ("positions in two axes", places([[0], [3]]), "_position': is uint32 of shape 2×1, but nonzero 2 nee"),
            )
        },
        "int8 that the spec has no word of": (
            tensor(WEIGHTS, "fc.weight", lambda weight: weight.astype(np.int8)),
            "tensor 'fc.weight': its type is int8, expected float32",
        ),
        **{
            f"entries with {name}": (header(entries, values), NO_SAFETENSORS)
            for name, entries, values in (
                ("offsets backwards", {"fc.weight": entry("F32", [2, 2], 16, 0)}, 16),
                ("offsets that overlap", {"fc.weight": entry("F32", [2, 2], 0, 16), "b": entry("F32", [4], 8, 24)}, 24),
                ("a hole between offsets", {"fc.weight": entry("F32", [2, 2], 8, 24)}, 24),
                ("offsets before the end", {"fc.weight": entry("F32", [2, 2], 0, 16)}, 4096),
                ("a shape of another size", {"fc.weight": entry("F32", [2, 3], 0, 16)}, 16),
                ("a shape that overflows", {"fc.weight": entry("F32", [2**62, 8], 0, 16)}, 16),
                ("a shape below 0", {"fc.weight": entry("F32", [-2, -2], 0, 16)}, 16),
                ("an unknown type", {"fc.weight": entry("F31", [2, 2], 0, 16)}, 16),
                ("nothing in one", {"fc.weight": {}}, 16),
            )
        },
        **{
            f"of type {dtype}": (header({"fc.weight": entry(dtype, [2, 2], 0, 4 * size)}, 4 * size), "")
            for dtype, size in (("BF16", 2), ("F8_E5M2", 1), ("F64", 8), ("BOOL", 1), ("C64", 8))
        },
        "a header beyond the file": (hashed(WEIGHTS, lambda _: (2**63).to_bytes(8, "little") + b"{}"), NO_SAFETENSORS),
        "a header of most bytes": (header(b"{}" + b" " * (100_000_001 - 2)), NO_SAFETENSORS),
        "a nested header": (header(b'{"__metadata__":' + b"[" * 10**6), NO_SAFETENSORS),
        "a header of no text": (header(b"\xff\xfe{}"), NO_SAFETENSORS),
        "a header of many tensors": (header({f"t{k}": entry("F32", [0], 0, 0) for k in range(10_000)}), ""),
    },
    GOLDEN: {
        "wrong counts": (wrong_golden, "sample 0 gives spike counts "),
        "wrong readout": (tensor(GOLDEN, "readout", lambda readout: readout + 1), "sample 0 reads out "),
        "NaN inputs": (tensor(GOLDEN, "inputs", lambda inputs: inputs * NAN), f"'inputs' {NOT_FINITE}"),
        "infinite inputs": (tensor(GOLDEN, "inputs", lambda inputs: inputs - INFINITE), f"'inputs' {NOT_FINITE}"),
        "NaN readout": (tensor(GOLDEN, "readout", lambda readout: readout * NAN), f"'readout' {NOT_FINITE}"),
        "infinite readout": (tensor(GOLDEN, "readout", lambda readout: readout + INFINITE), f"'readout' {NOT_FINITE}"),
        "counts below 0": (
            tensor(GOLDEN, "spike_counts", lambda counts: counts - 100),
            "'spike_counts' holds -100, expected at least 0",
        ),
        "no samples": (
            tensors(
                GOLDEN, lambda given: {key: each[:, :0] if key == "inputs" else each[:0] for key, each in given.items()}
            ),
            "holds no sample, expected at least one",
        ),
        "truncated and hashed": (hashed(GOLDEN, lambda content: content[:-1]), NO_SAFETENSORS),
        "terabytes claimed": (
            header({"inputs": entry("F32", [1, 2**20, 2**20], 0, 2**42)}, file=GOLDEN),
            NO_SAFETENSORS,
        ),
        "other inputs": (
            tensor(GOLDEN, "inputs", lambda inputs: np.concatenate([inputs, inputs], axis=-1)),
            "'inputs' has shape ",
        ),
        "fewer answers": (tensor(GOLDEN, "spike_counts", lambda counts: counts[:-1]), "'spike_counts' has shape "),
        "another type": (
            tensor(GOLDEN, "spike_counts", lambda counts: counts.astype(np.int32)),
            "lacks 'spike_counts' of type int64",
        ),
        "no answers": (tensors(GOLDEN, lambda given: {"inputs": given["inputs"]}), "lacks 'spike_counts' of type int6"),
        "a tensor twice": (hashed(GOLDEN, twice), "says 'spike_counts' twice in one object, expected each name once"),
        "not listed": (manifest(lambda fields: fields["files"].pop(GOLDEN)), "not listed in bundle.json, and a bundle"),
        "huge inputs": (
            tensor(GOLDEN, "inputs", lambda inputs: inputs + np.float32(1e38)),
            "sample 1 gives spike counts ",
        ),
        "two steps of three": (
            tensor(GOLDEN, "inputs", lambda inputs: np.repeat(inputs, 2, axis=0)),
            "encoded inputs: shape is 2×3×2, expected 1 or 3 steps first and then the batch",
        ),
    },
    **{file: {} for file in (File.ONNX_MODEL, File.CARD)},
}
for file in File:
    KINDS[file] |= {damage.__name__: (at(file, damage), sentence) for damage, sentence in BEFALL.items()}


def named(file: str, kind: str, corrupt: Corrupt) -> Corrupt:
    if corrupt.__name__ in ("corrupt", "<lambda>"):
        corrupt.__name__ = f"{file}: {kind}"
    return corrupt


CORRUPT: dict[Corrupt, str] = {
    named(file, kind, corrupt): f"{file}: {sentence}"
    for file, kinds in KINDS.items()
    for kind, (corrupt, sentence) in kinds.items()
}
