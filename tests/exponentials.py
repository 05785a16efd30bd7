"""The event engine's exponential as a function that a kernel can call."""

from __future__ import annotations

from typing import Any

from numba.core import types

from spikeserve.models.engines.event.steps import OPERATIONS, Vector
from spikeserve.models.engines.event.vectors import Code, intrinsic


@intrinsic
def exponentials(_: Any, found: Any, values: Any, place: Any) -> Any:
    """Write the exponentials of a vector of values to the same place of another array: (found, values, place)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments)
        given = Vector(code, code.load(code.pointer(1), arguments[2]))
        code.store(OPERATIONS["exp"](given).value, code.pointer(0), arguments[2])
        return context.get_dummy_value()

    return types.void(found, values, place), generate
