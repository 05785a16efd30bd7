"""Which room of `training` may import which: this table is where the arrows are written down, all one way."""

from __future__ import annotations

import pytest

from tests.test_project import files, imports, module_name

# Each room, and the others that it may import. A file belongs to the longest name that begins its own.
ARROWS: dict[str, set[str]] = {
    "training.errors": set(),
    "training.config": {"training.errors"},
    "training.commands": set(),
    "training.data": {"training.config", "training.errors"},
    "training.report": {"training.data", "training.config", "training.errors"},
    "training.fit": {"training.data", "training.report", "training.config", "training.errors"},
    "training.publish": {"training.data", "training.fit", "training.report"},
    "training.importers": {"training.report", "training.errors"},
    **{
        f"training.importers.{source}": {
            "training.importers", "training.data", "training.publish", "training.report", "training.commands",
            "training.errors",
        }
        for source in ("frameworks", "nir", "onnx")
    },
}  # fmt: skip
TOP = {"training", "training.__main__"}


def room_of(module: str) -> str | None:
    """Return the room that a module belongs to, or None for a module of another package or the top of this one."""
    rooms = [room for room in ARROWS if module == room or module.startswith(f"{room}.")]
    return max(rooms, key=len, default=None)


def test_a_file_belongs_to_the_innermost_room_that_holds_it() -> None:
    assert room_of("training.importers.nir.graph") == "training.importers.nir"
    assert room_of("training.importers.builder") == "training.importers"
    assert room_of("models.spec") is None


def test_every_file_of_training_is_in_a_room_or_at_the_top() -> None:
    modules = {module_name(file) for file in files("training")}
    assert {module for module in modules if room_of(module) is None} == TOP


@pytest.mark.parametrize("room", ARROWS)
def test_a_room_imports_only_rooms_below_it(room: str) -> None:
    wrong = {}
    for file in files("training"):
        if room_of(module_name(file)) == room:
            found = {target for module in imports(file) if (target := room_of(module)) is not None}
            # To import training.importers.builder is to name training.importers, its package, too.
            packages = {other for other in ARROWS if room.startswith(f"{other}.")}
            wrong[file] = found - ARROWS[room] - packages - {room}
    assert wrong
    assert {file: rooms for file, rooms in wrong.items() if rooms} == {}


def test_the_arrows_make_no_circle() -> None:
    below = {room: set(others) for room, others in ARROWS.items()}
    while free := {room for room, others in below.items() if not others}:
        below = {room: others - free for room, others in below.items() if room not in free}
    assert below == {}
