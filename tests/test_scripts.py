"""The scripts, run for real in a copy of the project whose Python is a stand-in: nothing is installed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted([*(ROOT / "scripts").glob("[!R]*"), ROOT / ".ci" / "run"])

# Runs a program on its standard input for real; of anything else says what it was asked and where the models are.
PYTHON = f"""#!/bin/sh
[ "$1" = - ] && exec "{sys.executable}" "$@"
echo "python $*"
echo "repository ${{SPIKESERVE_REPOSITORY:-none}}"
"""
OLD_PYTHON = '#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.10.13"\n[ "$1" = --version ]\n'


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose .venv holds everything, with one model that ships."""
    root = tmp_path / "a project"
    shutil.copytree(ROOT / "scripts", root / "scripts")
    shutil.copy(ROOT / "pyproject.toml", root)
    (root / "models/pretrained/digits/1").mkdir(parents=True)
    (root / "models/pretrained/digits/1/bundle.json").write_text("{}")
    executable(root / ".venv/bin/python", PYTHON)
    shutil.copy(ROOT / "pyproject.toml", root / ".venv/.installed-from")
    (root / ".venv/.installed-extras").write_text("dev\nonnx\nserve\ntorch\ntrain\n")
    return root


def run(script: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    # Away from the project's root, since a script works from anywhere.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SPIKESERVE_")}
    return subprocess.run(
        [script, *arguments],
        cwd=script.parents[2],
        env=environment | settings,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_is_executable_says_what_it_does_and_stops_at_the_first_error(script: Path) -> None:
    shebang, comment, *rest = script.read_text().splitlines()
    assert os.access(script, os.X_OK)
    assert shebang == "#!/usr/bin/env bash"
    assert comment.startswith("# ")
    assert next(line for line in rest if not line.startswith("#")) == "set -euo pipefail"


def test_install_does_nothing_where_a_larger_extra_covers_what_is_asked_for(project: Path) -> None:
    result = run(project / "scripts/install", "serve", "train")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_install_runs_again_when_an_extra_is_new_and_keeps_the_others(project: Path) -> None:
    (project / ".venv/.installed-extras").write_text("serve\n")
    result = run(project / "scripts/install", "onnx")
    assert result.returncode == 0, result.stderr
    assert "-m pip install" in result.stderr  # with all that pip says, as it may take minutes
    needed = (project / ".venv/.requirements.txt").read_text()
    assert "onnx>=" in needed
    assert "uvicorn>=" in needed
    assert "torch" not in needed
    assert run(project / "scripts/install", "serve", "onnx").stdout == ""


def test_install_runs_again_when_pyproject_changed(project: Path) -> None:
    text = (project / "pyproject.toml").read_text()
    (project / "pyproject.toml").write_text(text.replace('"uvicorn>=', '"a-new-library",\n  "uvicorn>='))
    assert "-m pip install" in run(project / "scripts/install", "serve").stderr
    assert "a-new-library" in (project / ".venv/.requirements.txt").read_text().splitlines()
    assert run(project / "scripts/install", "dev").stdout == ""


def test_install_names_the_extras_when_one_is_unknown(project: Path) -> None:
    result = run(project / "scripts/install", "sevre")
    assert result.returncode == 1
    assert "'sevre' is no extra of pyproject.toml, which has serve, onnx, torch" in result.stderr


def test_an_install_that_fails_is_not_taken_for_done(project: Path) -> None:
    failing = 'case "$*" in *install*) echo "no such package" >&2; exit 1;; esac\n'
    executable(project / ".venv/bin/python", PYTHON + failing)
    for _ in range(2):
        result = run(project / "scripts/install", "bench")
        assert result.returncode == 1
        assert "no such package" in result.stderr


def test_install_refuses_a_python_that_is_too_old_in_one_sentence(project: Path) -> None:
    shutil.rmtree(project / ".venv")
    old = executable(project / "old", OLD_PYTHON)
    result = run(project / "scripts/install", "serve", PYTHON=str(old))
    assert result.returncode == 1
    assert result.stderr == (
        f"scripts/install: PYTHON is '{old}' (Python 3.10.13), but Python 3.11 to 3.14 is needed.\n"
    )
    assert not (project / ".venv").exists()


def test_serve_serves_what_ships_until_there_is_a_repository_and_a_setting_overrides_both(project: Path) -> None:
    serve = project / "scripts/serve"
    assert run(serve, "--port", "9").stdout == "python -m spikeserve.service --port 9\nrepository models/pretrained\n"
    (project / "repository").mkdir()
    assert run(serve).stdout == "python -m spikeserve.service\nrepository repository\n"
    assert run(serve, SPIKESERVE_REPOSITORY="/other").stdout == "python -m spikeserve.service\nrepository /other\n"


def test_train_publishes_beside_the_models_that_ship_where_serve_finds_it(project: Path) -> None:
    trained = run(project / "scripts/train", "--epochs", "1")
    assert trained.returncode == 0, trained.stderr
    assert "python -m spikeserve.training fit --repository repository --epochs 1" in trained.stdout
    assert (project / "repository/digits/1/bundle.json").is_file()
    assert not list(project.glob("repository.*"))
    assert "repository repository" in run(project / "scripts/serve").stdout


def test_train_leaves_a_repository_that_exists_as_it_is(project: Path) -> None:
    (project / "repository/digits/7").mkdir(parents=True)
    assert run(project / "scripts/train").returncode == 0
    assert [path.name for path in (project / "repository/digits").iterdir()] == ["7"]


def test_audit_says_why_it_was_skipped_where_the_advisories_do_not_answer(project: Path) -> None:
    # Nothing listens at the proxy's port, so that no advisory is reached, and nothing is installed.
    (project / "requirements").mkdir()
    (project / "requirements/serve.txt").write_text("annotated-doc==0.0.7\n")
    nowhere = {"https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "no_proxy": "", "NO_PROXY": ""}
    result = run(project / "scripts/audit", "--if-reachable", **nowhere)
    assert result.returncode == 0
    assert result.stdout == ""
    assert result.stderr.startswith(
        "scripts/audit: skipped, PyPI's advisories do not answer here: https://pypi.org/pypi/annotated-doc/0.0.7/json: "
    )


def test_the_files_of_tests_that_other_pythons_run_are_there() -> None:
    lists = re.findall(
        r"^readonly (?:tests|training)=\(.*?\)$", (ROOT / "scripts/test-pythons").read_text(), re.M | re.S
    )
    missing = 'for each in "${tests[@]}" "${training[@]}"; do [[ -e $each ]] || echo "$each"; done'
    found = subprocess.run(
        ["/bin/bash", "-c", "\n".join([*lists, missing])], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (len(lists), found.stdout) == (2, "")
