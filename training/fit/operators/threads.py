"""Kernels whose items are shared by PyTorch's own threads.

A thread of OpenMP spins for milliseconds after each of PyTorch's operations, since the next one may be near. A pool of
other threads would have to share the cores with those that spin; so the kernels run on these very threads. They take
their parts without Python: a thread that had to wait for the interpreter's lock would sleep, and lose its core.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch
from llvmlite import ir
from numba import typeof
from numba.core import cgutils, types

from spikeserve.models.engines.event.compiled import CompiledFunction, inner
from spikeserve.models.engines.event.vectors import intrinsic

WORTH_A_THREAD = 50_000  # nanoseconds
_I64, _I32, _BYTES = ir.IntType(64), ir.IntType(32), ir.IntType(8).as_pointer()


class Kernel(CompiledFunction):
    """A compiled function whose last arguments are the first of its items, their end, and the number of the part.

    It is compiled at its first call, for arguments of those types; later ones have the same.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._code: tuple[int, Callable[..., int]] | None = None

    def code_for(self, arguments: tuple[Any, ...]) -> tuple[int, Callable[..., int]]:
        """Return the address of its code, and what calls it there; compile both at the first call."""
        if self._code is None:
            taken = tuple(typeof(argument) for argument in (*arguments, 0, 0, 0))
            self.dispatcher.compile(taken)
            made = self.dispatcher.overloads[taken]
            address = made.library.get_pointer_to_function(made.fndesc.llvm_func_name)
            whole = tuple(typeof(argument) for argument in (0, 0, 0, 0, 0, 0, 0, arguments))
            _run_parts.compile(whole)
            self._code = address, _run_parts.get_overload(whole)
        return self._code


def in_parts(kernel: Kernel, items: int, *arguments: Any, work: int | None = None) -> None:
    """Call `kernel(*arguments, first, end, part)` on each thread, with its share of the items and the part's number.

    The shares depend on the number of threads and on `work` only, and so do sums that a kernel keeps for each part;
    see `parts_of`. Raises MemoryError where a kernel had none.
    """
    parts = parts_of(items, work)
    address, run = kernel.code_for(arguments)
    start = _openmp() if parts > 1 else 0
    if parts == 1 or start:
        failed = run(address, items, parts, 0, parts, start, torch.get_num_threads() if start else 1, arguments)
    else:
        one = lambda part: run(address, items, parts, part, part + 1, 0, 1, arguments)  # noqa: E731
        failed = sum(_pool(parts).map(one, range(parts)))
    if failed:
        raise MemoryError(f"{kernel.name} had no memory")


def parts_of(items: int, work: int | None = None) -> int:
    """Return how many threads share so many items.

    `work` says about how many nanoseconds one thread would take for all of them, where that may be so few that waking
    another takes longer.
    """
    worth = items if work is None else work // WORTH_A_THREAD
    return max(1, min(torch.get_num_threads(), items, worth))


def ranges_for(panels: int, rows: int) -> int:
    """Return into how many ranges rows are cut, so that each thread gets its share of so many panels times ranges."""
    threads = torch.get_num_threads()
    return 1 if panels % threads == 0 else max(1, min(threads, rows))


