"""How kernels are compiled and kept: on disk beside their source, where that can be written, for this processor."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from numba import njit
from numba.core.caching import CompileResultCacheImpl, FunctionCache, InTreeCacheLocator


class _Locator(InTreeCacheLocator):  # type: ignore[misc]
    """Finds the cache in __pycache__, on a read-only disk too, and knows it by what the sources say.

    Numba's own would go by one file's time, which an image's layers round and which a change of an intrinsic, in
    another file, leaves as it was.
    """

    def ensure_cache_path(self) -> None:
        with suppress(OSError):
            super().ensure_cache_path()

    def get_source_stamp(self) -> str:
        digest = hashlib.sha256()
        for source in sorted(Path(__file__).parent.glob("*.py")):
            digest.update(source.read_bytes())
        return digest.hexdigest()


class _Implementation(CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = (_Locator,)


class _Cache(FunctionCache):  # type: ignore[misc]
    """A cache that cannot be written costs time at the next start, and nothing else."""

    _impl_class = _Implementation

    def save_overload(self, sig: Any, data: Any) -> None:
        with suppress(OSError):
            super().save_overload(sig, data)


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function at its first call, or fetch it from its cache; it runs without the interpreter's lock.

    mypy sees numbers as anything: inside a kernel they are the machine's.
    """
    dispatcher: Any = njit(nogil=True, boundscheck=False, error_model="numpy")(function)
    dispatcher._cache = _Cache(function)  # what njit's `cache=True` does, with another class
    return dispatcher
