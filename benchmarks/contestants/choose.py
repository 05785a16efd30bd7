"""The contestants by name, in the order in which tables show them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec

from benchmarks.contestants.base import Job, Run, Skipped
from spikeserve.models.engines import EngineName
from spikeserve.models.engines.base import Counts

OURS = tuple(str(engine) for engine in EngineName if engine is not EngineName.REFERENCE)

# What each needs besides what the project itself does; its file has its name, and ours share one.
NEEDS: Mapping[str, tuple[str, ...]] = {
    "snntorch": ("torch", "snntorch"),
    "spikingjelly": ("torch", "spikingjelly"),
    "norse": ("torch", "norse"),
    "sinabs": ("torch", "sinabs"),
    "jaxpike": ("jax", "jaxpike"),
    "jax_scan": ("jax",),
    "torch_compile": ("torch",),
}
PYTORCH_LIBRARIES = ("snntorch", "spikingjelly", "norse", "sinabs")

CONTESTANTS = OURS + tuple(NEEDS)


def prepare(name: str, job: Job) -> Run:
    """Return a contestant that is ready to run; raises Skipped with the reason where it cannot."""
    for package in NEEDS.get(name, ()):
        if find_spec(package) is None:
            raise Skipped(f"the package {package} is not installed here")
    if name in OURS:
        from benchmarks.contestants import ours

        return ours.prepare(EngineName(name), job)
    run: Run = import_module(f"benchmarks.contestants.{name}").prepare(job)
    return run


def result(run: Run) -> Counts:
    """Return the counts of a run, which are compared before it is timed."""
    return run()
