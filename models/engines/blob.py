"""A state as bytes, which any replica that serves the same bundle can go on from.

    magic      8 bytes, SPKSTATE
    version    uint32, little-endian, 1
    bundle     32 bytes, the sha256 of bundle.json
    content    32 bytes, the sha256 of what follows
    arrays     safetensors: those of the state by their names, and `steps`

Nothing is unpickled. The bytes name their bundle, and a check sum finds damage. They are not signed, so anybody can
write a state of their own. A state that is read has the network's arrays all the same, in their shapes and types, with
values that a run can leave.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Set
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import save

from spikeserve.models.engines.state import MOST_STEPS, NO_SPIKE, READOUT, State, arrays_of, check_state
from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec import Readout
from spikeserve.models.spec.network import Network
from spikeserve.models.spec.sums import spikes_of

MAGIC, VERSION = b"SPKSTATE", 1
HEADER = struct.Struct("<8sI32s32s")
STEPS = "steps"
NEW_LINE, MOST_SHOWN = "\n", 80  # characters of what somebody else wrote that a sentence shows
SPIKES = ".spikes"
TYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8"), "I64": np.dtype("<i8")}
# The header of safetensors, for all arrays and for each beside its name, of which a character may take 6 bytes.
ARRAYS_BYTES, ARRAY_BYTES, CHARACTER_BYTES = 64, 256, 6


def to_bytes(state: State, bundle_hash: str) -> bytes:
    """Return a state as bytes for the bundle whose `digest`, the sha256 of its bundle.json in hexadecimal, is given.

    Raises InvalidInput for a state that holds NaN or infinite values, from which no run could go on.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in state.arrays.items()}
    for name, array in arrays.items():
        _check_finite(name, array, state)
    content = save({STEPS: np.ascontiguousarray(state.steps), **arrays})
    return HEADER.pack(MAGIC, VERSION, bytes.fromhex(bundle_hash), hashlib.sha256(content).digest()) + content


def most_bytes(network: Network, batch: int = 1) -> int:
    """Return the most bytes that the state of so many samples takes, so that longer ones need not be read."""
    arrays = arrays_of(network)
    described = sum(ARRAY_BYTES + CHARACTER_BYTES * len(name) for name in (STEPS, *arrays))
    return HEADER.size + ARRAYS_BYTES + described + batch * bytes_per_sample(network)


def bytes_per_sample(network: Network) -> int:
    """Return the bytes of one sample's state, its number of steps included."""
    arrays = arrays_of(network).values()
    return 8 + sum(math.prod(array.shape) * np.dtype(array.dtype).itemsize for array in arrays)


def from_bytes(content: bytes, network: Network, bundle_hash: str) -> State:
    """Return the state that `to_bytes` made bytes of, for the network of the bundle with that hash.

    Nothing larger than `content` is made. Raises InvalidInput for bytes that are no state, are damaged, are of another
    version or bundle, or hold arrays or values that no run of the network leaves.
    """
    if len(content) < HEADER.size or not content.startswith(MAGIC):
        raise InvalidInput(f"state: its first bytes are {content[: len(MAGIC)]!r}, expected {MAGIC!r} and a state")
    _, version, bundle, digest = HEADER.unpack_from(content)
    if version != VERSION:
        raise InvalidInput(f"state: its format is version {version}, expected {VERSION}")
    if bundle != bytes.fromhex(bundle_hash):
        raise InvalidInput(f"state: is of the bundle {bundle.hex()[:12]}…, but this model is {bundle_hash[:12]}…")
    arrays_in = memoryview(content)[HEADER.size :]
    if hashlib.sha256(arrays_in).digest() != digest:
        raise InvalidInput("state: its bytes are not those that were given out, expected them unchanged")
    arrays = _arrays(bytes(arrays_in), {STEPS, *arrays_of(network)})
    if STEPS not in arrays:
        raise InvalidInput(f"state: lacks '{STEPS}', expected the number of steps of each sample")
    state = State(arrays.pop(STEPS), arrays)
    check_state(state, network, len(state.steps) if state.steps.ndim else 0, 0)
    _check_values(state, network)
    return state


def _arrays(content: bytes, known: Set[str]) -> dict[str, NDArray[Any]]:
    try:
        listed = safetensors.deserialize(content)  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        raise InvalidInput(f"state: holds no safetensors: {str(error).partition(NEW_LINE)[0][:MOST_SHOWN]}") from error
    arrays: dict[str, NDArray[Any]] = {}
    for name, array in listed:
        if name not in known:
            raise InvalidInput(f"state: holds {name[:MOST_SHOWN]!r}, which the network does not have")
        if array["dtype"] not in TYPES:
            raise InvalidInput(f"state: the type of '{name}' is {array['dtype']}, expected {', '.join(TYPES)}")
        dtype = TYPES[array["dtype"]]
        arrays[name] = np.frombuffer(array["data"], dtype).reshape(array["shape"]).astype(dtype.newbyteorder("="))
    return arrays


def _check_values(state: State, network: Network) -> None:
    """Raise InvalidInput for values that no run of the network leaves, of arrays whose shapes and types are right."""
    rest, resting = State.rest(network, 1), state.steps == 0
    most_spikes = {node.name: int(spikes_of(node).bound) for node in network.spec.spiking_nodes}
    for name, array in state.arrays.items():
        if (array[resting] != rest.arrays[name]).any():
            raise InvalidInput(f"state: '{name}' of a sample that has taken no step is not what it is at rest")
        _check_finite(name, array, state)
        if name == READOUT and network.spec.readout is Readout.FIRST_SPIKE:
            _check_range(name, array, NO_SPIKE, state.steps[:, np.newaxis] - 1)
        elif array.dtype == np.int64:
            _check_range(name, array, 0, MOST_STEPS)
        elif name.endswith(SPIKES):
            _check_range(name, array, 0, most_spikes[name.removesuffix(SPIKES)])
            if (array != np.floor(array)).any():
                raise InvalidInput(f"state: '{name}' holds parts of spikes, expected whole numbers")


def _check_finite(name: str, array: NDArray[Any], state: State) -> None:
    """Raise InvalidInput for NaN or infinite values, but for what a greatest value is before the first step."""
    right = np.isfinite(array)
    if name == READOUT:
        right |= (array == -np.inf) & (state.steps == 0)[:, np.newaxis]
    if not right.all():
        raise InvalidInput(f"state: '{name}' holds {array[~right][0]}, expected finite values")


def _check_range(name: str, array: NDArray[Any], low: int, high: int | NDArray[np.int64]) -> None:
    wrong = (array < low) | (array > high)
    if wrong.any():
        most = np.broadcast_to(high, array.shape)[wrong][0]
        raise InvalidInput(f"state: '{name}' holds {array[wrong][0]}, expected {low} to {most}")
