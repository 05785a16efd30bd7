"""What the event engine's kernels rely on in Numba beyond its documentation, and their cache on disk."""

import gc
import importlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

from spikeserve.models.engines.event import compiled
from spikeserve.models.engines.event.engine import compile_kernels
from tests.serving import ROOT

SOURCE = """
def add_one(values):
    for j in range(values.size):
        values[j] += 1.0
"""


@pytest.fixture
def add_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """A function in a file of its own, which the caches beside it can import."""
    (tmp_path / "functions.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("functions").add_one
    sys.modules.pop("functions", None)


def run(function: Callable[..., Any]) -> Any:
    """Make a new dispatcher of a function, call it once (it compiles, or loads from the cache), and return it."""
    gc.collect()  # of the one before nothing is left, as in another process
    dispatcher: Any = compiled.inner(function, called=True)
    values = np.zeros(3, np.float32)
    dispatcher(values)
    assert values.tolist() == [1.0, 1.0, 1.0]
    return dispatcher


LOAD = """
import sys
from spikeserve.models.engines.event.engine import compile_kernels
compile_kernels()
print(sorted(name for name in ("numba.np.linalg", "scipy.linalg") if name in sys.modules))
"""


def test_kernels_that_are_cached_load_without_what_only_compiling_needs() -> None:
    compile_kernels()  # so that all are cached
    loading = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, check=True, cwd=ROOT)
    assert loading.stdout == "[]\n"  # they take a third of a second and 28 MB


def test_a_kernel_is_fetched_from_its_cache_the_second_time(add_one: Callable[..., Any]) -> None:
    assert not run(add_one).stats.cache_hits
    assert run(add_one).stats.cache_hits, (
        f"Numba {numba.__version__} does not ask a dispatcher's `_cache` for compiled code any more: "
        "every start would compile the kernels for ten seconds"
    )


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize("damage", [lambda _: b"", lambda held: held[: len(held) // 2], lambda _: b"\xffjunk"])
def test_a_damaged_cache_is_compiled_again_and_mended(
    suffix: str, damage: Callable[[bytes], bytes], add_one: Callable[..., Any], tmp_path: Path
) -> None:
    run(add_one)
    (path,) = tmp_path.rglob(f"*{suffix}")  # the index, or the code
    path.write_bytes(damage(path.read_bytes()))
    assert not run(add_one).stats.cache_hits
    assert run(add_one).stats.cache_hits


def test_a_function_whose_code_is_gone_is_not_compiled_although_its_index_is_there(
    add_one: Callable[..., Any], tmp_path: Path
) -> None:
    function = compiled.CompiledFunction(add_one, called=True)
    function.dispatcher(np.zeros(3, np.float32))
    assert function.is_cached
    (code,) = tmp_path.rglob("*.nbc")
    code.unlink()
    assert not function.is_cached


def test_a_cache_that_cannot_be_opened_costs_only_compiling(add_one: Callable[..., Any], tmp_path: Path) -> None:
    run(add_one)
    for path in [*tmp_path.rglob("*.nbi"), *tmp_path.rglob("*.nbc")]:
        path.unlink()
        path.mkdir()
    assert not run(add_one).stats.cache_hits


def test_a_cache_is_not_taken_for_other_sources(add_one: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    run(add_one)
    monkeypatch.setattr(compiled._Locator, "get_source_stamp", lambda _: "the equations have changed")
    assert not run(add_one).stats.cache_hits, (
        f"Numba {numba.__version__} does not ask our locator for the source's stamp any more: "
        "a changed equation or intrinsic would run as it was before"
    )


def test_a_kernel_runs_where_no_cache_can_be_written(add_one: Callable[..., Any], tmp_path: Path) -> None:
    cache = tmp_path / "__pycache__"
    shutil.rmtree(cache, ignore_errors=True)  # Python made it, if it stores bytecode
    cache.symlink_to(tmp_path / "nowhere" / "at_all")  # a folder that cannot be made
    run(add_one)
    assert not run(add_one).stats.cache_hits
