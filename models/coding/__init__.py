"""Input coding: checks a client's samples, events and event records and encodes them as the input at each step."""

from models.coding.encode import (
    MAX_SEED,
    EncodedInputs,
    Events,
    encode,
    rasterise,
)
from models.coding.records import (
    RECORD,
    EventBinner,
    Records,
    StepEvents,
    binner,
    make_records,
    records_of,
    unwrapped,
)

__all__ = [
    "MAX_SEED",
    "RECORD",
    "EncodedInputs",
    "EventBinner",
    "Events",
    "Records",
    "StepEvents",
    "binner",
    "encode",
    "make_records",
    "rasterise",
    "records_of",
    "unwrapped",
]
