"""A query: a decoded request of either protocol, its sender, and the codec that decodes it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from pydantic import Field

from spikeserve.models.coding import MAX_SEED, Inputs
from spikeserve.models.engines import Record, State
from spikeserve.models.engines.anytime import StopRule
from spikeserve.models.spec.network import FloatArray
from spikeserve.service.errors import shown
from spikeserve.service.inference.decoding.validation import Strict
from spikeserve.service.inference.scheduling.answer import Renderer


class Sender(NamedTuple):
    """The API key that a request came with, if any, and the address and port that it came from."""

    key: bytes = b""
    host: str = ""
    port: int = 0


NOBODY = Sender()  # of a request that belongs to no sequence


class AnswerField(StrEnum):
    """The optional fields of an answer."""

    RASTER = "raster"
    MEMBRANE = "membrane"
    SPIKES_PER_NODE = "spikes_per_node"


class RunOptions(NamedTuple):
    """The options of a run: its steps, the seed of `rate` coding, a rule to end early, and the returned fields."""

    time_steps: int
    seed: int = 0
    stop: StopRule | None = None
    returned: frozenset[AnswerField] = frozenset()


# Those that the engine must record.
RECORDED = {AnswerField.RASTER: Record.RASTER, AnswerField.MEMBRANE: Record.MEMBRANE}


@dataclass(frozen=True)
class InSequence:
    """The sequence of a request, which may be its first or last one.

    A first one begins at `state`, where None is rest. With `tells_state`, the answer holds the state after the request.
    """

    id: int | str
    start: bool
    end: bool
    state: State | None = None
    tells_state: bool = False

    @property
    def shown(self) -> str:
        """The id, for a sentence."""
        return shown(self.id)


@dataclass(frozen=True)
class Query:
    """A decoded request.

    `samples`: raw values, not yet encoded, (batch, *shape), or (batch, time_steps, *shape) for `spikes` and `current`
    coding; or inputs already, where they were sent as events. Without a `render`, the result of the run is the answer.
    """

    samples: FloatArray | Inputs
    options: RunOptions
    answer_bytes: int  # the most that the answer can take, before it is compressed; at most what the settings allow
    render: Renderer | None = None
    timeout: float | None = None  # the body's own timeout, in seconds from the request's arrival
    sequence: InSequence | None = None


SMALL_BODY = 2**14  # bytes; decoding a longer body takes longer than handing it to another thread
FEW_VALUES = 2**18  # values of all samples; making more takes longer than handing the request to another thread


class Codec(Protocol):
    """Decodes one request for one model. Its methods may run on any thread and keep no state."""

    def decode_small(self, body: bytes) -> Query | None:
        """Decode a body of at most SMALL_BODY bytes on the event loop; return None where that could take long.

        A few events may stand for a large raster, and a compressed body may be long. Raises as `decode` does.
        """

    def decode(self, body: bytes) -> Query:
        """Decode a body. Raises UnsupportedMedia, MalformedBody, InvalidInput or TooLarge."""


class RunFields(Strict):
    """How samples run."""

    time_steps: int | None = Field(
        default=None, ge=1, description="How many steps to run; by default as many as the model was trained with."
    )
    seed: int = Field(
        default=0, ge=0, le=MAX_SEED, description="The seed of `rate` coding; the same seed draws the same spikes."
    )
    stop: StopRule | None = Field(
        default=None,
        strict=False,
        description="When a sample may end before its last step: `decided` once no remaining step can change its "
        "class, `confident` once its class leads by what the model was calibrated for. `steps_used` of the answer says "
        "how many each took. By default all steps run.",
    )

    def options(self, time_steps: int, returned: Iterable[AnswerField] = ()) -> RunOptions:
        """Return the options of a run with this number of steps."""
        return RunOptions(time_steps, self.seed, self.stop, frozenset(returned))
