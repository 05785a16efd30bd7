"""The door: what stands beside the core, known by kind and name before it is imported.

A plugin is a module that imports nothing heavy and has a tuple `PLUGINS`, with a record for each thing that it brings.
There are three places, and all is alike after that: what ships are the folders of `spikeserve.plugins` (a checkout and
an image are no installed distribution, so they have no entry points); an installed package names its module in the
entry points of that group; and a file of one's own lies in the folder that --plugins-dir names.

The variable SPIKESERVE_PLUGINS lists the plugins that are let in, by default all; empty, it shuts the door. No request
names a plugin, nor does a bundle.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple

from spikeserve.models.errors import InvalidInput, install

GROUP = "spikeserve.plugins"
KINDS = ("importer", "target", "reader", "neuron", "command", "protocol", "engine")  # as `models.kinds` documents them
LET_IN, FOLDER, LOOSE = "SPIKESERVE_PLUGINS", "SPIKESERVE_PLUGINS_DIR", "spikeserve_plugin_"


def _unsure(_: Path) -> float:
    return 0.0


class Plugin(NamedTuple):
    """One thing that a plugin brings.

    `at` says where its code is, as `module:attribute` or a module; one with a dot before it lies beside the plugin's.
    `says` is a line for people, `needs` the modules without which it cannot work, and `extra` the extra that has them.
    `guess` says of a file, by its name and first bytes, how surely an importer or a reader takes it: 0 to 1.
    `package` is where it came from, which the door writes.
    """

    kind: str
    name: str
    at: str
    says: str
    needs: tuple[str, ...] = ()
    extra: str = ""
    guess: Callable[[Path], float] = _unsure
    package: str = ""

    @property
    def missing(self) -> list[str]:
        """The modules that it needs and that are not installed; none is imported to know."""
        return [each for each in self.needs if not _is_installed(each)]

    def load(self) -> Any:
        """Import it; raises InvalidInput with what to install."""
        if missing := self.missing:
            how = install(self.extra) if self.extra else f"pip install {' '.join(missing)}"
            raise InvalidInput(f"{self.kind} '{self.name}' needs the module {missing[0]}, expected it here: {how}")
        module, _, attribute = self.at.partition(":")
        code = import_module(module)
        return getattr(code, attribute) if attribute else code


@cache
def plugins() -> Mapping[tuple[str, str], Plugin]:
    """Return all that there is, by kind and name; raises InvalidInput where two claim a name, which names both."""
    known: dict[tuple[str, str], Plugin] = {}
    for package, module in _modules():
        for each in getattr(module, "PLUGINS", ()):
            key, at = (each.kind, each.name), each.at
            if each.kind not in KINDS:
                raise InvalidInput(f"plugin '{package}': the kind '{each.kind}' is none of {', '.join(KINDS)}")
            if key in known:
                raise InvalidInput(f"{each.kind} '{each.name}' comes with {known[key].package}, and with {package}")
            at = f"{module.__name__}{at}" if at.startswith((".", ":")) else at
            known[key] = each._replace(at=at, package=package)
    return known


def of_kind(kind: str, own: Collection[str] = ()) -> dict[str, Plugin]:
    """Return the plugins of a kind, by name; raises InvalidInput for a name that is the core's `own`, in any case."""
    known = {name: each for (its, name), each in sorted(plugins().items()) if its == kind}
    for name in known:
        if name.lower() in map(str.lower, own):
            raise InvalidInput(f"{kind} '{name}' comes with spikeserve, and with {known[name].package}")
    return known


def named(kind: str, name: str) -> Any:
    """Import the plugin of that kind and name; raises InvalidInput, with the names that there are."""
    known = of_kind(kind)
    if name not in known:
        raise InvalidInput(f"{kind}: '{name}' is none here, expected {', '.join(known) or 'a plugin that brings it'}")
    return known[name].load()


def surest(kind: str, path: Path, own: Mapping[str, Plugin] = MappingProxyType({})) -> list[Plugin]:
    """Return those of a kind, with the core's `own`, that are surest of a file; none where no one is sure."""
    sure = {each: each.guess(path) for each in {**own, **of_kind(kind, own)}.values()}
    return [each for each, share in sure.items() if share == max(sure.values()) > 0]


def guessed(kind: str, path: Path, own: Mapping[str, Plugin] = MappingProxyType({})) -> Plugin:
    """Return the one that is surest of a file; raises InvalidInput for none, and for two as sure."""
    best = surest(kind, path, own)
    if len(best) != 1:
        may = " or ".join(each.name for each in best) or "anything"
        names = ", ".join({**own, **of_kind(kind, own)})
        raise InvalidInput(f"'{path}' may be {may}, expected the name of its {kind} first: {names}")
    return best[0]


def _modules() -> Iterator[tuple[str, ModuleType]]:
    """Yield what each plugin came with, and its module; raises InvalidInput for one that cannot be imported."""
    let_in, folder, shipped = os.environ.get(LET_IN), os.environ.get(FOLDER), find_spec(GROUP)
    roots = (shipped and shipped.submodule_search_locations) or ()
    names = [path.parent.name for root in roots for path in sorted(Path(root).glob("*/__init__.py"))]
    places = [*(("spikeserve", f"{GROUP}.{name}") for name in names), *_entry_points()]
    if folder and (not Path(folder).is_dir() or any(Path(folder).samefile(root) for root in roots)):
        raise InvalidInput(f"--plugins-dir is '{folder}', expected a folder that is there and not spikeserve's own")
    loose = sorted(Path(folder).glob("*.py")) if folder else []
    for package, name in [*places, *((str(path), path.stem) for path in loose)]:
        if let_in is None or name.removeprefix(f"{GROUP}.") in let_in.split(","):
            try:
                yield package, _from_file(Path(package)) if package.endswith(".py") else import_module(name)
            except Exception as error:
                raise InvalidInput(f"plugin '{package}' cannot be imported: {type(error).__name__}: {error}") from error


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # nor is the package that it is in
        return False


def _from_file(path: Path) -> ModuleType:
    name = f"{LOOSE}{path.stem}"
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    sys.modules[name] = module = module_from_spec(spec)  # so that `at` may name it
    spec.loader.exec_module(module)
    return module


def _entry_points() -> Iterator[tuple[str, str]]:
    """Yield the package and the module of each entry point; `importlib.metadata` alone takes 60 ms to import."""
    for place in dict.fromkeys(sys.path):
        for file in sorted(Path(place or ".").glob("*.dist-info/entry_points.txt")):
            _, _, rest = file.read_text(encoding="utf-8").partition(f"[{GROUP}]\n")
            for line in rest.partition("\n[")[0].splitlines():
                if module := line.partition("=")[2].strip():
                    yield file.parent.name.partition("-")[0], module
