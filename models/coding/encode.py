"""Input coding: checks a client's samples and encodes them as the network's input at each step.

    direct   the normalised value is a constant current, the same at every step
    rate     at each step a spike with the normalised value as its probability (Bernoulli)
    latency  one spike, which is earlier the larger the value x is: at step floor((1 - x) * (time_steps - 1) + 1/2);
             no spike where x is 0
    spikes   the client sends a raster, or its events
    current  the client sends a value for each step, such as a time series; normalised, it is that step's current

Rate coding draws from a counter-based generator (Philox 4x64, Salmon et al., SC 2011) keyed by the seed, step by step:
a seed gives the same spikes on any engine and machine and at any place in a batch, and a longer run begins with the
spikes of a shorter one. A run that goes on from a state draws from where the run before it ended. Only the raw stream
of NumPy's generator is used, which NumPy promises never to change.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.coding.inputs import DenseInputs
from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec import Coding, Input, OutOfRange, Spec
from spikeserve.models.spec.input import FURTHEST
from spikeserve.models.spec.network import FloatArray
from spikeserve.models.spec.parameters import Shape, show

MAX_SEED = 2**64 - 1
PHILOX_WORDS = 4  # numbers that each count of the generator gives

# Said where a model has the range of a spec that declares none.
UNDECLARED = ", since its spec declares no other range (import has --low, --high, --mean and --std)"


def encode(
    samples: FloatArray, task: Spec, time_steps: int | None = None, seed: int | Sequence[int] = 0, first: int = 0
) -> DenseInputs:
    """Encode raw samples by the task's coding.

    `samples` holds raw values in the task's declared range: (batch, *input shape), or for `spikes` and `current`
    coding (batch, time_steps, *input shape). `time_steps` defaults to the task's, or for those two to the samples'.
    `seed` is one unsigned 64-bit integer for all samples, or one for each; only `rate` uses it, and `first`, which is
    how many steps the samples have behind them. Raises InvalidInput.
    """
    expected = ("time_steps", *task.input.shape) if task.coding.per_step else task.input.shape
    if samples.ndim != len(expected) + 1 or samples.shape[samples.ndim - len(task.input.shape) :] != task.input.shape:
        shape = "×".join(str(size) for size in expected)
        raise InvalidInput(f"each sample of inputs has shape {show(samples.shape[1:])}, expected {shape}")
    steps = _steps(samples, task, time_steps)
    task.check_steps(steps)
    values = normalise(samples, task.input)
    if task.input.by_deviation:
        values = _by_deviation(values, task.input)
    return DenseInputs(CODINGS[task.coding](values, steps, seed, first), steps)


def encode_next(values: FloatArray, task: Spec, time_steps: int, seed: int, first: int) -> DenseInputs:
    """Encode the next steps of one sample, which has `first` steps behind it.

    `values` is what `normalise` returned: (time_steps, *input shape), or (*input shape) where the coding makes the
    steps of it. Raises InvalidInput where a sample has to be read whole, and for a seed that is out of range.
    """
    if task.read_whole:
        raise InvalidInput(f"the model has {task.read_whole}, expected another to go on")
    return DenseInputs(CODINGS[task.coding](values[np.newaxis], time_steps, seed, first), time_steps)


def _steps(samples: FloatArray, task: Spec, time_steps: int | None) -> int:
    if time_steps is not None and time_steps < 1:
        raise InvalidInput(f"time_steps is {time_steps}, expected at least 1")
    if not task.coding.per_step:
        return task.time_steps if time_steps is None else time_steps
    sent = samples.shape[1]
    if sent < 1:
        what = "raster" if task.coding is Coding.SPIKES else "sample"
        raise InvalidInput(f"a {what} in inputs has 0 steps, expected at least 1")
    if time_steps not in (None, sent):
        raise InvalidInput(f"time_steps is {time_steps}, but the inputs have {sent} steps")
    return sent


def normalise(samples: FloatArray, declared: Input, where: str = "inputs") -> FloatArray:
    """Check raw values (…, *input shape) against the declared range, and return them normalised, float32.

    Those beyond the range are clipped to it where the input says so. Raises InvalidInput for the others; `where` is
    what holds them.
    """
    low, high = declared.range
    if declared.out_of_range is OutOfRange.CLIP:
        _require(np.isfinite(samples), samples, declared, where)
        samples = np.clip(samples, low, high)
    else:
        _require((samples >= low) & (samples <= high), samples, declared, where)  # NaN is outside too
    return declared.normalise(samples.astype(np.float32, copy=False))


def _by_deviation(values: FloatArray, declared: Input) -> FloatArray:
    """Return samples (batch, time_steps, channels, …) less their mean, over their deviation, with one channel more.

    That channel is the deviation's logarithm to base 2, straight between the powers of two. Its sums are exact, so that
    a sample gives the same bits on any machine.
    """
    encoded = np.zeros((*values.shape[:2], *declared.arriving), np.float32)
    for sample, into in zip(values.astype(np.float64), encoded, strict=True):
        apart = sample - math.fsum(sample.ravel().tolist()) / sample.size
        deviation = math.sqrt(math.fsum(np.square(apart).ravel().tolist()) / sample.size)
        mantissa, exponent = math.frexp(deviation)
        into[:, :-1] = apart / deviation if deviation else 0.0
        into[:, -1] = exponent + 2 * mantissa - 2 if deviation else -FURTHEST
    return declared.rounded(np.clip(encoded, -FURTHEST, FURTHEST))


def _require(right: NDArray[np.bool_], samples: FloatArray, declared: Input, name: str) -> None:
    """Raise InvalidInput for the first sample's value that is not right."""
    if right.all():
        return
    where = tuple(int(index) for index in np.argwhere(~right)[0])
    position = "".join(f"[{index}]" for index in where)
    low, high = (np.broadcast_to(end, samples.shape)[where] for end in declared.range)
    clipped = declared.out_of_range is OutOfRange.CLIP
    expected = "a finite number" if clipped else f"{low:g} to {high:g}"
    hint = UNDECLARED if not clipped and declared == Input(shape=declared.shape) else ""
    raise InvalidInput(f"{name}{position} is {samples[where]:g}, expected {expected}{hint}")


