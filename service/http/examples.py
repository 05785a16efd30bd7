"""A model's examples: its bundle's golden samples, as the inputs of a request."""

from __future__ import annotations

import numpy as np

from models.bundle import Bundle
from models.spec import Coding
from service.catalog.loaded import LoadedModel
from service.http.schemas import EventsExample

MOST_EVENTS = 20_000  # of one example, so that an answer stays small


def examples(model: LoadedModel) -> list[EventsExample]:
    """Return golden samples as events, each an input for `predict`.

    There are none for other codings than `spikes`, whose golden samples are kept as currents; for spikes that are not
    sent as the greatest value of their range; and for samples of more than MOST_EVENTS events.
    """
    bundle = model.bundle
    if not isinstance(bundle, Bundle) or model.spec.coding is not Coding.SPIKES:
        return []
    declared = model.spec.input
    greatest = declared.normalise(np.broadcast_to(declared.range[1], declared.shape)).ravel()
    rasters = bundle.golden.inputs.steps.swapaxes(0, 1)
    found: list[EventsExample] = []
    for raster in rasters.reshape(*rasters.shape[:2], -1):
        t, unit = np.nonzero(raster)
        if len(t) <= MOST_EVENTS and (raster[t, unit] == greatest[unit]).all():
            found.append({"t": t.tolist(), "unit": unit.tolist()})
    return found
