"""The options of a run as the fields of a request, the same in every protocol."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from spikeserve.models.coding import MAX_SEED
from spikeserve.models.engines.anytime import StopRule
from spikeserve.service.inference.decoding.validation import Strict
from spikeserve.service.inference.scheduling.query import Returned, RunOptions


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

    def options(self, time_steps: int, returned: Iterable[Returned] = ()) -> RunOptions:
        """Return the options of a run of so many steps."""
        return RunOptions(time_steps, self.seed, self.stop, frozenset(returned))
