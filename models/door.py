"""The door: what stands beside the core, known by kind and name before it is imported.

A plugin is a module that imports nothing heavy and has a tuple `PLUGINS`, with a record for each thing that it brings.
There are three places, and all is alike after that: what ships are the folders of `spikeserve.plugins` (a checkout and
an image are no installed distribution, so they have no entry points); an installed package names its module in the
entry points of that group; and a file of one's own lies in the folder that --plugins-dir names.

The variable SPIKESERVE_PLUGINS lists the plugins that are let in, by default all; empty, it shuts the door. No request
names a plugin, nor does a bundle. One that is let in and cannot be opened ends every command but `--help` and `plugins`
with a sentence, which says how it is left out.
"""

from __future__ import annotations

import gc
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from glob import glob
from importlib import import_module
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from spikeserve.models.errors import InvalidInput, bounded_line, install

OURS, GROUP, POINTS = "spikeserve", "spikeserve.plugins", "*.dist-info/entry_points.txt"
KINDS = ("importer", "target", "reader", "neuron", "command", "protocol", "engine")  # as `models.kinds` documents them
LET_IN, FOLDER, LOOSE = "SPIKESERVE_PLUGINS", "SPIKESERVE_PLUGINS_DIR", "spikeserve_loose"
POINT = re.compile(r"^[ \t]*([^#;\s=][^=\n]*?)[ \t]*=[ \t]*(.*?)[ \t]*$", re.MULTILINE)


class Plugin(NamedTuple):
    """One thing that a plugin brings.

    `at` says where its code is, as `module:attribute` or a module; one with a dot before it lies beside the plugin's.
    `says` is a line for people, `needs` the modules without which it cannot work, and `extra` the extra that has them.
    `guess` says of a file, by its name and first bytes, how surely an importer or a reader takes it: 0 to 1.
    A guess should read no more of the file than it needs; of a pipe or a device none is asked.
    `package` is where it came from, and `plugin` what SPIKESERVE_PLUGINS calls that: the door writes both.
    """

    kind: str
    name: str
    at: str
    says: str
    needs: tuple[str, ...] = ()
    extra: str = ""
    guess: Callable[[Path], float] = lambda _: 0.0
    package: str = ""
    plugin: str = ""

    @property
    def missing(self) -> list[str]:
        """The modules that it needs and that are not installed, nor the packages that they are in; none is imported."""
        return [each for each in self.needs if not all(map(find_spec, accumulate(each.split("."), "{}.{}".format)))]

    def load(self) -> Any:
        """Import it; raises InvalidInput with what to install, or why it cannot be imported."""
        if missing := self.missing:
            how = install(self.extra) if self.extra else f"pip install {' '.join(missing)}"
            raise InvalidInput(f"{self.kind} '{self.name}' needs the module {missing[0]}, expected it here: {how}")
        module, _, attribute = self.at.partition(":")
        with nullcontext() if self.package in ("", OURS) else _blamed(f"{self.kind} '{self.name}' of {self.package}"):
            return getattr(import_module(module), attribute) if attribute else import_module(module)

    def sure(self, path: Path) -> float:
        """Return its guess; that of a pipe or a device, which may have no end, is 0. Raises InvalidInput."""
        with _blamed(f"'{path}': {self.kind} '{self.name}' of {self.package}"):
            special = self.plugin and path.exists() and not (path.is_file() or path.is_dir())
            if not 0 <= (share := 0.0 if special else float(self.guess(path))) <= 1:
                raise InvalidInput(f"its guess is {share}, expected 0 to 1")
            return share


@cache
def opened() -> tuple[Mapping[tuple[str, str], Plugin], Sequence[str]]:
    """Return all that there is, by kind and name, and a sentence for each plugin that cannot be opened.

    Raises InvalidInput for a folder, or a list of those that are let in, which names what is not there.
    """
    known, faults = dict[tuple[str, str], Plugin](), dict[str, str]()
    places, listed = dict[str, tuple[str, str]](), os.environ.get(LET_IN)
    for name, package, module in dict.fromkeys(_places()):  # what ships comes first, and its names are nobody else's
        places[f"{package}:{name}" if name in places else name] = package, module
    let_in = [*places] if listed is None else listed.replace(",", " ").split()
    if unknown := {*let_in} - {*places}:
        raise InvalidInput(f"{LET_IN}: '{min(unknown)}' is no plugin here, expected some of {', '.join(places)}")
    for plugin, (package, module) in ((name, place) for name, place in places.items() if name in let_in):
        with _blamed(f"plugin '{plugin}' of {package}", faults, plugin):
            records = import_module(module).PLUGINS
            for each in records if isinstance(records, tuple) else [records]:
                sound = isinstance(each, Plugin) and each.kind in KINDS and isinstance(each.needs, tuple)
                texts = (each.name, each.at, each.says, each.extra, *each.needs) if sound else (None,)
                if {*map(type, texts)} != {str} or not (callable(each.guess) and each.name[0].isalpha()):
                    raise InvalidInput(f"PLUGINS has {each}, expected a Plugin of one of the kinds {', '.join(KINDS)}")
                at = f"{module}{each.at}" if each.at.startswith((".", ":")) else each.at
                own = each._replace(at=at, package=package, plugin=plugin)
                if (other := known.setdefault((each.kind, each.name), own)) is not own:
                    raise InvalidInput(f"{each.kind} '{each.name}' comes with {other.package}, and with {package}")
    return known, [f"{each}; {_without(known, faults)}" for each in faults.values()]


