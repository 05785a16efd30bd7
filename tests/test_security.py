"""SECURITY.md: each row of its tables names tests that hold what it promises, and those are there."""

from __future__ import annotations

import ast
import re

import pytest

from tests.pages import ROOT

PAGE = (ROOT / "SECURITY.md").read_text()
TABLES = ["What is defended, and how", "Budgets", "What a file can do to training's commands"]
TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the rows of the table below a heading."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [line.strip("| ").split(" | ") for line in lines[1:]]


@pytest.mark.parametrize("heading", TABLES)
def test_each_promise_names_tests_that_are_there(heading: str) -> None:
    found = rows(heading)
    assert len(found) > 5
    for promise, *_, tests in found:
        named = TEST.findall(tests)
        assert named, promise
        for file, name in named:
            text = (ROOT / "tests" / file).read_text()
            assert re.search(rf"^(async )?def {name}\(", text, re.MULTILINE), f"{promise}: {file}::{name}"


RUNS_CODE = {"eval", "exec", "__import__", "cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}


@pytest.mark.parametrize("package", ["models", "service"])
def test_nothing_that_serves_unpickles_or_evaluates(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Import(names=names):
                    used = {name.name.partition(".")[0] for name in names}
                case ast.ImportFrom(module=str(module)):
                    used = {module.partition(".")[0]}
                case ast.Call(func=ast.Name(id=name)):
                    used = {name}
                case ast.Call(func=ast.Attribute(value=ast.Name(id="np" | "torch" | "numpy" as of), attr="load")):
                    used = {f"{of}.load"}
                case _:
                    continue
            assert not used & (RUNS_CODE | {"np.load", "numpy.load", "torch.load"}), f"{path}:{node.lineno}"


def test_the_tables_are_found_and_a_test_that_is_gone_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = PAGE.replace("::test_each_key_that_is_set_opens_the_models`", "::test_that_is_gone`")
    assert gone != PAGE
    monkeypatch.setitem(globals(), "PAGE", gone)
    with pytest.raises(AssertionError, match=r"strangers use the models: .*test_that_is_gone"):
        test_each_promise_names_tests_that_are_there(TABLES[0])
