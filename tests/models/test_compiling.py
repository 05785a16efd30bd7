"""The compiler of kernels: one process of a machine, which others wait for or answer without."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from time import sleep

import pytest
from llvmlite import binding as llvm

from spikeserve.models.engines import compiling
from spikeserve.models.engines.compiling import FUNCTIONS, Compiler
from spikeserve.models.engines.event.engine import compile_kernels
from tests.serving import ROOT

# In place of the compiler: one that waits until it is let go and leaves an index behind, and one that dies.
STAND_INS = """
from pathlib import Path
from time import sleep
from spikeserve.models.engines import compiling
HERE = compiling.FOLDER = Path(__file__).parent

def compile(engine):
    with compiling.compiling():  # whose lock its process holds already
        (HERE / "begun").write_text(engine)
        while not (HERE / "go").exists():
            sleep(0.01)
        (HERE / "__pycache__").mkdir(exist_ok=True)
        (HERE / "__pycache__" / "a.nbi").touch()

def die(engine):
    raise MemoryError
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of kernels of which none is compiled, with stand-ins for the compiler."""
    compile_kernels()  # those of this checkout, which are there as soon as one is there
    (tmp_path / "stand_ins.py").write_text(STAND_INS)
    monkeypatch.setattr(compiling, "FOLDER", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("stand_ins", None)


def stand_in(name: str) -> Callable[[str], None]:
    import stand_ins  # type: ignore[import-not-found]

    function: Callable[[str], None] = getattr(stand_ins, name)
    return function


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds that nothing else tells of; the test has a limit of time."""
    while not holds():
        sleep(0.01)


def test_one_process_compiles_whoever_asks_and_all_see_when_it_is_done(folder: Path) -> None:
    first, second = Compiler(stand_in("compile")), Compiler(stand_in("compile"))
    first.begin()
    second.begin()
    assert (first.started, second.started) == (1, 0)
    assert compiling.is_compiling()
    assert not compiling.compiled()
    (folder / "go").touch()
    assert second.wait(Event())
    assert first.wait(Event())
    assert (folder / "begun").read_text() == "event"
    assert (first.started, second.started) == (1, 0)


@pytest.mark.usefixtures("folder")
def test_a_compiler_that_dies_is_followed_by_one_more() -> None:
    compiler = Compiler(stand_in("die"))
    assert not compiler.wait(Event())
    assert compiler.started == 2
    assert not compiling.is_compiling()


def test_a_compiler_that_is_killed_while_it_compiles_is_followed_by_one_that_ends(folder: Path) -> None:
    compiler = Compiler(stand_in("compile"))
    compiler.begin()
    until((folder / "begun").exists)
    assert compiler.process is not None
    os.kill(compiler.process, signal.SIGKILL)
    (folder / "go").touch()
    assert compiler.wait(Event())
    assert compiler.started == 2
    assert not compiling.is_compiling()


def test_a_second_process_compiles_meanwhile_and_ends_with_the_first(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says = f"import os, time; open({str(folder / 'second')!r}, 'w').write(f'{{os.getpid()}}\\n'); time.sleep(60)"
    monkeypatch.setattr(compiling, "SECOND", says)
    with compiling.compiling(), compiling.compiling():
        until(lambda: (folder / "second").exists() and (folder / "second").read_text().endswith("\n"))
    with pytest.raises(ProcessLookupError):
        os.kill(int((folder / "second").read_text()), 0)


def test_who_waits_takes_the_place_of_a_process_that_died_and_may_stop_waiting(folder: Path) -> None:
    lock, over = compiling._lock(), Event()
    over.set()
    compiler = Compiler(stand_in("compile"))
    assert not compiler.wait(over)
    assert compiler.started == 0
    os.close(lock)
    (folder / "go").touch()
    assert compiler.wait(Event())
    assert compiler.started == 1


def test_how_much_is_compiled_is_told_while_it_is_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "TELL_SECONDS", 0.0)
    counts, over = list[int](), Event()
    (folder / "__pycache__").mkdir(exist_ok=True)
    lock = compiling._lock()

    def tell(count: int) -> None:
        counts.append(count)
        (code := folder / "__pycache__" / f"{count}.1.nbc").touch()
        os.utime(code, (2**32, 2**32))  # after the sources
        if count == 3:
            over.set()

    assert not Compiler(stand_in("die")).wait(over, tell)
    os.close(lock)
    assert counts == [0, 1, 2, 3]


def test_a_compiler_that_is_stopped_is_given_up_whoever_began_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "STUCK_SECONDS", 0.5)
    compiler = Compiler(stand_in("compile"))
    compiler.begin()
    until((folder / "begun").exists)
    assert compiler.process is not None
    os.kill(compiler.process, signal.SIGSTOP)
    assert not Compiler(stand_in("compile")).wait(Event())
    assert not compiler.wait(Event())  # the next one waits to be let go, and is given up as well
    assert compiler.started == 2
    assert not compiling.is_compiling()


KILLED = """
import sys
from pathlib import Path
from spikeserve.models.engines import compiling
compiling.FOLDER = Path(sys.argv[1])
compiling.SECOND = f"import time; file = open({sys.argv[2]!r}, 'w'); file.write('.'); file.flush(); time.sleep(600)"
with compiling.compiling():
    sys.stdin.read()
"""


def test_the_second_process_ends_where_the_first_is_killed(folder: Path) -> None:
    os.mkfifo(fifo := folder / "second")
    command = [sys.executable, "-c", KILLED, str(folder), str(fifo)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE) as process, fifo.open() as held:
        assert held.read(1) == "."
        process.kill()
        assert held.read() == ""  # once nobody holds its other end