def of_kind(kind: str, own: Collection[str] = ()) -> dict[str, Plugin]:
    """Return the plugins of a kind, by name.

    Raises InvalidInput for one of any kind that cannot be opened, and for a name that is the core's `own`, in any case.
    """
    known, faults = opened()
    brought = {name: each for (its, name), each in sorted(known.items()) if its == kind}
    if faults:
        raise InvalidInput(faults[0])
    for one in (brought[name] for name in brought if name.lower() in map(str.lower, own)):
        out = _without(known, [one.plugin])
        raise InvalidInput(f"{kind} '{one.name}' comes with {OURS}, and with {one.package}; {out}")
    return brought


def named(kind: str, name: str) -> Any:
    """Import the plugin of that kind and name; raises InvalidInput, with the names that there are."""
    if name not in (known := of_kind(kind)):
        raise InvalidInput(f"{kind}: '{name}' is none here, expected {', '.join(known) or 'a plugin that brings it'}")
    return known[name].load()


def surest(kind: str, path: Path, own: Mapping[str, Plugin]) -> list[Plugin]:
    """Return those of a kind, with the core's `own`, that are surest of a file; none where no one is sure."""
    sure = {each: each.sure(path) for each in (*own.values(), *of_kind(kind, own).values())}
    return [each for each, share in sure.items() if share == max(sure.values()) > 0]


def guessed(kind: str, path: Path, own: Mapping[str, Plugin]) -> Plugin:
    """Return the one that is surest of a file; raises InvalidInput for none, and for two as sure."""
    best = surest(kind, path, own)
    if len(best) != 1:
        may = " or ".join(each.name for each in best) or "anything"
        what = f"one {kind} alone, as {LET_IN} lets them in" if own else f"the name of its {kind} first"
        raise InvalidInput(f"'{path}' may be {may}, expected {what}: {', '.join([*own, *of_kind(kind)])}")
    return best[0]


@contextmanager
def _blamed(who: str, faults: dict[str, str] | None = None, key: str = "") -> Iterator[None]:
    """Have a sentence that names who raised it for all that is raised, in `faults` or by InvalidInput."""
    try:
        yield
    except (Exception, SystemExit) as error:
        said = str(error) if isinstance(error, InvalidInput) else f"{type(error).__name__}: {error}"
        if faults is None:
            raise InvalidInput(bounded_line(f"{who}: {said}")) from error
        faults[key] = bounded_line(f"{who}: {said}")


def _without(known: Mapping[tuple[str, str], Plugin], names: Collection[str]) -> str:
    return f"{LET_IN}={','.join(sorted({each.plugin for each in known.values()} - {*names}))} leaves it out"


def _places() -> Iterator[tuple[str, str, str]]:
    """Yield where plugins are: the name of each, what it came with, and its module; raises InvalidInput."""
    folder, roots = os.environ.get(FOLDER, ""), getattr(find_spec(GROUP), "submodule_search_locations", ())
    for path in sorted(path for root in roots for path in Path(root).glob("*/__init__.py")):
        yield path.parent.name, OURS, f"{GROUP}.{path.parent.name}"
    for path in (Path(place, each) for place in sys.path for each in glob(POINTS, root_dir=place)):  # noqa: PTH207
        with suppress(OSError):  # as `importlib.metadata` does, which takes 60 ms to import
            _, _, points = path.read_text(encoding="utf-8", errors="replace").partition(f"[{GROUP}]\n")
            for name, module in POINT.findall(points.partition("\n[")[0]):
                yield name, path.parent.name.partition("-")[0], module
    sys.modules[LOOSE] = package = type(sys)(LOOSE)
    package.__path__ = [folder]
    loose = sorted(glob("[!_.]*.py", root_dir=folder)) if folder else []  # noqa: PTH207  (it raises nothing)
    if folder and not loose:
        raise InvalidInput(f"--plugins-dir is '{folder}', expected a folder that has a plugin, such as tally.py")
    for name in (each.removesuffix(".py") for each in loose):
        sys.modules.pop(f"{LOOSE}.{name}", None)
        yield name, str(Path(folder, f"{name}.py")), f"{LOOSE}.{name}"


@contextmanager
def quick_imports() -> Iterator[None]:
    """Make imports in the block quick: no garbage collection, no pydantic plugins, its models built at first use."""
    gc.disable()  # what is imported stays: to look for garbage in it takes a sixth of the time
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "true")  # to find them, all installed packages are read
    from pydantic import BaseModel

    BaseModel.model_config["defer_build"] = True  # FastAPI's models of an OpenAPI document take a tenth of the start
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
