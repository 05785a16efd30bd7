"""Functions that LLVM makes while the program runs, which kernels call by their address.

Numba compiles a kernel in seconds, and only with everything that it may be asked for. A neuron's step is known when its
bundle is read: it becomes a function of its own in some milliseconds. What LLVM made is cached on disk beside Numba's
files, by the text of the function and the processor, and read back only if its checksum holds.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from contextlib import suppress
from ctypes import c_char
from functools import cache
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from llvmlite import binding as llvm
from llvmlite import ir
from numba import config, from_dtype
from numba.core import cgutils, types
from numba.core.types import Tuple  # type: ignore[attr-defined]
from numba.np.arrayobj import populate_array
from numpy.typing import NDArray

from spikeserve.models.engines.event.table import FAILED, NODE, RUN, SIGNAL
from spikeserve.models.engines.event.vectors import Code, intrinsic, written
from spikeserve.models.engines.processor import FEATURES

CACHE = Path(__file__).parent / "__pycache__"
MOST_CACHED = 512  # files, of some kilobytes each
NAME = "step"
_CPU: str = config.CPU_NAME or llvm.get_host_cpu_name()
_lock, _numbers = Lock(), count()
_I64 = ir.IntType(64)


class Native:
    """A compiled function. Its code is freed with this object, so hold the object while you use its address."""

    def __init__(self, module: ir.Module) -> None:
        text = str(module)
        digest = hashlib.sha256(f"{llvm.llvm_version_info}{module.triple}{_CPU}{FEATURES}{text}".encode()).hexdigest()
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
        made = _every.get(key)
        if made is None:
            module = ir.Module("spikeserve")
            module.triple = llvm.get_process_triple()
            function = ir.Function(module, ir.FunctionType(ir.IntType(64), arguments), NAME)
            build(ir.IRBuilder(function.append_basic_block()), function.args)
            made = _every[key] = Native(module)
        return made


@intrinsic
def call(_: Any, address: Any, *kinds: Any) -> Any:
    """Call a function of `native` by its address, from inside a kernel, and return the integer that it returns.

    Each array among the arguments is followed by a place: the function gets the address of that element, or null where
    the array is empty. A float arrives as a float32.
    """

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        passed: list[Any] = []
        values = zip(kinds, cgutils.unpack_tuple(builder, arguments[1]), strict=True)
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

    return types.int64(address, Tuple(kinds)), generate


def _target() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    triple = llvm.Target.from_triple(llvm.get_process_triple())
    return triple.create_target_machine(opt=3, jit=True, cpu=_CPU, features=FEATURES)


@cache
def _linker() -> Any:
    return llvm.create_lljit_compiler(_target())


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


@written(types.int64)
def address_of(code: Code, array: Any) -> Any:
    """Return the address of an array's first element."""
    return code.builder.ptrtoint(array, ir.IntType(64))


def array_at(dtype: Any) -> Any:
    """Make the intrinsic (address, count) that gives the array there, which somebody else holds."""
    kind = types.Array(from_dtype(np.dtype(dtype)), 1, "C")

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        array, i64 = context.make_array(kind)(context, builder), ir.IntType(64)
        item = i64(context.get_abi_sizeof(context.get_data_type(kind.dtype)))
        data = builder.inttoptr(arguments[0], array.data.type)
        populate_array(array, data=data, shape=arguments[1:], strides=[item], itemsize=item, meminfo=None)
        return array._getvalue()

    @intrinsic
    def at(_: Any, address: Any, count: Any) -> Any:
        return kind(address, count), generate

    return at


class Record:
    """The record at an address, or of that number in a table, for code that loads its fields."""

    def __init__(self, builder: Any, dtype: Any, table: Any, number: Any = None) -> None:
        self.builder, self.dtype = builder, dtype
        self.address = table if number is None else builder.add(table, builder.mul(number, _I64(dtype.itemsize)))

    def __getitem__(self, name: str) -> Any:
        """Load a whole number, or the address of an array."""
        at = self.builder.add(self.address, _I64(self.dtype.fields[name][1]))
        return self.builder.load(self.builder.inttoptr(at, _I64.as_pointer()))

    def array(self, name: str, item: Any) -> Any:
        """Load the address of an array as a pointer to the type of its items."""
        return self.builder.inttoptr(self[name], item.as_pointer())

    def float(self, name: str) -> Any:
        """Load a float as a float32."""
        return self.builder.fptrunc(self.builder.bitcast(self[name], ir.DoubleType()), ir.FloatType())


@intrinsic
def records_of(_: Any, table: Any, row: Any, run: Any) -> Any:
    """Return the record of the node at a row, that of the run, and those of the signals that the node takes and gives.

    A record is its address; a compiled function cannot return one, as an intrinsic can.
    """
    kinds = Tuple([from_dtype(each) for each in (NODE, RUN, SIGNAL, SIGNAL)])

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        table, row, run = arguments
        node, of_run = Record(builder, NODE, table, row), Record(builder, RUN, run)
        source, target = (Record(builder, SIGNAL, of_run["signals"], node[name]) for name in ("source", "target"))
        records = zip((node, of_run, source, target), kinds, strict=True)
        return context.make_tuple(
            builder, kinds, [builder.inttoptr(each.address, context.get_value_type(kind)) for each, kind in records]
        )

    return kinds(table, row, run), generate


def array_of(address: int, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Return the array at an address for Python, which somebody else holds."""
    count = math.prod(shape) * np.dtype(dtype).itemsize
    if not count:
        return np.empty(shape, dtype)
    return np.frombuffer((c_char * count).from_address(int(address)), dtype).reshape(shape)


@written(types.int64)
def call_node(code: Code, address: Any, table: Any, row: Any, run: Any) -> Any:
    """Call an `addressed` function with three integers, and return its integer; FAILED where it had no memory."""
    builder, i64, pointer = code.builder, ir.IntType(64), ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.IntType(32), [i64.as_pointer(), pointer.as_pointer(), i64, i64, i64])
    answer, raised = cgutils.alloca_once(builder, i64), cgutils.alloca_once(builder, pointer)
    status = builder.call(builder.inttoptr(address, kind.as_pointer()), [answer, raised, table, row, run])
    return builder.select(builder.icmp_signed("==", status, status.type(0)), builder.load(answer), i64(FAILED))
