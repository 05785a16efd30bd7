"""Input coding: checks a client's samples and events and encodes them as the network's input at each step."""

from models.coding.encode import (
    MAX_SEED,
    EncodedInputs,
    Events,
    encode,
    rasterise,
)

__all__ = [
    "MAX_SEED",
    "EncodedInputs",
    "Events",
    "encode",
    "rasterise",
]