def _rate(values: FloatArray, time_steps: int, seed: int | Sequence[int], first: int) -> FloatArray:
    if isinstance(seed, int):
        return (uniform(seed, time_steps, values.shape[1:], first)[:, np.newaxis] < values).astype(np.float32)
    if len(seed) != len(values):
        raise InvalidInput(f"seed holds {len(seed)} seeds for {len(values)} samples, expected one for each")
    steps = np.empty((time_steps, *values.shape), np.float32)
    for sample, key in enumerate(seed):
        steps[:, sample] = uniform(key, time_steps, values.shape[1:], first) < values[sample]
    return steps


def uniform(seed: int, time_steps: int, shape: Shape, first: int = 0) -> FloatArray:
    """Return (time_steps, *shape) random numbers in [0, 1), multiples of 2**-24, which are exact in float32.

    They are those of the steps from `first` on.
    """
    if not 0 <= seed <= MAX_SEED:
        raise InvalidInput(f"seed is {seed}, expected an integer from 0 to {MAX_SEED}")
    size = math.prod(shape)
    blocks, behind = divmod(first * size, PHILOX_WORDS)
    raw = np.random.Philox(key=seed, counter=blocks).random_raw(behind + time_steps * size)[behind:]
    return ((raw >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)).reshape(time_steps, *shape)


def _latency(values: FloatArray, time_steps: int, *_: object) -> FloatArray:
    last = np.float32(time_steps - 1)
    first_spike = np.floor((np.float32(1.0) - values) * last + np.float32(0.5))
    step = np.arange(time_steps, dtype=np.float32).reshape(time_steps, *(1 for _ in values.shape))
    return ((step == first_spike) & (values > 0)).astype(np.float32)


CODINGS: Mapping[Coding, Callable[[FloatArray, int, Any, int], FloatArray]] = {
    Coding.DIRECT: lambda values, *_: values[np.newaxis],
    Coding.RATE: _rate,
    Coding.LATENCY: _latency,
    **dict.fromkeys((Coding.SPIKES, Coding.CURRENT), lambda values, *_: np.ascontiguousarray(values.swapaxes(0, 1))),
}
