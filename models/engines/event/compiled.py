"""How kernels are compiled and kept: on disk beside their source, where that can be written.

They are compiled for the processor that `processor.py` chooses.

This file and `native.py` use parts of Numba which its documentation does not promise: njit's option `_nrt`, see
`borrowing`, and those that leave out wrappers, see `inner`; the address of a function's code and how Numba calls it,
see `FunctionPointer` and `native.call_node`; arrays made of an address, see `native.array_at`; a dispatcher's `_cache`,
its index, the classes of `numba.core.caching` that it takes, and the runtime that loaded code is linked with.
`njit(cache=True)` would do without the last, but knows a cache by the time at which one source file was written: an
image's layers round that time, and a change of an intrinsic, in another file, leaves it as it was, so that an old
kernel would run. And it fails where a cache cannot be written.

pyproject.toml bounds Numba's version for this file's sake, and tests/models/test_event_compiled.py says in a sentence
what broke under a newer one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property, lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

from numba import njit, typeof
from numba.core import types
from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile, InTreeCacheLocator
from numba.core.runtime import rtsys

from spikeserve.models.engines.processor import FEATURES as FEATURES  # before anything is compiled


class _Locator(InTreeCacheLocator):  # type: ignore[misc]
    """Finds the cache in __pycache__, on a read-only disk too, and knows it by what the sources say."""

    def ensure_cache_path(self) -> None:
        with suppress(OSError):
            super().ensure_cache_path()

    def get_source_stamp(self) -> str:
        room = Path(self._py_file).parent  # a neuron's step is no part of a kernel
        return _digest_here() if room == Path(__file__).parent else _digest_here() + _digest(room)


def _digest(room: Path) -> str:
    """Return the digest of what the sources in a folder say."""
    digest = hashlib.sha256()
    for source in sorted(room.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


@lru_cache(maxsize=1)
def _digest_here() -> str:
    return _digest(Path(__file__).parent)


class _Implementation(CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = (_Locator,)


class _Index(IndexDataCacheFile):  # type: ignore[misc]
    """The index of a cache; a damaged one holds nothing, and is written again."""

    def _load_index(self) -> dict[Any, str]:
        try:
            index: dict[Any, str] = super()._load_index()
        except Exception:  # unpickling damaged bytes may raise anything
            index = {}
        return index


class _Cache(FunctionCache):  # type: ignore[misc]
    """A cache that cannot be written, or was damaged, costs the time to compile, and nothing else."""

    _impl_class = _Implementation
    _cache_file: Any

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        stamp = self._cache_file._source_stamp
        self._cache_file = _Index(self._cache_path, self._impl.filename_base, stamp)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Load a compiled function without what only compiling needs, which takes most of a second to import."""
        try:
            rtsys.initialize(target_context)
            return self._load_overload(sig, target_context)
        except Exception:  # as above
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with suppress(OSError):
            super().save_overload(sig, data)


def inner(function: Callable[..., Any], *, counted: bool = True, called: bool = False) -> Callable[..., Any]:
    """Compile a function that kernels call, at its first call, or fetch it from its cache.

    It may make arrays, and return them to another such function. Only one that is `called` from Python has the code
    for that: each function that has it is optimised twice. mypy sees numbers as anything: inside a kernel they are the
    machine's.
    """
    dispatcher: Any = njit(
        nogil=True,
        boundscheck=False,
        error_model="numpy",
        _nrt=counted,
        no_cpython_wrapper=not called,
        no_cfunc_wrapper=True,
    )(function)
    dispatcher._cache = _Cache(function)  # what njit's `cache=True` does, with another class
    return dispatcher


def borrowing(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function that kernels call and that makes no array, nor calls what returns one.

    It borrows its caller's arrays without counting references to them. Numba's counters are atomic: counting took most
    of a small layer's time wherever a loop over steps or events gave an array another name.
    """
    return inner(function, counted=False)


# Makes a function that is called in one place, and compiled there as if its statements stood in that place: LLVM then
# works on it once, and not for the function and for its caller. It may make arrays where its caller may.
inlined: Callable[[Callable[..., Any]], Callable[..., Any]] = njit(inline="always")


class CompiledFunction:
    """A function that is compiled at its first use, or fetched from its cache."""

    def __init__(self, function: Callable[..., Any], **options: bool) -> None:
        self.name = function.__name__
        self.dispatcher: Any = inner(function, **options)

    @property
    def is_cached(self) -> bool:
        """Whether its cache holds it for this processor, as its sources are now: its index, and the code it names."""
        here, files = self.dispatcher.targetctx.codegen().magic_tuple(), self.dispatcher._cache._cache_file
        named = [code for (_, processor, _), code in files._load_index().items() if processor == here]
        return bool(named) and all(Path(files._data_path(code)).exists() for code in named)


class Kernel(CompiledFunction):
    """A compiled function that Python calls, through `call`; it runs without the interpreter's lock.

    Numba looks at the types of all arguments at each call, which takes longer than a small layer does. A kernel has one
    signature, that of its first call, and from then on `call` goes straight to its code.

    One that is `counted` may make arrays. The others are `borrowing`, which makes a call shorter too: a counted array
    is given an owner on its way in. Numba optimises a function again in all that call it, so that each level costs.
    """

    def __init__(self, function: Callable[..., Any], *, counted: bool = True) -> None:
        super().__init__(function, counted=counted, called=True)
        self.call: Callable[..., Any] = self._first_call
        self._lock = Lock()

    def code_for(self, arguments: tuple[Any, ...]) -> Callable[..., Any]:
        """Compile it for arguments of these types, or fetch it from its cache, unless that was done before."""
        with self._lock:
            if self.call == self._first_call:
                signature = tuple(typeof(argument) for argument in arguments)
                self.dispatcher.compile(signature)
                self.call = self.dispatcher.get_overload(signature)
            return self.call

    def _first_call(self, *arguments: Any) -> Any:
        return self.code_for(arguments)(*arguments)


class FunctionPointer(CompiledFunction):
    """A compiled function of three integers that kernels call by its `address`, and that returns an integer."""

    @cached_property
    def address(self) -> int:
        """Compile it, or fetch it from its cache, and return where its code lies."""
        self.dispatcher.compile(ADDRESSES)
        (made,) = self.dispatcher.overloads.values()
        pointer: int = made.library.get_pointer_to_function(made.fndesc.llvm_func_name)
        return pointer


ADDRESSES = (types.int64, types.int64, types.int64)

engine_kernels: list[CompiledFunction] = []  # those of the event engine, which are made ready before the first request


def kernel(function: Callable[..., Any], *, counted: bool = False) -> Kernel:
    """Make a kernel of the event engine, which may make arrays itself if it is `counted`."""
    made = Kernel(function, counted=counted)
    engine_kernels.append(made)
    return made


def addressed(function: Callable[..., Any], *, counted: bool = False) -> FunctionPointer:
    """Make a function of the event engine that its kernels call by its address; see `kernel`."""
    made = FunctionPointer(function, counted=counted)
    engine_kernels.append(made)
    return made
