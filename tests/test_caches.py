"""No cache grows with what clients send."""

import importlib
import pkgutil
from collections.abc import Iterator
from functools import _lru_cache_wrapper
from types import ModuleType

import spikeserve.models
import spikeserve.plugins.grpc
import spikeserve.service

# Caches without a bound, whose keys are few: they come from the models that are served, or there is one.
FEW_KEYS = {
    "spikeserve.models.door.opened",
    "spikeserve.models.engines.event.cores.shared",  # numbers of threads
    "spikeserve.models.engines.event.engine.compile_kernels",
    "spikeserve.models.engines.event.native._linker",
    "spikeserve.plugins.grpc.descriptors.descriptors",  # two files
    "spikeserve.service.http.docs._page",  # titles of two pages
    "spikeserve.service.http.page._files",
    "spikeserve.service.inference.protocols.native.schemas._request_type",  # axes and codings
    "spikeserve.service.inference.sessions.messages._adapter",  # axes
}


def test_no_cache_without_a_bound_has_keys_that_clients_choose() -> None:
    packages = (spikeserve.models, spikeserve.service, spikeserve.plugins.grpc)
    assert set().union(*map(unbounded, packages)) == FEW_KEYS


def unbounded(package: ModuleType) -> set[str]:
    """Return the functions of a package that have a cache without a bound, but for PyTorch's engine."""
    return {name for module in modules(package) for name in caches(module)}


def modules(package: ModuleType) -> Iterator[ModuleType]:
    """Yield the modules below a package that a server can import without PyTorch and Ray."""
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not {"torch", "batch", "__main__"} & set(found.name.split(".")):
            yield importlib.import_module(found.name)


def caches(module: ModuleType) -> Iterator[str]:
    """Yield the module's own functions that have a cache without a bound."""
    for value in vars(module).values():
        own = isinstance(value, _lru_cache_wrapper) and value.__module__ == module.__name__
        if own and value.cache_info().maxsize is None:
            yield f"{module.__name__}.{value.__name__}"
