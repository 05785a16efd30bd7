"""The kernels that step a layer of neurons through time, forward and back.

Rows are one step of one sample, row step * batch + sample, and padded to whole vectors (`width` floats) in the arrays
of this room. The steps and their gradients are `vector_code`'s. A layer is cut into items, each some neighbouring
neurons of some samples, which threads share.
"""

from __future__ import annotations

from spikeserve.models.engines.event.connections import PANEL
from spikeserve.models.engines.event.currents import Array, aligned_floats, gather
from spikeserve.models.engines.event.vectors import FLOAT_ROWS, LANES
from spikeserve.training.fit.operators.compiled import kernel
from spikeserve.training.fit.operators.products import multiply_rows
from spikeserve.training.fit.operators.vector_code import backward_step, forward_step


@kernel
def scan_forward(
    step_code: int, steps: int, batch: int, size: int, width: int, columns: int, samples: int, index: Array,
    value: Array, offset: Array, weight: Array, units: int, bias: Array, current: Array, step_stride: int,
    sample_stride: int, states: Array, parameters: Array, stored: Array, stored_row: int, stored_stride: int,
    leaving: Array, fired: Array, first: int, end: int, _: int,
) -> None:  # fmt: skip
    """Run the items `first` to `end` of a layer through all steps.

    An item is `columns` neurons of `samples` samples. Their currents lie at current[step * step_stride + sample *
    sample_stride:], or, where `weight` has panels, are `bias` and the weights of the events of each row. `states`
    (states, batch, width) are those before the first step, and become those after the last. What the backward pass
    needs goes to `stored`, `stored_row` apart from row to row. Who fired goes to `fired` (rows, width / LANES) as bits,
    and what leaves to `leaving` (rows, size), unless that is empty.
    """
    connected = weight.size > 0
    blocks = -(-batch // samples)
    sums = aligned_floats(steps * samples * PANEL if connected else LANES)
    source = sums if connected else current
    for item in range(first, end):
        column = item // blocks * columns
        across = min(columns, width - column)
        start = item % blocks * samples
        stop = min(start + samples, batch)
        if connected:
            for step in range(steps):
                for sample in range(start, stop):
                    row = step * batch + sample
                    gather(
                        sums, (step * samples + sample - start) * PANEL, bias, column, weight, units * column, across,
                        across, index, value, offset[row], offset[row + 1],
                    )  # fmt: skip
        for step in range(steps):
            for sample in range(start, stop):
                row = step * batch + sample
                c = step * step_stride + sample * sample_stride + column
                if connected:
                    c = (step * samples + sample - start) * PANEL
                forward_step(
                    step_code, across, source, c, states, 0, states, sample * width + column, batch * width, parameters,
                    column, width, stored, row * stored_row + column, stored_stride, leaving, row * size + column,
                    size - column, fired, (row * width + column) // LANES,
                )  # fmt: skip


@kernel
def scan_backward(
    step_code: int, steps: int, batch: int, size: int, width: int, columns: int, to_leaving: Array, step_stride: int,
    sample_stride: int, above: Array, above_width: int, above_weight: Array, common: Array, to_states: Array,
    parameters: Array, stored: Array, stored_stride: int, slope: float, to_current: Array, constant: bool,
    to_trained: Array, trained_stride: int, first: int, end: int, part: int,
) -> None:  # fmt: skip
    """Run the gradients of the items `first` to `end` back through all steps.

    An item is `columns` neurons of one sample. The gradient of what leaves is to_leaving[step * step_stride + sample *
    sample_stride:] and `common` (width,), which is the same for all rows. Where `above` is not empty, it is instead the
    errors (rows, above_width) of the Linear above times its `above_weight`, as `pack_rows` packs it, of at least
    FLOAT_ROWS steps. `to_states` (states, batch, width) are the gradients of the states after the last step, and become
    those before the first. The gradients of the currents go to `to_current` (rows, width), or their sum over the steps
    to (batch, width) where the current is `constant`. Those of the trained parameters are added to `to_trained` (parts,
    trained, width), `trained_stride` apart from part to part.
    """
    zeros = aligned_floats(max(columns, PANEL))
    zeros[:] = 0.0
    arriving = aligned_floats((FLOAT_ROWS + 1) * columns)
    trained = part * trained_stride
    for item in range(first, end):
        column = item // batch * columns
        sample = item % batch
        stop = min(column + columns, width)
        if constant:
            to_current[sample * width + column : sample * width + stop] = 0.0
        computed = steps  # from this step on, `arriving` has been computed
        for back in range(steps):
            step = steps - 1 - back
            row = step * batch + sample
            source, g, lanes = to_leaving, step * step_stride + sample * sample_stride + column, size - column
            if above.size:
                if step < computed:
                    computed = max(0, step + 1 - FLOAT_ROWS)
                    multiply_rows(
                        arriving, above, (computed * batch + sample) * above_width, batch * above_width, FLOAT_ROWS,
                        above_width, above_weight, zeros, column, stop,
                    )  # fmt: skip
                source, g, lanes = arriving, (step - computed) * (stop - column), stop - column
            c = sample * width if constant else row * width
            backward_step(
                step_code, stop - column, source, g, lanes, common, column, zeros, 0, to_states,
                sample * width + column, batch * width, parameters, column, width, stored, row * width + column,
                stored_stride, slope, to_current, c + column, 1 if constant else 0, to_current, 0, to_trained,
                trained + column, width,
            )  # fmt: skip
