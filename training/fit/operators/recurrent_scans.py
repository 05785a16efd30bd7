"""The kernels that step a recurrent layer through time, forward and back, with the connection to itself.

Rows and arrays are as in `scans`. An item is a few samples with all their neurons, since each hears all others.
"""

from __future__ import annotations

import numpy as np

from spikeserve.models.engines.event.connections import PANEL
from spikeserve.models.engines.event.currents import Array, aligned_floats, gather
from spikeserve.models.engines.event.vectors import FLOAT_ROWS, LANES, list_bits, nonzero_bits
from spikeserve.training.fit.operators.compiled import kernel
from spikeserve.training.fit.operators.products import multiply_rows
from spikeserve.training.fit.operators.vector_code import backward_step, forward_step


@kernel
def recurrent_forward(
    step_code: int, steps: int, batch: int, size: int, width: int, current: Array, step_stride: int, sample_stride: int,
    weight: Array, bias: Array, states: Array, spikes: Array, parameters: Array, stored: Array, stored_row: int,
    stored_stride: int, leaving: Array, fired: Array, first: int, end: int, _: int,
) -> None:  # fmt: skip
    """Run the samples `first` to `end` of a recurrent layer through all steps; see `scans.scan_forward`.

    `weight` has panels of a row for each sender, `bias` (2, width) what is added at the first step and at later ones.
    `spikes` (batch, width) are those before the first step, and become those of the last.
    """
    index = np.empty(width + LANES, np.int32)
    value = np.empty(width + LANES if leaving.size else 0, np.float32)
    feedback = aligned_floats(width)
    for sample in range(first, end):
        count = 0
        for j in range(0, width, LANES):
            count = list_bits(index, count, j, nonzero_bits(spikes, sample * width + j))
        if value.size:
            for k in range(count):
                value[k] = spikes[sample * width + index[k]]
        for step in range(steps):
            row = step * batch + sample
            start = 0 if step == 0 else width
            for j in range(0, width, PANEL):
                across = min(PANEL, width - j)
                gather(feedback, j, bias, start + j, weight, size * j, across, across, index, value, 0, count)
            count = 0
            forward_step(
                step_code, width, current, step * step_stride + sample * sample_stride, feedback, 0, states,
                sample * width, batch * width, parameters, 0, width, stored, row * stored_row, stored_stride, leaving,
                row * size, size, fired, row * width // LANES,
            )  # fmt: skip
            for at in range(0, width, LANES):
                count = list_bits(index, count, at, np.uint64(fired[(row * width + at) // LANES]))
            if value.size:
                for k in range(count):
                    value[k] = leaving[row * size + index[k]]
        spikes[sample * width : (sample + 1) * width] = 0.0
        for k in range(count):
            spikes[sample * width + index[k]] = value[k] if value.size else 1.0


@kernel
def recurrent_backward(
    step_code: int, steps: int, batch: int, size: int, width: int, samples: int, to_leaving: Array, step_stride: int,
    sample_stride: int, above: Array, above_width: int, above_weight: Array, common: Array, to_states: Array,
    to_spikes: Array, weight: Array, parameters: Array, stored: Array, stored_stride: int, slope: float,
    to_current: Array, to_feedback: Array, separate: bool, to_trained: Array, trained_stride: int, first: int, end: int,
    part: int,
) -> None:  # fmt: skip
    """Run the gradients of the items `first` to `end`, `samples` each, back through all steps; see `scans`.

    `to_spikes` (batch, width) is the gradient of the last step's spikes as a state, and becomes that of those before
    the first step. `weight` has panels of a row for each receiver. `to_feedback` (rows, width) is `to_current` unless
    `separate`. Both have room for FLOAT_ROWS more rows.
    """
    errors = to_feedback if separate else to_current
    back = aligned_floats((samples + FLOAT_ROWS) * width)
    arriving = aligned_floats((samples + FLOAT_ROWS) * width if above.size else LANES)
    zeros = aligned_floats(PANEL)
    zeros[:] = 0.0
    trained = part * trained_stride
    for item in range(first, end):
        start = item * samples
        stop = min(start + samples, batch)
        back[: (stop - start) * width] = to_spikes[start * width : stop * width]
        for reverse in range(steps):
            step = steps - 1 - reverse
            if reverse:
                after = ((step + 1) * batch + start) * width
                multiply_rows(back, errors, after, width, stop - start, width, weight, zeros, 0, width)
            if above.size:
                multiply_rows(
                    arriving, above, (step * batch + start) * above_width, above_width, stop - start, above_width,
                    above_weight, zeros, 0, width,
                )  # fmt: skip
            for sample in range(start, stop):
                row = step * batch + sample
                source, g = to_leaving, step * step_stride + sample * sample_stride
                if above.size:
                    source, g = arriving, (sample - start) * width
                backward_step(
                    step_code, width, source, g, size, common, 0, back, (sample - start) * width, to_states,
                    sample * width, batch * width, parameters, 0, width, stored, row * width, stored_stride, slope,
                    to_current, row * width, 0, to_feedback, row * width, to_trained, trained, width,
                )  # fmt: skip
        multiply_rows(back, errors, start * width, width, stop - start, width, weight, zeros, 0, width)
        to_spikes[start * width : stop * width] = back[: (stop - start) * width]
