"""The contestants by name, in the order in which tables show them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec

from benchmarks.contestants.base import Job, Run, Skipped
from spikeserve.models.engines import ENGINES, available, create
from spikeserve.models.engines.base import Counts

OURS = tuple(engine for engine in ENGINES if engine != "reference")

# What each needs besides what the project itself does; its file has its name.
NEEDS: Mapping[str, tuple[str, ...]] = {
    "snntorch": ("torch", "snntorch"),
    "spikingjelly": ("torch", "spikingjelly"),
    "norse": ("torch", "norse"),
    "sinabs": ("torch", "sinabs"),
    "jaxpike": ("jax", "jaxpike"),
    "jax_scan": ("jax",),
    "brainevent": ("jax", "brainevent"),
    "torch_compile": ("torch",),
    "torch_int8": ("torch",),
}
PYTORCH_LIBRARIES = ("snntorch", "spikingjelly", "norse", "sinabs")

CONTESTANTS = OURS + tuple(NEEDS)


def prepare(name: str, job: Job) -> Run:
    """Return a contestant that is ready to run; raises Skipped with the reason where it cannot."""
    for package in NEEDS.get(name, ()):
        if find_spec(package) is None:
            raise Skipped(f"the package {package} is not installed here")
    if name in OURS:
        return _ours(name, job)
    module = import_module(f"benchmarks.contestants.{name}")
    if name in PYTORCH_LIBRARIES:
        from benchmarks.contestants.torch_stack import inference

        return inference(job, module.LIBRARY)
    run: Run = module.prepare(job)
    return run


def _ours(engine: str, job: Job) -> Run:
    """Return a run of one of our engines, made as the service makes it; `torch` takes its threads from the process."""
    if engine not in available():
        raise Skipped("its library is not installed here")
    made = create(engine, job.network, threads=job.threads)
    return lambda: made.run(job.inputs)[0].spike_counts


def result(run: Run) -> Counts:
    """Return the counts of a run, which are compared before it is timed."""
    return run()
