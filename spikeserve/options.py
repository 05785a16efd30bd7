"""What a session may choose."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Literal, TypedDict

from spikeserve.answers import SessionState
from spikeserve.errors import InvalidOption

STATE_EVERY = 50  # windows
RETRIES = 12  # which takes about half a minute where the server is not there
OWN = frozenset({"model", "version", "state", "state_every", "retries"})  # which are not the server's


class ResumeOptions(TypedDict, total=False):
    """The options of a session that goes on from a state; each may be left out.

    model         its name; by default the client's, or else the server's default
    version       of the model; by default the newest. A state goes on only with the version that it is of
    step_us       microseconds of a time step, for a model whose input does not say it
    window_steps  time steps of a window; by default as the model says, or 1
    lateness_us   microseconds that an event may come behind the latest one before its window closes; 0
    scores        what the class is read from: all windows ("total", the default), each alone, or a decaying sum
    decay         for scores="decay": how much a window counts for the next one; 0.9
    seed          for a model of rate coding, what its spikes are drawn by; 0
    state_every   windows after which the client asks for the state that it would go on from; 50
    retries       connections in a row that are tried without hearing of a new window; 12
    """

    model: str | None
    version: int | None
    step_us: int | None
    window_steps: int | None
    lateness_us: int | None
    scores: Literal["total", "window", "decay"] | None
    decay: float | None
    seed: int | None
    state_every: int
    retries: int


class SessionOptions(ResumeOptions, total=False):
    """The options of a session, those of ResumeOptions and the `state` of another session, to go on from."""

    state: SessionState | None


def check_names(options: SessionOptions) -> None:
    """Raise InvalidOption for an option that there is not."""
    names = SessionOptions.__annotations__
    if unknown := sorted(options.keys() - names.keys()):
        near = get_close_matches(unknown[0], names, 1)
        expected = f"'{near[0]}'" if near else f"one of {', '.join(names)}"
        raise InvalidOption(f"'{unknown[0]}' is not an option of a session, expected {expected}")


def query_of(options: SessionOptions) -> dict[str, str]:
    """Return the server's part of a session's options; those of its state stand where they are left out."""
    state = options.get("state")
    chosen = {name: str(value) for name, value in options.items() if name not in OWN and value is not None}
    return {**(state.options if state else {}), **chosen}
