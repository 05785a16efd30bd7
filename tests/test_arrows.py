"""Which room of a package may import which: the tables are where the arrows are written down, all one way."""

import ast
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import pytest

from tests.sources import ROOT, files, imported_by, imports, module_name

Arrows = Mapping[str, set[str]]


def table(package: str, text: str) -> Arrows:
    """Read a room and the rooms that it may import from each line; `*room` is that room with all that it may import."""
    arrows: dict[str, set[str]] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        room, _, others = line.partition(":")
        names = {f"{package}.{name.removeprefix('*')}" for name in others.split()}
        through = [arrows[f"{package}.{name[1:]}"] for name in others.split() if name.startswith("*")]
        arrows[f"{package}.{room}"] = names.union(*through)
    return arrows


MODELS = """
    errors:
    version:
    folders:
    door: errors
    kinds: bundle coding engines spec
    isolated: *door
    recordings: *door
    spec: errors
    neurons: spec
    coding: *spec
    engines: coding door neurons *spec
    bundle: coding engines folders version *spec
"""  # of `kinds` their types alone
TRAINING = """
    errors:
    files:
    config: errors files
    commands: *config
    data: *config
    importers: errors files
    report: data config errors importers
    fit: report *data
    publish: data errors fit report
    library: fit publish
    commands.runs: commands config data errors fit publish report
    commands.imports: commands errors importers publish report
    commands.bundles: commands commands.runs errors fit publish report
    commands.fit: commands commands.runs config errors fit report
    commands.verify: commands data report
    __main__: commands
"""
SERVICE = """
    errors:
    settings:
    telemetry: errors settings
    catalog: *telemetry
    inference:
    inference.decoding: inference *catalog
    inference.scheduling: *inference.decoding
    inference.sessions: *inference.scheduling
    inference.protocols:
    inference.protocols.native: inference.protocols *inference.scheduling
    inference.protocols.v2: inference.protocols *inference.sessions
    keys: errors settings
    services: keys *inference.protocols.native *inference.protocols.v2
    http: *services
    app: *http
    process: *app
    __main__: process
"""  # `services` is what is made at the start, for the rooms above
OTHERS = {"ray": ["local"]}
TABLES: Mapping[str, Arrows] = {
    **{name: table(name, text) for name, text in (("models", MODELS), ("training", TRAINING), ("service", SERVICE))},
    # A plugin imports another only if it says so in `needs`.
    "plugins": {
        f"plugins.{name}": {f"plugins.{other}" for other in OTHERS.get(name, ())}
        for name in ["c", "frameworks", "gallery", "grpc", "local", "nir", "onnx", "ray", "report"]
    },
}  # package to the arrows inside it

# The modules of the core that plugins use. They are what a plugin's author relies on, so the list should only shrink.
API = (ROOT / "tests/core_for_plugins.txt").read_text().split()

# The most files of a room itself in a chain, each of which imports the next to run.
FLOORS = {"models/engines/event": 9, "plugins/frameworks": 8, "plugins/frameworks/conversion": 4}

ENGINES = ("event", "torch", "reference")
DECLARED = "models.engines.declared"  # imports an engine where it makes one


def room_of(module: str, arrows: Arrows) -> str | None:
    """Return the innermost room that a module belongs to, or None for another package's or the top of this one's."""
    return max((room for room in arrows if f"{module}.".startswith(f"{room}.")), key=len, default=None)


@pytest.mark.parametrize("package", TABLES)
def test_every_file_is_in_a_room_or_is_the_package_itself(package: str) -> None:
    modules = {module_name(file) for file in files(package)}
    assert {module for module in modules if room_of(module, TABLES[package]) is None} == {package}


@pytest.mark.parametrize(("package", "room"), [(package, room) for package in TABLES for room in TABLES[package]])
def test_a_room_imports_only_the_rooms_that_its_row_names(package: str, room: str) -> None:
    arrows = TABLES[package]
    wrong = {}
    for file in files(package):
        if room_of(module_name(file), arrows) == room:
            found = {room_of(module, arrows) for module in imports(file)} - {None, room}
            wrong[file] = found - arrows[room]
    assert wrong, f"{room} holds no file"
    assert {file: rooms for file, rooms in wrong.items() if rooms} == {}


@pytest.mark.parametrize("package", TABLES)
def test_the_arrows_make_no_circle(package: str) -> None:
    below = {room: set(others) for room, others in TABLES[package].items()}
    while free := {room for room, others in below.items() if not others}:
        below = {room: others - free for room, others in below.items() if room not in free}
    assert below == {}


@pytest.mark.parametrize("engine", ENGINES)
def test_no_engine_imports_another(engine: str) -> None:
    own = f"models.engines.{engine}"
    others = {f"models.engines.{other}" for other in ENGINES} - {own}
    mine = [file for file in files("models") if f"{module_name(file)}.".startswith(f"{own}.")]
    assert mine
    assert {file: found for file in mine if (found := imports(file) & (others | {DECLARED}))} == {}


@pytest.mark.parametrize("room", FLOORS)
def test_a_room_has_no_more_floors_than_its_row_says(room: str) -> None:
    modules, below = {module_name(file): file for file in files(room) if Path(file).parent == Path(room)}, {}
    for own, file in modules.items():
        tree = ast.parse((ROOT / file).read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                node.body = [ast.Pass()]
        imported = imported_by(ast.unparse(tree), ".".join(Path(file).parent.parts))
        below[own] = {name.removeprefix("spikeserve.") for name in imported} & modules.keys() - {own}
    floors = 0
    while free := {module for module, others in below.items() if not others}:
        below = {module: others - free for module, others in below.items() if module not in free}
        floors += 1
    assert (below, floors <= FLOORS[room]) == ({}, True), f"{room} has {floors} floors"


def test_a_plugin_says_which_others_it_needs() -> None:
    for name, others in OTHERS.items():
        records = import_module(f"spikeserve.plugins.{name}").PLUGINS
        assert all({f"spikeserve.plugins.{other}" for other in others} <= {*record.needs} for record in records)


def test_plugins_use_the_modules_of_the_core_that_are_listed() -> None:
    core = {module_name(file) for file in files("models", "service", "training") if Path(file).name != "__init__.py"}
    used = {module for file in files("plugins") for module in imports(file)} & core
    assert sorted(used) == API
