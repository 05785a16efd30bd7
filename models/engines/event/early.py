"""Runs whose samples end early, by one native call: the rule is asked where the spikes are counted."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines.base import RunResult
from spikeserve.models.engines.event import node_kernels
from spikeserve.models.engines.event.chunk import LONG, held_by_thread
from spikeserve.models.engines.event.cores import Cores
from spikeserve.models.engines.event.plan import Plan
from spikeserve.models.engines.event.table import ENDED
from spikeserve.models.engines.event.tiles import room_of
from spikeserve.models.engines.stop import Stop, check
from spikeserve.models.spec import INPUT, Readout


def run_early(
    plan: Plan, inputs: DenseInputs, checks: Sequence[int], worth: float, stop: Stop | None, cores: Cores, *, ties: bool
) -> RunResult | None:
    """Run each sample from rest until it is sure, see `node_kernels.run_early`; None where that cannot be.

    It cannot be for a readout of anything but spike counts, where Python runs a node, where one sample is work for
    several cores, and where it finds more than the arena holds.
    """
    tables, batch = plan.tables, inputs.batch
    work = plan.work_per_step * inputs.time_steps
    if plan.spec.readout is not Readout.SPIKE_COUNT or not (tables.native and batch) or work >= cores.enough:
        return None
    steps = inputs.steps if inputs.steps.flags.c_contiguous and inputs.steps.flags.writeable else inputs.steps.copy()
    values, width = steps.reshape(-1), plan.layouts[INPUT].places.size
    counts, taken = np.zeros((batch, tables.units), np.int64), np.zeros(batch, np.int64)
    results = np.zeros((batch, 1 + len(tables.spiking)), np.int64)
    looks, failed = np.array(checks, np.int64), list[bool]()
    size = max(1, min(int(LONG / work), -(-batch // cores.count)))
    waiting = deque((first, min(first + size, batch)) for first in range(0, batch, size))

    def run_parts() -> None:
        room = held_by_thread(len(tables.slots))
        carried = np.empty(plan.carried.floats, np.float32)
        states = np.array([carried.ctypes.data])
        with suppress(IndexError):  # none is left
            while not failed:
                first, end = waiting.popleft()
                check(stop)
                ended = node_kernels.run_early.call(
                    tables.rows, room.signals, room.runs, first, end, looks, worth, ties, taken, states, values, width,
                    0 if inputs.constant else batch * width, results.reshape(-1), counts.reshape(-1), room.arena,
                    room_of(tables.room),
                )  # fmt: skip
                if ended != ENDED:
                    failed.append(True)

    with cores:
        cores.share(cores.helpers(work * batch, len(waiting)), run_parts)
    if failed:
        return None
    by_kind = results.T.copy()
    spikes = {name: by_kind[k] for name, k in tables.spiking.items()}
    return RunResult(counts, counts.astype(np.float32), by_kind[0], spikes, steps_used=taken)
