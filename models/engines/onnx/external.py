"""The `onnx` engine for an external model: it feeds the input and reads the output that the contract names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.coding import DenseInputs, Inputs
from spikeserve.models.engines.base import Record, RunResult
from spikeserve.models.engines.onnx.engine import open_session, run_session, said_by
from spikeserve.models.engines.state import State, check_from_rest
from spikeserve.models.engines.stop import Stop
from spikeserve.models.errors import InvalidBundle, InvalidInput, Stopped
from spikeserve.models.spec import Scores
from spikeserve.models.spec.onnx_contract import PROBABILITY_TOLERANCE, AxisLayout, OnnxContract, OutputKind
from spikeserve.models.spec.parameters import MAX_FLOAT32, Shape

FLOATS: dict[str, type[np.floating[Any]]] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
}
WHOLE = {f"tensor({sign}int{bits})" for sign in ("", "u") for bits in (8, 16, 32, 64)} | {"tensor(bool)"}
MAX_COUNT = 2**53  # beyond it a float64 cannot hold every whole number


class ContractEngine:
    """Runs a serialised ONNX model on `threads` threads per call.

    The graph is given one sample at a time, so that no answer depends on another sample, until `models.bundle.dry_run`
    has found that it may be given more and sets `batch_sizes`. Raises InvalidBundle if the model's input or output is
    not what the contract says.
    """

    name = "onnx"

    def __init__(self, contract: OnnxContract, model: bytes, threads: int = 1) -> None:
        self.contract = contract
        self.session = open_session(model, threads)
        self.batch_sizes: tuple[int, ...] = (1,)  # how many samples the graph may be given at once, ascending
        self.one_by_one = False  # whether the graph takes no more than one
        self.input_type = self._check_input()
        self._check_output()

    def with_batch_sizes(self, sizes: tuple[int, ...]) -> ContractEngine:
        """Return an engine of the same session that gives the graph as many samples at once as `sizes` allow."""
        other = copy(self)
        other.batch_sizes = sizes
        return other

    def run(
        self,
        inputs: Inputs,
        state: State | None = None,
        *,
        record: Record = Record.NONE,  # noqa: ARG002
        stop: Stop | None = None,
    ) -> tuple[RunResult, State]:
        """Run every sample from rest, without recording; the returned state holds no arrays.

        It is not known which of the graph's values are spikes or state. Raises InvalidInput for a state, or if the
        model fails on the inputs, or returns another shape or an invalid value; and Stopped.
        """
        check_from_rest(state, "nothing is known of an external graph's state, and it runs only from rest")
        output = np.concatenate([self._run(inputs[part].dense(), stop) for part in self._parts(inputs.batch)])
        after = State(np.full(inputs.batch, inputs.time_steps), {})
        if self.contract.output_kind is OutputKind.SCORES:
            return RunResult(np.zeros(output.shape, np.int64), output.astype(np.float32), None, {}), after
        counts = output.astype(np.int64)
        return RunResult(counts, counts.astype(np.float32), None, {}), after

    def _parts(self, samples: int) -> Iterator[slice]:
        """Split a batch into as few parts of the allowed sizes as possible."""
        start = 0
        while start < samples:
            size = max(size for size in self.batch_sizes if size <= samples - start)
            yield slice(start, start + size)
            start += size

    def _run(self, inputs: DenseInputs, stop: Stop | None) -> NDArray[np.float64]:
        """Return the output as (batch, classes); spikes are summed over time."""
        contract, steps = self.contract, inputs.steps
        if contract.input_layout is AxisLayout.BATCH:
            steps = steps[0]
        else:
            steps = np.broadcast_to(steps, (inputs.time_steps, *steps.shape[1:]))
            steps = steps if contract.input_layout is AxisLayout.TIME_BATCH else steps.swapaxes(0, 1)
        try:
            feed = np.ascontiguousarray(steps, self.input_type)
            (output,) = run_session(self.session, [contract.output_name], {contract.input_name: feed}, stop)
        except Stopped:
            raise
        except Exception as error:  # onnxruntime's exceptions have no common base class but Exception
            raise InvalidInput(
                f"model.onnx: ONNX Runtime fails on an input of shape {list(steps.shape)}: {said_by(error)}"
            ) from error
        return self._checked(output, inputs.batch, inputs.time_steps)

    def _checked(self, output: NDArray[Any], batch: int, time_steps: int) -> NDArray[np.float64]:
        contract, named = self.contract, f"model.onnx: its output '{self.contract.output_name}'"
        expected = contract.output_shape(batch, time_steps)
        if output.shape != expected:
            raise InvalidInput(
                f"{named} has shape {list(output.shape)} for {batch} samples at {time_steps} time_steps, "
                f"but the contract says {list(expected)}"
            )
        values = output.astype(np.float64)
        if not (np.abs(values) <= MAX_FLOAT32).all():  # this refuses NaN as well
            raise InvalidInput(f"{named} holds NaN or infinite values, expected finite ones")
        if contract.output_kind is OutputKind.SCORES:
            if contract.scores is Scores.PROBABILITIES:
                self._check_probabilities(values, named)
            return values
        wrong = (values < 0) | (values >= MAX_COUNT) | (values != np.floor(values))
        if wrong.any():
            raise InvalidInput(
                f"{named} holds {values[wrong].flat[0]:g}, but the contract's output_kind '{contract.output_kind}' "
                "says that it is whole numbers from 0"
            )
        axes = contract.output_layout.names
        return values.sum(axis=axes.index("time_steps")) if "time_steps" in axes else values

    def _check_probabilities(self, values: NDArray[np.float64], named: str) -> None:
        outside = (values < -PROBABILITY_TOLERANCE) | (values > 1 + PROBABILITY_TOLERANCE)
        if outside.any():
            raise InvalidInput(f"{named} holds {values[outside][0]:g}, but the contract says that it is probabilities")
        sums = values.sum(axis=1)
        if (np.abs(sums - 1) > PROBABILITY_TOLERANCE).any():
            worst = sums[np.abs(sums - 1).argmax()]
            raise InvalidInput(f"{named} adds up to {worst:g}, but the contract says that it is probabilities")

    def _check_input(self) -> type[np.floating[Any]]:
        """Return the input's type, and find out whether the graph takes no more than one sample."""
        found, name = {value.name: value for value in self.session.get_inputs()}, self.contract.input_name
        if set(found) != {name}:
            raise InvalidBundle(f"model.onnx: its inputs are {_listed(found)}, but the contract feeds only '{name}'")
        value = found[name]
        if value.type not in FLOATS:
            raise InvalidBundle(f"model.onnx: its input '{name}' is a {value.type}, expected one of {_listed(FLOATS)}")
        steps = self.contract.time_steps
        single = self.contract.input_shape(1, steps)
        self.one_by_one = _fits(value.shape, single) and not _fits(value.shape, self.contract.input_shape(2, steps))
        if not self.one_by_one and not _fits(value.shape, self.contract.input_shape(2, steps)):
            axes = self.contract.input_layout.shown(self.contract.input.shape)
            raise InvalidBundle(
                f"model.onnx: its input '{name}' has shape {value.shape}, but the contract says {axes} "
                f"with time_steps {steps}"
            )
        if self.contract.any_time_steps and not _fits(value.shape, self.contract.input_shape(1, steps + 1)):
            raise InvalidBundle(
                f"model.onnx: its input '{name}' has shape {value.shape}, whose time_steps are fixed, "
                "but the contract says any_time_steps"
            )
        return FLOATS[value.type]

    def _check_output(self) -> None:
        found, name = {value.name: value for value in self.session.get_outputs()}, self.contract.output_name
        if name not in found:
            raise InvalidBundle(f"model.onnx: its outputs are {_listed(found)}, but the contract reads '{name}'")
        value = found[name]
        if value.type not in FLOATS and value.type not in WHOLE:
            raise InvalidBundle(f"model.onnx: its output '{name}' is a {value.type}, expected a tensor of numbers")
        batch = 1 if self.one_by_one else 2
        expected = self.contract.output_shape(batch, self.contract.time_steps)
        if value.shape and not _fits(value.shape, expected):
            axes = self.contract.output_layout.shown((self.contract.classes,))
            raise InvalidBundle(
                f"model.onnx: its output '{name}' has shape {value.shape}, but the contract says {axes}"
            )


def _fits(declared: Sequence[int | str | None], shape: Shape) -> bool:
    """Return whether an array of `shape` fits declared dimensions, each a size, a name or unknown."""
    return len(declared) == len(shape) and all(
        not isinstance(size, int) or size == wanted for size, wanted in zip(declared, shape, strict=True)
    )


def _listed(names: Any) -> str:
    return ", ".join(f"'{name}'" for name in names) or "none"
