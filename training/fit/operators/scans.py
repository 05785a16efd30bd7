"""The kernels that step a layer of neurons through time, forward and back, with its connection to itself if it has one.

Rows are one step of one sample, row step * batch + sample, and padded to whole vectors (`width` floats) in the arrays
of this room. The steps and their gradients are `vector_code`'s. A layer is cut into items, each `columns` neighbouring
neurons of `samples` samples, which threads share. A recurrent layer's items have all neurons, as each hears all others.
"""

from __future__ import annotations

import numpy as np

from spikeserve.models.engines.event.connections import PANEL
from spikeserve.models.engines.event.currents import Array, aligned_floats
from spikeserve.models.engines.event.native import call
from spikeserve.models.engines.event.vectors import FLOAT_ROWS, LANES, list_bits
from spikeserve.training.fit.operators.products import gather, multiply_rows, pack_columns
from spikeserve.training.fit.operators.threads import Kernel


@Kernel
def scan_forward(
    step: int, steps: int, batch: int, size: int, width: int, columns: int, samples: int, index: Array, value: Array,
    offset: Array, weight: Array, units: int, bias: Array, current: Array, step_stride: int, sample_stride: int,
    recurrent_weight: Array, recurrent_bias: Array, states: Array, parameters: Array, stored: Array,
    stored_row: int, stored_stride: int, leaving: Array, fired: Array, first: int, end: int, _: int,
) -> None:  # fmt: skip
    """Run the items `first` to `end` of a layer through all steps, with the function at the address `step`.

    Their currents lie at current[step * step_stride + sample * sample_stride:], or, where `weight` (size, units) is not
    empty, are `bias` and the weights of the events of each row; a panel of it is packed when it is needed, and then is
    in the cache. `states` (states, batch, width) are those at rest, and are written over. What the backward pass needs
    goes to `stored`, `stored_row` apart from row to row. Who fired goes to `fired` (rows, width / LANES) as bits, and
    what leaves to `leaving` (rows, size), unless that is empty.

    In a recurrent layer `recurrent_weight` has a row for each sender, and `recurrent_bias` (2, width) what is added at
    the first step and at later ones; `weight` is then packed before, in rows as wide.
    """
    connected, recurrent = weight.size > 0, recurrent_weight.size > 0
    blocks = -(-batch // samples)
    ahead = connected and not recurrent  # the currents of all steps are computed first, panel by panel
    sums = aligned_floats(steps * samples * PANEL if ahead else width)
    panel = aligned_floats(units * PANEL if ahead else LANES)
    packed = -1  # the column of the panel
    source = sums if connected else current
    feedback = aligned_floats(width if recurrent else LANES)
    room = width + LANES  # of a sample's senders, the neurons that fired at the step before
    senders = np.empty(samples * room if recurrent else 0, np.int32)
    sent = np.empty(senders.size if leaving.size else 0, np.float32)
    last = np.empty(samples, np.int64)  # where a sample's senders end
    for item in range(first, end):
        column = item // blocks * columns
        across = min(columns, width - column)
        start = item % blocks * samples
        stop = min(start + samples, batch)
        if ahead:
            if column != packed:
                packed = column
                pack_columns(weight, size, units, column, across, panel, 0, across)
            for now in range(steps):
                for sample in range(start, stop):
                    row = now * batch + sample
                    gather(
                        sums, (now * samples + sample - start) * PANEL, bias, column, panel, 0, across, across, index,
                        value, offset[row], offset[row + 1],
                    )  # fmt: skip
        for sample in range(samples):
            last[sample] = sample * room
        together = 1 if recurrent else stop - start
        for now in range(steps):
            for sample in range(start, stop, together):
                row = now * batch + sample
                c = now * step_stride + sample * sample_stride + column
                begin = (sample - start) * room
                if connected:
                    c = (now * samples + sample - start) * PANEL if ahead else 0
                if recurrent:
                    if connected:
                        gather(
                            sums, 0, bias, 0, weight, 0, width, width, index, value, offset[row], offset[row + 1]
                        )  # fmt: skip
                    gather(
                        feedback, 0, recurrent_bias, 0 if now == 0 else width, recurrent_weight, 0, width, width,
                        senders, sent, begin, last[sample - start],
                    )  # fmt: skip
                call(
                    step, across, together, source, c, PANEL if ahead else sample_stride, feedback, 0, states,
                    sample * width + column, batch * width, width, parameters, column, width, stored,
                    row * stored_row + column, stored_stride, stored_row, leaving, row * size + column, size - column,
                    size, fired, (row * width + column) // LANES, width // LANES,
                )  # fmt: skip
                if recurrent:
                    count = begin
                    for at in range(0, width, LANES):
                        count = list_bits(senders, count, at, np.uint64(fired[(row * width + at) // LANES]))
                    last[sample - start] = count
                    for k in range(begin, count if sent.size else begin):
                        sent[k] = leaving[row * size + senders[k]]


@Kernel
def scan_backward(
    step: int, steps: int, batch: int, size: int, width: int, columns: int, samples: int, to_leaving: Array,
    step_stride: int, sample_stride: int, above: Array, above_width: int, above_weight: Array, common: Array,
    to_states: Array, recurrent_weight: Array, parameters: Array, stored: Array, stored_stride: int,
    slope: float, to_current: Array, constant: bool, to_feedback: Array, to_trained: Array, trained_stride: int,
    first: int, end: int, part: int,
) -> None:  # fmt: skip
    """Run the gradients of the items `first` to `end` back through all steps, with the function at the address `step`.

    The gradient of what leaves is to_leaving[step * step_stride + sample * sample_stride:] and `common` (width,), which
    is the same for all rows. Where `above` is not empty, it is instead the errors (rows, above_width) of the Linear
    above times its `above_weight`, as `pack_rows` packs it, of at least FLOAT_ROWS steps. `to_states` (states, batch,
    width) begin at 0, and become the gradients of the states at rest. Those of the currents go to `to_current` (rows,
    width), or their sum over the steps to (batch, width) where the current is `constant`. Those of the trained
    parameters are added to `to_trained` (parts, trained, width), `trained_stride` apart from part to part.

    Only a recurrent layer's items have several samples; `recurrent_weight` then has panels of a row for each receiver.
    `to_feedback` (rows, width) is `to_current`, unless the step tells them apart. Both have room for FLOAT_ROWS more
    rows.
    """
    recurrent = recurrent_weight.size > 0
    blocks = -(-batch // samples)
    zeros = aligned_floats(max(columns, PANEL))
    zeros[:] = 0.0
    back = aligned_floats((samples + FLOAT_ROWS) * columns)
    back[:] = 0.0
    arriving = aligned_floats((samples + FLOAT_ROWS) * columns if above.size else LANES)
    trained = part * trained_stride
    for item in range(first, end):
        column = item // blocks * columns
        across = min(columns, width - column)
        start = item % blocks * samples
        stop = min(start + samples, batch)
        at_once = 1 if recurrent else FLOAT_ROWS  # the steps of which `arriving` is computed: of one sample, or of all
        apart, many = (above_width, stop - start) if recurrent else (batch * above_width, FLOAT_ROWS)
        computed = steps  # from this step on, `arriving` has been computed
        if recurrent:
            back[: (stop - start) * width] = 0.0
        if constant:
            to_current[start * width + column : start * width + column + across] = 0.0
        for reverse in range(steps):
            now = steps - 1 - reverse
            if recurrent and reverse:
                after = ((now + 1) * batch + start) * width
                multiply_rows(back, to_feedback, after, width, stop - start, width, recurrent_weight, zeros, 0, width)
            if above.size and now < computed:
                computed = max(0, now + 1 - at_once)
                multiply_rows(
                    arriving, above, (computed * batch + start) * above_width, apart, many, above_width, above_weight,
                    zeros, column, column + across,
                )  # fmt: skip
            for sample in range(start, stop):
                row = now * batch + sample
                source, g, lanes = to_leaving, now * step_stride + sample * sample_stride + column, size - column
                if above.size:
                    source, g, lanes = arriving, (now - computed + sample - start) * across, across
                c = (sample if constant else row) * width + column
                call(
                    step, across, source, g, lanes, common, column, back, (sample - start) * across, to_states,
                    sample * width + column, batch * width, parameters, column, width, stored, row * width + column,
                    stored_stride, slope, to_current, c, 1 if constant else 0, to_feedback, c, to_trained,
                    trained + column, width,
                )  # fmt: skip
