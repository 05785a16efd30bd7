"""Input coding: checks a client's samples and events and encodes them as the network's input at each step."""

from models.coding.encode import MAX_SEED, encode
from models.coding.events import Events, encode_events, indices, rasterise
from models.coding.inputs import EncodedInputs, EventInputs, Inputs, join_inputs

__all__ = [
    "MAX_SEED",
    "EncodedInputs",
    "EventInputs",
    "Events",
    "Inputs",
    "encode",
    "encode_events",
    "indices",
    "join_inputs",
    "rasterise",
]
