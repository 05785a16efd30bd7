"""A session: one network that goes on from window to window, and its answer at the end of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json

from spikeserve.models.coding import EventCoder, Inputs
from spikeserve.models.engines import State
from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec import Coding, EventBinning, Polarity, Readout, Spec, validated
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.inference.sessions.batches import Batches, Results
from spikeserve.service.inference.sessions.messages import Reading, StreamOptions
from spikeserve.service.inference.sessions.values import ValueWindow, ValueWindows
from spikeserve.service.inference.sessions.windows import Window, Windows

CAMERA_AXES = 3  # channels, height, width
LINE = (
    b'{"type":"window","window":%d,"t":%d,%b,"window_counts":[%b],"spike_counts":[%b]%b,"synaptic_operations":%d,'
    b'"lag_ms":%b}'
)


class SessionState(NamedTuple):
    """A session between two windows: the state of the run, and what its lines say.

    `state` is None at rest. `number` is that of the next window, and `start` when it begins, None before that is known.
    `decayed` (classes,) are the scores of `Reading.DECAY`. `late` events came too late that no window has told of.
    """

    state: State | None
    number: int
    start: int | None
    decayed: NDArray[np.float64]
    late: int = 0

    @classmethod
    def begin(cls, classes: int, state: State | None = None) -> SessionState:
        """Begin before the first window."""
        return cls(state, 0, None, np.zeros(classes))


class Session:
    """One client's session with one model; `at` is where it is, after the last window that was answered.

    Raises InvalidInput for a model that has no sessions, and for options that do not fit it.
    """

    def __init__(self, model: LoadedModel, options: StreamOptions, batches: Batches) -> None:
        spec = model.network.spec
        if spec.read_whole:
            raise InvalidInput(
                f"model '{model.name}' has {spec.read_whole}, expected another: such a model has no streams"
            )
        if options.scores is not Reading.TOTAL and spec.readout is not Readout.SPIKE_COUNT:
            raise InvalidInput(
                f"scores is '{options.scores}', but this model's class is read from '{spec.readout}', expected total"
            )
        self.model = model
        self.spec = spec
        self.options = options
        self.batches = batches
        self.windows = windows_of(model, spec, options)
        self.most = batches.most(model, self.windows.steps)  # windows in a run
        self.coder = EventCoder(spec)
        self.reading = list(Reading).index(options.scores)
        self.tells_scores = self.reading > 0 or spec.readout is not Readout.SPIKE_COUNT
        labels = spec.labels if spec.scores.has_classes else ()
        self.labels = [b',"class_index":%d,"label":%b' % (each, to_json(name)) for each, name in enumerate(labels)]
        self.at = SessionState.begin(spec.classes)

    def carried(self) -> SessionState:
        """Return its state, to go on elsewhere."""
        at = self.at
        start = self.windows.origin if at.start is None else at.start
        return at._replace(start=start, late=self.windows.late_of(at.number))

    def go_on(self, at: SessionState) -> None:
        """Go on from the state of a session elsewhere."""
        self.at = at
        self.windows.go_on(at.number, at.start, at.late)

    def closed(self) -> list[Window] | list[ValueWindow]:
        """Return the next windows that are closed, as many as may run at once, on the engine that runs them now."""
        if self.model.successor is not None:
            self.model = self.model.newest
            self.most = self.batches.most(self.model, self.windows.steps)
        close: Any = self.windows.close
        return list(islice(iter(close, None), self.most))

    def inputs(self, windows: Sequence[Window | ValueWindow]) -> list[Inputs]:
        """Return closed windows as the network's inputs. Raises InvalidInput."""
        state, seed = self.at.state, self.options.seed
        behind = 0 if state is None else int(state.steps[0])
        return [window.inputs(self.coder, behind + place * window.steps, seed) for place, window in enumerate(windows)]

    def lines(self, windows: Sequence[Window | ValueWindow], results: Results, arrived: float) -> list[bytes]:
        """Go on to the state after windows, and return their lines, as LINE; the message came then that closed them."""
        decayed, decay, lines = self.at.decayed, self.options.decay, list[bytes]()
        lag = to_json(round((perf_counter() - arrived) * 1000, 3))
        for window, (fired, met, first, readout, of_window, so_far) in zip(windows, results.rows, strict=True):
            decayed = decayed * decay + fired
            if self.reading:
                scores = (fired, decayed)[self.reading - 1]
                first, readout = int(scores.argmax()), scores.tolist()
            told = self._scores(first, readout)
            lines.append(LINE % (window.number, window.end, window.members, of_window, so_far, told, met, lag))
        self.at = SessionState(results.state, window.number + 1, window.end, decayed)
        return lines

    def _scores(self, first: int, scores: list[float]) -> bytes:
        """Return the class of a window and its scores, as members of its line."""
        members = b',"scores":' + to_json(scores, inf_nan_mode="null") if self.tells_scores else b""
        if self.labels:
            members += self.labels[first]
            if len(scores) > 1:
                *_, second, best = sorted(scores)
                members += b',"margin":' + to_json(best - second, inf_nan_mode="null")
        return members


def windows_of(model: LoadedModel, spec: Spec, options: StreamOptions) -> Windows | ValueWindows:
    """Return the windows of a stream. Raises InvalidInput and TooLarge for options that do not fit the model."""
    windows: Windows | ValueWindows
    if spec.coding is Coding.SPIKES:
        events = binning_of(spec, options)
        windows = Windows(events, options.window_steps or events.window_steps, options.lateness_us or 0)
    else:
        for name in ("step_us", "lateness_us"):
            if getattr(options, name) is not None:
                raise InvalidInput(
                    f"{name} is {getattr(options, name)}, but this model takes a stream of values, whose time is "
                    "counted in steps"
                )
        windows = ValueWindows(spec, options.window_steps or (1 if spec.coding.per_step else spec.time_steps))
    model.limits.check_steps(windows.steps, "window_steps")
    model.limits.check_size(1, windows.steps)
    return windows


def binning_of(spec: Spec, options: StreamOptions) -> EventBinning:
    """Return how a stream's events become steps: as the model's input says, or else as its shape suggests.

    Raises InvalidInput where nothing says how long a step is.
    """
    known = spec.input.events
    step_us = known.step_us if known else round(spec.dt * 1e6) if spec.dt else None
    if options.step_us is not None and step_us not in (None, options.step_us):
        raise InvalidInput(f"step_us is {options.step_us}, but a step of this model is {step_us} microseconds")
    if known is not None:
        return known
    step_us = step_us or options.step_us
    if step_us is None:
        raise InvalidInput("step_us is missing: this model does not say how long its steps are, expected ?step_us=…")
    channels, *area = spec.input.shape if len(spec.input.shape) == CAMERA_AXES else (1, math.prod(spec.input.shape))
    if channels > 2 or len(area) > 2:
        channels, area = 1, [math.prod(spec.input.shape)]
    polarity = Polarity.CHANNELS if channels == 2 else Polarity.MERGED
    # A step or an input may be so large that no record of events tells it.
    where, sensor = "this model has no streams of events", tuple(reversed(area))
    return validated(InvalidInput, where, EventBinning, step_us=step_us, sensor=sensor, polarity=polarity)
