"""Programs of pages and examples, run in the tests' process, where what they import is there already."""

import io
import runpy
import sys
import traceback
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.pages import ROOT


def run_here(program: str | Path, folder: Path, *arguments: str | Path) -> CompletedProcess[str]:
    """Run a program, or the file of one, in a folder as `python FILE ARGUMENTS` does; an error is the status 1."""
    file = program if isinstance(program, Path) else folder / "program.py"
    if isinstance(program, str):
        file.write_text(program)
    words, status = [str(file), *map(str, arguments)], 0
    output, errors = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        warnings.catch_warnings(),
        redirect_stdout(output),
        redirect_stderr(errors),
    ):
        warnings.simplefilter("ignore")  # as Python does of what it runs for others
        patch.chdir(folder)
        patch.setenv("PYTHONPATH", str(ROOT))  # for the processes that it starts
        patch.setattr(sys, "argv", words)
        patch.syspath_prepend(str(file.parent))
        try:
            runpy.run_path(str(file), run_name="__main__")
        except Exception:
            traceback.print_exc()
            status = 1
    return CompletedProcess(words, status, output.getvalue(), errors.getvalue())
