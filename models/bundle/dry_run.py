"""The dry run of an external ONNX model: two random samples, as one batch and each alone, must keep its contract."""

from __future__ import annotations

import numpy as np

from models.bundle import READOUT_TOLERANCE
from models.coding import EncodedInputs, encode
from models.engines.base import Runner, RunResult
from models.errors import InvalidBundle, InvalidInput
from models.spec import Coding
from models.spec.network import FloatArray
from models.spec.onnx_contract import OnnxContract

SEED = 0
DENSITY = 0.25  # of the spikes in a random raster
SAMPLES = 2


def random_inputs(contract: OnnxContract, time_steps: int) -> EncodedInputs:
    """Return two random samples from the declared range, encoded."""
    declared = contract.input
    low, high = declared.range
    random = np.random.default_rng(SEED)
    if contract.coding is Coding.SPIKES:
        quiet = np.clip(np.float32(0.0), low, high)
        spikes = random.random((SAMPLES, time_steps, *declared.shape)) < DENSITY
        samples: FloatArray = np.where(spikes, high, quiet)
    else:
        steps = (time_steps,) if contract.coding.per_step else ()
        drawn = random.random((SAMPLES, *steps, *declared.shape), np.float32)
        samples = np.clip(low + drawn * (high - low), low, high)
    return encode(samples.astype(np.float32), contract, time_steps, SEED)


def verify(contract: OnnxContract, engine: Runner) -> None:
    """Run the random samples as a batch, twice, and each alone; raises InvalidBundle if an answer differs.

    Counts must be equal, and scores within a tolerance, since sums may run in another order for another batch size.
    """
    try:
        _dry_run(contract, engine)
    except InvalidInput as error:
        raise InvalidBundle(str(error)) from error


def _dry_run(contract: OnnxContract, engine: Runner) -> None:
    inputs = random_inputs(contract, contract.time_steps)
    batch, _ = engine.run(inputs)
    _require_same(batch, engine.run(inputs)[0], "twice in a row")
    for index in range(SAMPLES):
        each = slice(index, index + 1)
        part = RunResult(batch.spike_counts[each], batch.readout[each], None, {})
        _require_same(part, engine.run(inputs[each])[0], "alone and beside another")
    if contract.any_time_steps:
        engine.run(random_inputs(contract, contract.time_steps + 1))


def _require_same(one: RunResult, other: RunResult, when: str) -> None:
    close = np.allclose(one.readout, other.readout, rtol=READOUT_TOLERANCE, atol=READOUT_TOLERANCE)
    if not close or not np.array_equal(one.spike_counts, other.spike_counts):
        raise InvalidBundle(
            f"model.onnx: gives {one.readout[0].tolist()} and {other.readout[0].tolist()} for the same sample {when}, "
            "expected the same answer"
        )
