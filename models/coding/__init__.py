"""Input coding: checks a client's samples, events and event records and encodes them as the input at each step."""

from spikeserve.models.coding.encode import MAX_SEED, encode, encode_currents, encode_next, normalise
from spikeserve.models.coding.events import EventCoder, Events, encode_events, indices, rasterise
from spikeserve.models.coding.inputs import DenseInputs, EventInputs, Inputs, join_inputs
from spikeserve.models.coding.records import (
    RECORD,
    EventBinner,
    Records,
    StepEvents,
    binner,
    make_records,
    records_of,
    times_of,
    unwrapped,
)

__all__ = [
    "MAX_SEED",
    "RECORD",
    "DenseInputs",
    "EventBinner",
    "EventCoder",
    "EventInputs",
    "Events",
    "Inputs",
    "Records",
    "StepEvents",
    "binner",
    "encode",
    "encode_currents",
    "encode_events",
    "encode_next",
    "indices",
    "join_inputs",
    "make_records",
    "normalise",
    "rasterise",
    "records_of",
    "times_of",
    "unwrapped",
]
