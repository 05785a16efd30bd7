"""Functions that LLVM makes while the program runs, which kernels call by their address.

Numba compiles a kernel in seconds, and only with everything that it may be asked for. A neuron's step is known when its
bundle is read: it becomes a function of its own in some milliseconds. What LLVM made is cached on disk beside Numba's
files, by the text of the function and the processor, and read back only if its checksum holds.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

from llvmlite import binding as llvm
from llvmlite import ir
from numba import config
from numba.core import cgutils, types
from numba.core.types import Tuple  # type: ignore[attr-defined]

from spikeserve.models.engines.event.vectors import intrinsic

CACHE = Path(__file__).parent / "__pycache__"
MOST_CACHED = 512  # files, of some kilobytes each
NAME = "step"
_lock, _numbers = Lock(), count()


class Native:
    """A compiled function. Its code is freed with this object, so hold the object while you use its address."""

    def __init__(self, module: ir.Module) -> None:
        text = str(module)
        digest = hashlib.sha256(f"{llvm.llvm_version_info}{module.triple}{_features()}{text}".encode()).hexdigest()
        made = _cached(digest)
        if made is None:
            made = _target().emit_object(llvm.parse_assembly(text))
            _keep(digest, made)
        library = llvm.JITLibraryBuilder().add_object_img(made).add_current_process().export_symbol(NAME)
        self._library = library.link(_linker(), f"step {next(_numbers)}")
        self.address: int = self._library[NAME]


_every: WeakValueDictionary[object, Native] = WeakValueDictionary()


def native(key: object, arguments: list[Any], build: Callable[[Any, Any], None]) -> Native:
    """Make a function that returns an integer, or find the one that was made for this key.

    `build(builder, arguments)` writes its body, with the return; the types are LLVM's.
    """
    with _lock:
        found = _every.get(key)
        if found is None:
            module = ir.Module("spikeserve")
            module.triple = llvm.get_process_triple()
            function = ir.Function(module, ir.FunctionType(ir.IntType(64), arguments), NAME)
            build(ir.IRBuilder(function.append_basic_block()), function.args)
            found = _every[key] = Native(module)
        return found


@intrinsic
def call(_: Any, address: Any, *given: Any) -> Any:
    """Call a function of `native` by its address, from inside a kernel, and return the integer that it returns.

    Each array among the arguments is followed by a place: the function gets the address of that element, or null where
    the array is empty. A float arrives as a float32.
    """

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        passed: list[Any] = []
        values = zip(given, cgutils.unpack_tuple(builder, arguments[1]), strict=True)
        for kind, value in values:
            if isinstance(kind, types.Array):
                array, (_, place) = context.make_array(kind)(context, builder, value), next(values)
                empty = builder.icmp_signed("==", array.nitems, array.nitems.type(0))
                address_of = builder.gep(array.data, [place])
                passed.append(builder.select(empty, ir.Constant(address_of.type, None), address_of))
            else:
                passed.append(builder.fptrunc(value, ir.FloatType()) if kind == types.float64 else value)
        kind = ir.FunctionType(ir.IntType(64), [each.type for each in passed])
        return builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), passed)

    return types.int64(address, Tuple(given)), generate


def _target() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    triple = llvm.Target.from_triple(llvm.get_process_triple())
    return triple.create_target_machine(opt=3, jit=True, cpu=llvm.get_host_cpu_name(), features=_features())


@cache
def _linker() -> Any:
    return llvm.create_lljit_compiler(_target())


@cache
def _features() -> str:
    return config.CPU_FEATURES or llvm.get_host_cpu_features().flatten()


def _cached(digest: str) -> bytes | None:
    with suppress(OSError):
        content = (CACHE / f"{NAME}-{digest}.o").read_bytes()
        if hashlib.sha256(content[32:]).digest() == content[:32]:
            return content[32:]
    return None


def _keep(digest: str, made: bytes) -> None:
    with suppress(OSError):
        if len([*CACHE.glob(f"{NAME}-*.o")]) < MOST_CACHED:
            CACHE.mkdir(exist_ok=True)
            part = CACHE / f"{NAME}-{digest}.{os.getpid()}.part"
            part.write_bytes(hashlib.sha256(made).digest() + made)
            part.replace(CACHE / f"{NAME}-{digest}.o")
