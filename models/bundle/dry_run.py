"""The dry run of an external ONNX model: on samples of its declared range it must keep its contract.

Two random samples must give the same answers twice. Where the contract promises independent rows, the promise is tried
on batches made to break it, and the engine is then told which batch sizes may be used. One is only used if each sample
of each batch gave the very bits that it gives alone: an answer that is merely close would depend on who else asks at
the same time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.bundle import READOUT_TOLERANCE
from spikeserve.models.coding import DenseInputs, encode
from spikeserve.models.engines.base import Runner, RunResult, joined
from spikeserve.models.errors import InvalidBundle, InvalidInput
from spikeserve.models.spec import Coding
from spikeserve.models.spec.network import FloatArray
from spikeserve.models.spec.onnx_contract import OnnxContract

if TYPE_CHECKING:  # ONNX Runtime may be missing
    from spikeserve.models.engines.onnx.external import ContractEngine

SEED = 0
DENSITY = 0.25  # of the spikes in a random raster
SAMPLES = 2
MAX_BATCH = 64  # the largest batch that is tried, which is the service's default of max_batch
MAX_BATCH_VALUES = 2**22  # of a batch's inputs, 16 MiB
LONG_SECONDS = 0.05  # a larger batch than one that takes so long is not tried: the service would not make it either


def random_inputs(contract: OnnxContract, time_steps: int) -> DenseInputs:
    """Return two random samples from the declared range, encoded."""
    declared = contract.input
    low, high = declared.range
    random = np.random.default_rng(SEED)
    if contract.coding is Coding.SPIKES:
        spikes = random.random((SAMPLES, time_steps, *declared.shape)) < DENSITY
        samples: FloatArray = np.where(spikes, high, _quiet(contract))
    else:
        drawn = random.random((SAMPLES, *_sample_shape(contract, time_steps)), np.float32)
        samples = np.clip(low + drawn * (high - low), low, high)
    return encode(samples.astype(np.float32), contract, time_steps, SEED)


def verify(contract: OnnxContract, engine: ContractEngine) -> None:
    """Run the random samples twice, and try a promise of independent rows; sets the engine's `batch_sizes`.

    Raises InvalidBundle if an answer breaks the contract, differs from run to run, or in a batch is not close to that
    alone: counts are equal, and scores within a tolerance.
    """
    try:
        _dry_run(contract, engine)
        if contract.independent_rows and not engine.one_by_one:
            engine.batch_sizes = _batch_sizes(contract, engine)
    except InvalidInput as error:
        raise InvalidBundle(str(error)) from error


def _dry_run(contract: OnnxContract, engine: Runner) -> None:
    inputs = random_inputs(contract, contract.time_steps)
    one, other = engine.run(inputs)[0], engine.run(inputs)[0]
    if not _same(one, other):
        raise InvalidBundle(
            f"model.onnx: gives {one.readout[0].tolist()} and {other.readout[0].tolist()} for the same sample twice in "
            "a row, expected the same answer"
        )
    if contract.any_time_steps:
        engine.run(random_inputs(contract, contract.time_steps + 1))


def _batch_sizes(contract: OnnxContract, engine: ContractEngine) -> tuple[int, ...]:
    """Return 1 and those powers of two, up to the first that fails, at which each sample is answered as alone."""
    steps = (contract.time_steps, contract.time_steps + 1) if contract.any_time_steps else (contract.time_steps,)
    largest = min(MAX_BATCH, MAX_BATCH_VALUES // (max(steps) * math.prod(contract.input.shape)))
    if largest < 2 or _takes_long(contract, engine):
        return (1,)
    pools = [_Pool(contract, engine, each) for each in steps]
    found, size = [1], 2
    while size <= largest:
        trial, began = engine.with_batch_sizes((size,)), perf_counter()
        if not all(pool.answered_as_alone(trial, size) for pool in pools):
            break
        found.append(size)
        if (perf_counter() - began) / sum(pool.runs for pool in pools) > LONG_SECONDS:
            break
        size *= 2
    return tuple(found)


def _takes_long(contract: OnnxContract, engine: Runner) -> bool:
    """Return whether a batch of two would take long, going by one sample."""
    sample, began = random_inputs(contract, contract.time_steps)[:1], perf_counter()
    engine.run(sample)
    return 2 * (perf_counter() - began) > LONG_SECONDS


class _Pool:
    """Samples that batches are made of, a quiet one first, and their answers alone; `runs` batches of each size."""

    def __init__(self, contract: OnnxContract, engine: Runner, time_steps: int) -> None:
        extremes = encode(_extremes(contract, time_steps), contract, time_steps, SEED)
        every = DenseInputs.joined([extremes, random_inputs(contract, time_steps)])
        samples, alone = [], []
        for index in range(every.batch):
            sample = every[index : index + 1]
            try:
                alone.append(engine.run(sample)[0])
                samples.append(sample)
            except InvalidInput:
                continue  # a sample that the graph has no answer for; a client gets this sentence too
        self.samples, self.alone = DenseInputs.joined(samples), joined(alone)
        self.runs = len(list(self._batches(1)))

    def answered_as_alone(self, engine: Runner, size: int) -> bool:
        """Return whether each sample has its bits in batches of `size`; raises InvalidBundle if it is not close."""
        same = True
        for chosen in self._batches(size):
            batch = DenseInputs(np.ascontiguousarray(self.samples.steps[:, chosen]), self.samples.time_steps)
            found = engine.run(batch)[0]
            wanted = RunResult(self.alone.spike_counts[chosen], self.alone.readout[chosen], None, {})
            if not _close(wanted, found):
                worst = int(np.abs(wanted.readout - found.readout).max(axis=1).argmax())
                raise InvalidBundle(
                    f"model.onnx: gives {wanted.readout[worst].tolist()} for a sample alone and "
                    f"{found.readout[worst].tolist()} in a batch of {size}, but the contract says independent_rows"
                )
            same = same and _same(wanted, found)
        return same

    def _batches(self, size: int) -> Iterator[NDArray[np.intp]]:
        """Yield the samples' indices of each batch."""
        random, samples = np.random.default_rng(SEED), self.samples.batch
        in_order = np.arange(size) % samples
        yield in_order
        yield in_order[::-1].copy()
        yield random.integers(0, samples, size)
        for one in range(samples):
            beside_quiet = np.zeros(size, np.intp)
            beside_quiet[random.integers(size)] = one
            yield beside_quiet
            before_others = random.integers(0, samples, size)
            before_others[0] = one
            yield before_others
            yield np.full(size, one)


