"""`spikeserve fit` and the like as a user types them, in the tests' process."""

import io
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType

import pytest

from spikeserve.__main__ import run
from tests.pages import block_with

ROOT = Path(__file__).parents[2]


def training_here(*arguments: str | Path, cwd: Path = ROOT, plots: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command in this process, which takes three seconds less; a run without `plots` two seconds less again.

    Modules that it imports from `cwd` are forgotten after it, as another test may write one of the same name.
    """
    words, before = ["training", *map(str, arguments)], {*sys.modules}
    output, errors = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(errors):
        patch.chdir(cwd)
        patch.setattr(sys, "path", list(sys.path))
        patch.setenv("COLUMNS", "200")
        patch.setattr(sys, "argv", words)
        if not plots:
            patch.setattr("spikeserve.training.commands.fit.draw", lambda _: None)
        with pytest.raises(SystemExit) as ended:
            sys.exit(run())
    for name in sys.modules.keys() - before:
        if cwd != ROOT and _lies_in(cwd, sys.modules[name]):
            del sys.modules[name]
    return subprocess.CompletedProcess(words, int(ended.value.code or 0), output.getvalue(), errors.getvalue())


def _lies_in(folder: Path, module: ModuleType) -> bool:
    return Path(getattr(module, "__file__", None) or "/").is_relative_to(folder)


def train_from_page(section: str, data: str, folder: Path) -> None:
    """Run what a section of a page says: the program that writes `data` in `folder`, then `spikeserve fit` on it."""
    subprocess.run([sys.executable, "-c", block_with(section, "python", data)], cwd=folder, check=True)
    (line,) = re.findall(r"^spikeserve (fit .*)$", block_with(section, "sh", "spikeserve fit"), re.MULTILINE)
    fitted = training_here(*shlex.split(line), cwd=folder, plots=False)
    assert fitted.returncode == 0, fitted.stderr
