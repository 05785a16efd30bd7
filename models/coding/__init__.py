"""Input coding: a client's samples and events, checked and turned into what the network sees at each step."""

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