def _extremes(contract: OnnxContract, time_steps: int) -> FloatArray:
    """Return raw samples: quiet, all at the range's ends, half of them, and one value alone at an end."""
    low, high = contract.input.range
    quiet, shape = _quiet(contract), _sample_shape(contract, time_steps)
    values = math.prod(shape)
    everywhere, nowhere = np.ones(values, bool), np.zeros(values, bool)
    first, last, every_other = nowhere.copy(), nowhere.copy(), nowhere.copy()
    first[0], last[-1], every_other[::2] = True, True, True
    raised = [nowhere, everywhere, every_other, first, last]
    samples = [np.where(mask.reshape(shape), high, quiet) for mask in raised]
    if contract.coding is not Coding.SPIKES:
        samples += [np.where(mask.reshape(shape), low, quiet) for mask in (everywhere, first)]
    return np.stack(samples).astype(np.float32)


def _quiet(contract: OnnxContract) -> FloatArray:
    """Return the values of the range that are nearest to 0."""
    low, high = contract.input.range
    return np.clip(np.zeros((), np.float32), low, high)


def _sample_shape(contract: OnnxContract, time_steps: int) -> tuple[int, ...]:
    return (*((time_steps,) if contract.coding.per_step else ()), *contract.input.shape)


def _same(one: RunResult, other: RunResult) -> bool:
    same = np.array_equal(one.readout, other.readout)
    return same and np.array_equal(one.spike_counts, other.spike_counts)


def _close(one: RunResult, other: RunResult) -> bool:
    close = np.allclose(one.readout, other.readout, rtol=READOUT_TOLERANCE, atol=READOUT_TOLERANCE)
    return close and np.array_equal(one.spike_counts, other.spike_counts)
