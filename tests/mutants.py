"""Plant sampled faults in a copy of the project, and see whether tests fail: `./scripts/mutants ROOM …`.

cosmic-ray makes the faults: an operator changed, a number, a comparison, a branch. As a room has thousands of them,
some lines are drawn by a seed, and one fault on each. Faults in annotations are left out, as they change nothing. The
tests run once without a fault; a fault is tried by those that come to its line, the quickest first, or to its module
where none does: to what runs at an import, or compiled, or in another process.
"""

import argparse
import ast
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from shutil import copy2

from cosmic_ray.commands.init import init
from cosmic_ray.modules import find_modules
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkResult

ROOT = Path(__file__).parents[1]
PYTEST = f"{sys.executable} -m pytest -q -n 0 -p no:cacheprovider -p no:randomly"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print each fault that no test is seen to catch, and how many there are; return 0."""
    parser = argparse.ArgumentParser(prog="scripts/mutants", description="Plant faults and see whether tests fail.")
    parser.add_argument(
        "rooms", nargs="+", type=Path, help="folders or files that faults are planted in: service/inference"
    )
    parser.add_argument("--lines", type=int, default=20, help="how many lines are drawn from all rooms")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other lines")
    parser.add_argument("--tests", nargs="+", default=["tests"], help="which may catch them; all, which takes longest")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for the tests of one fault")
    parser.add_argument("--root", type=Path, default=ROOT, help="the project, which is copied and never changed")
    asked = parser.parse_args(arguments)
    outcomes, began = Counter[str](), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copied(asked.root, Path(folder))
        os.chdir(folder)
        faults = drawn(asked.rooms, asked.lines, random.Random(asked.seed))  # noqa: S311  (no secret)
        if not faults:
            parser.error(f"rooms are {[str(room) for room in asked.rooms]}, expected folders of {asked.root} with code")
        reached = reaching(asked.tests, [place(fault) for fault in faults])
        for fault in faults:
            tests = reached.get(place(fault)) or reached.get(str(fault.module_path)) or {}
            seconds = accumulate(tests.values())  # a fault may make them slower, up to twice as slow
            own = [test for test, total in zip(tests, seconds, strict=True) if total <= asked.timeout / 2]
            Path("chosen.txt").write_text("\n".join(own))
            result = mutate_and_test([fault], f"{PYTEST} -x @chosen.txt", asked.timeout) if own else None
            outcomes[end := outcome(result)] += 1
            print(f"{end:<11}", place(fault), fault.operator_name)
            if end != "caught":
                print((result.diff or result.output) if result else "no test comes to it", flush=True)
    minutes = (time.monotonic() - began) / 60
    counts = ", ".join(f"{outcomes[end]} {end}" for end in ("caught", "survived", "timed out", "did not run"))
    print(f"{len(faults)} faults in {minutes:.1f} minutes: {counts}")
    return 0


def outcome(result: WorkResult | None) -> str:
    """Return the fate of a fault; only one for which pytest names a test that failed is caught."""
    if result is None or result.test_outcome is TestOutcome.SURVIVED:
        return "survived"
    if result.output == "timeout":
        return "timed out"
    return "caught" if re.search(r"^(FAILED|ERROR) \S+::", result.output or "", re.MULTILINE) else "did not run"


def place(fault: MutationSpec) -> str:
    """Return where a fault is, such as "models/errors.py:12"."""
    return f"{fault.module_path}:{fault.start_pos[0]}"


def reaching(tests: Sequence[str], places: Sequence[str]) -> dict[str, dict[str, float]]:
    """Run tests without a fault; return the seconds of those that pass, by the places and modules that they come to."""
    copy2(Path(__file__).with_name("reach.py"), "reach.py")  # where pytest finds a plugin of this name
    plan = Path("reach.json").resolve()
    plan.write_text(json.dumps(places))
    command = [*PYTEST.split(), "-p", "reach", *tests]
    subprocess.run(command, env={**os.environ, "REACH_LINES": str(plan)}, check=False)
    reached: dict[str, dict[str, float]] = json.loads(plan.with_suffix(".found").read_text())
    return reached


def copied(root: Path, copy: Path) -> None:
    """Copy the files that git knows or would add, as they are now, and the kernels that Numba has compiled."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=root, capture_output=True, text=True, check=True).stdout.split("\0")
    kernels = [path.relative_to(root).as_posix() for path in root.glob("[ms]*/**/__pycache__/*.nb[ic]")]
    for name in filter(None, [*names, *kernels]):
        if (root / name).is_file() or (root / name).is_symlink():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            copy2(root / name, copy / name, follow_symlinks=False)


def drawn(rooms: Sequence[Path], lines: int, draw: random.Random) -> list[MutationSpec]:
    """Draw lines of the rooms, by paths below the working directory, and one fault for each."""
    modules = sorted(find_modules([room for room in rooms if room.exists()]))
    by_line: defaultdict[tuple[Path, int], list[MutationSpec]] = defaultdict(list)
    with use_db(":memory:", WorkDB.Mode.create) as database:
        init(modules, database, {})
        for item in database.work_items:
            (fault,) = item.mutations
            by_line[fault.module_path, fault.start_pos[0]].append(fault)
    for module in modules:
        for line in annotated(ast.parse(module.read_text())):
            by_line.pop((module, line), None)
    chosen = draw.sample(sorted(by_line), min(lines, len(by_line)))
    return [draw.choice(by_line[place]) for place in chosen]


def annotated(tree: ast.AST) -> Iterator[int]:
    """Yield the lines that hold an annotation, or import what only those need."""
    for node in ast.walk(tree):
        match node:
            case ast.arg(annotation=ast.expr() as found) | ast.AnnAssign(annotation=found, value=None):
                yield from range(found.lineno, (found.end_lineno or found.lineno) + 1)
            case ast.FunctionDef(returns=ast.expr() as found) | ast.AsyncFunctionDef(returns=ast.expr() as found):
                yield from range(found.lineno, (found.end_lineno or found.lineno) + 1)
            case _:
                pass


if __name__ == "__main__":
    sys.exit(main())