@intrinsic
def _share(
    _: Any, code: Any, items: Any, parts: Any, first: Any, end: Any, start: Any, threads: Any, kernel_args: Any
) -> Any:  # fmt: skip
    """Call the kernel whose code is at an address for the parts from `first` to `end`; return how many of them failed.

    Each thread takes the next part that nobody has, until there is none. `start` is the address of OpenMP's function
    that lets so many threads begin, or 0 where this thread does all.
    """
    taken = [*kernel_args.types, types.int64, types.int64, types.int64]

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        code, items, parts, first, end, start, threads, kernel_args = arguments
        shared = [first, end, items, parts, code, _I64(0), kernel_args]
        kind = ir.LiteralStructType([each.type for each in shared])
        data = cgutils.alloca_once(builder, kind)
        for number, value in enumerate(shared):
            builder.store(value, cgutils.gep_inbounds(builder, data, 0, number))
        region = ir.Function(builder.module, ir.FunctionType(ir.VoidType(), [_BYTES]), f"{builder.function.name}.parts")
        region.linkage = "internal"
        _write_region(context, ir.IRBuilder(region.append_basic_block()), region.args[0], kind, taken)
        passed = builder.bitcast(data, _BYTES)
        with builder.if_else(builder.icmp_signed("==", start, _I64(0))) as (alone, together):
            with alone:
                builder.call(region, [passed])
            with together:
                # void GOMP_parallel(void (*region)(void *), void *data, unsigned threads, unsigned flags)
                opens = ir.FunctionType(ir.VoidType(), [region.type, _BYTES, _I32, _I32]).as_pointer()
                builder.call(builder.inttoptr(start, opens), [region, passed, builder.trunc(threads, _I32), _I32(0)])
        return builder.load(cgutils.gep_inbounds(builder, data, 0, 5))

    return types.int64(code, items, parts, first, end, start, threads, kernel_args), generate


def _write_region(context: Any, builder: Any, passed: Any, kind: Any, taken: list[Any]) -> None:
    """Write what each thread does, `taken` being the types of the kernel's arguments."""
    data = builder.bitcast(passed, kind.as_pointer())
    place = [cgutils.gep_inbounds(builder, data, 0, number) for number in range(len(kind.elements))]
    end, items, parts, code, kernel_args = (builder.load(place[number]) for number in (1, 2, 3, 4, 6))
    nothing = cgutils.alloca_once(builder, context.call_conv.get_return_type(types.none).pointee)
    convention = context.call_conv.get_function_type(types.none, taken)
    raised = cgutils.alloca_once(builder, convention.args[1].pointee)
    kernel = builder.inttoptr(code, convention.as_pointer())
    again, work, done = (builder.append_basic_block(name) for name in ("again", "work", "done"))
    builder.branch(again)
    builder.position_at_end(again)
    part = builder.atomic_rmw("add", place[0], _I64(1), "monotonic")
    builder.cbranch(builder.icmp_signed("<", part, end), work, done)
    builder.position_at_end(work)
    bounds = [builder.sdiv(builder.mul(items, each), parts) for each in (part, builder.add(part, _I64(1)))]
    arguments = [*cgutils.unpack_tuple(builder, kernel_args), *bounds, part]
    flat = context.get_arg_packer(taken).as_arguments(builder, arguments)
    status = builder.call(kernel, [nothing, raised, *flat])
    failed = builder.icmp_signed(">", status, status.type(0))
    builder.atomic_rmw("add", place[5], builder.zext(failed, _I64), "monotonic")
    builder.branch(again)
    builder.position_at_end(done)
    builder.ret_void()


def _run(code: int, items: int, parts: int, first: int, end: int, start: int, threads: int, kernel_args: Any) -> int:
    failed: int = _share(code, items, parts, first, end, start, threads, kernel_args)
    return failed


_run_parts: Any = inner(_run, counted=False, called=True)


@cache
def _openmp() -> int:
    """Return the address at which the OpenMP library that PyTorch has loaded starts threads, or 0 without one.

    GOMP_parallel stands for `#pragma omp parallel` in what a compiler makes of it:
    https://gcc.gnu.org/onlinedocs/libgomp/Implementing-PARALLEL-construct.html
    It is found through PyTorch's own library, since a process may have loaded several. As many threads are started as
    PyTorch takes: for another number the library would end some or start new ones.
    """
    try:
        start = ctypes.CDLL(torch._C.__file__).GOMP_parallel
    except (OSError, AttributeError):
        return 0
    return ctypes.cast(start, ctypes.c_void_p).value or 0


@cache
def _pool(parts: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(parts, "operators")


def _after_fork() -> None:
    """Forget threads that only the parent has. OpenMP's cannot be started again in a child, so it uses a pool."""
    global _openmp
    _openmp = cache(lambda: 0)
    _pool.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