ENDS = """
from spikeserve.models.engines import compiling
from pathlib import Path
import stand_ins
compiling.FOLDER = Path(stand_ins.__file__).parent
compiling.Compiler(stand_ins.compile).begin()
"""


def test_a_compiler_goes_on_when_who_began_it_has_ended_and_holds_none_of_its_files(folder: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    command = [sys.executable, "-c", ENDS]
    subprocess.run(command, env=environment, check=True, capture_output=True)  # until its pipes are closed
    assert compiling.is_compiling()
    until((folder / "begun").exists)
    (folder / "go").touch()
    until(lambda: not compiling.is_compiling())
    assert compiling.compiled()


def test_a_process_that_compiles_itself_waits_for_another_and_takes_the_lock_once(folder: Path) -> None:
    compiler = Compiler(stand_in("compile"))
    compiler.begin()
    until((folder / "begun").exists)
    (folder / "go").touch()
    with compiling.compiling(), compiling.compiling():  # a reader of requests is compiled with the kernels
        assert compiling.compiled()
        assert compiling.is_compiling()
    assert not compiling.is_compiling()


def test_a_process_that_compiles_itself_does_not_wait_for_one_that_was_stopped(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "STUCK_SECONDS", 0.1)
    compiler = Compiler(stand_in("compile"))
    compiler.begin()
    until((folder / "begun").exists)
    assert compiler.process is not None
    os.kill(compiler.process, signal.SIGSTOP)
    try:
        with compiling.compiling():
            assert compiling.is_compiling()  # the other one, which holds the lock still
    finally:
        os.kill(compiler.process, signal.SIGKILL)


@pytest.mark.usefixtures("folder")
def test_where_nothing_can_be_kept_no_process_is_started_and_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # as on a read-only disk
    compiler = Compiler(stand_in("compile"))
    compiler.begin()
    assert compiler.wait(Event())
    assert compiler.started == 0
    with compiling.compiling(), compiling.compiling():
        assert not compiling.is_compiling()


SLOW = """
import sys, time
from pathlib import Path
from spikeserve.models.engines import compiling
sys.stderr.isatty = lambda: sys.argv[1] == "terminal"
compiling.FOLDER, compiling.TELL_SECONDS, compiling.FUNCTIONS = Path(sys.argv[2]), 0.2, 4
with compiling.compiling():
    sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("where", "line"),
    [
        ("log", "compiling kernels: 1 of 4 functions\n"),
        ("terminal", "\r\x1b[Kcompiling kernels: █████░░░░░░░░░░░░░░░ 1 of 4 functions"),
    ],
)
def test_who_waits_for_kernels_sees_how_many_there_are(folder: Path, where: str, line: str) -> None:
    (folder / "__pycache__").mkdir(exist_ok=True)
    os.utime(folder / "stand_ins.py", (0, 0))
    for name in ("a.nbi", "a.1.nbc", "b.nbi"):  # the second function's code is gone
        (folder / "__pycache__" / name).touch()
    command = [sys.executable, "-c", SLOW, where, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert process.stderr.read(len(line.encode())).decode() == line
        process.communicate()


def test_the_kernels_are_made_of_as_many_functions_as_are_told() -> None:
    compile_kernels()
    indices = (compiling.FOLDER / "__pycache__").glob("*.nbi")
    names = {index.name.rpartition("-")[0] for index in indices}  # <file>.<function>-<line>; some may be of the past
    sources = {source.stem: source.read_text() for source in compiling.FOLDER.glob("*.py")}
    places = [(sources[file], function) for file, function in (name.split(".", 1) for name in names)]
    assert sum(f"def {name}(" in text and f"@inlined\ndef {name}(" not in text for text, name in places) == FUNCTIONS


TARGET = """
from spikeserve.models.engines.event.vectors import TILE_VECTORS
from spikeserve.models.engines.processor import FEATURES, WIDE
from numba.core.registry import cpu_target
_, name, features = cpu_target.target_context.codegen().magic_tuple()
print(name, features == FEATURES, WIDE, TILE_VECTORS)
"""


@pytest.mark.parametrize(
    ("level", "target"), [("x86-64-v3", "x86-64-v3 True False 1\n"), ("x86-64-v4", "x86-64-v4 True True 4\n")]
)
def test_kernels_are_compiled_for_the_level_that_is_set_whatever_processor_this_machine_has(
    level: str, target: str
) -> None:
    environment = os.environ | {"NUMBA_CPU_NAME": level}
    command = [sys.executable, "-c", TARGET]
    assert subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True).stdout == target


CHOSEN = "import numba, runpy, sys; runpy.run_path(sys.argv[1]); print(numba.config.CPU_NAME)"


@pytest.mark.skipif(not llvm.get_host_cpu_features().get("avx2"), reason="this processor has no such level")
@pytest.mark.parametrize(
    ("made", "places"),  # of the levels in `best`
    [(["x86-64-v3"], [1]), (["x86-64-v3", "x86-64-v4"], [0, 1]), ([], [])],
)
def test_an_image_takes_the_best_level_that_it_has_and_that_its_machine_has(
    tmp_path: Path, made: list[str], places: list[int]
) -> None:
    shutil.copy(ROOT / "models" / "engines" / "processor.py", tmp_path)
    (cache := tmp_path / "event" / "__pycache__").mkdir(parents=True)
    for each in made:
        (cache / each).touch()
    command = [sys.executable, "-c", CHOSEN, str(tmp_path / "processor.py")]
    environment = os.environ | {"NUMBA_CPU_NAME": "x86-64"}
    best = ["x86-64-v4" if llvm.get_host_cpu_features().get("avx512vl") else "x86-64-v3", "x86-64-v3"]
    chosen = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()
    assert [best[place] for place in places[:1]] == ([chosen] if chosen.startswith("x86-64-") else [])
