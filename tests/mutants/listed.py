"""The list of mutants, `mutants.toml`: one-line faults, each with the tests that must fail once it is planted."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

ROOT = Path(__file__).parents[2]
LIST = Path(__file__).with_name("mutants.toml")

Text = Annotated[str, StringConstraints(min_length=1)]


class Mutant(BaseModel):
    """A fault: in `file`, `before` becomes `after`; `tests` then fail, or `promise` is held by none of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: Text
    before: Annotated[str, StringConstraints(min_length=1, pattern=r"^[^\n]+$")]
    after: str
    tests: Annotated[tuple[Text, ...], Field(min_length=1)]
    promise: Text
    environment: Annotated[str, StringConstraints(pattern=r"^[a-z]+$")] | None = None

    def python(self, root: Path) -> Path:
        """Return the interpreter of its tests: this one, or that of `environment`, which may not have been made."""
        return Path(sys.executable) if self.environment is None else root / "build" / self.environment / "bin/python"

    def line(self, root: Path) -> int:
        """Return the number of the line that it changes. Raises ValueError unless `before` is there exactly once."""
        path = root / self.file
        text = path.read_text() if path.is_file() else ""
        if (found := text.count(self.before)) != 1:
            raise ValueError(f"{self.file}: '{self.before}' is there {found} times, expected once")
        return text[: text.index(self.before)].count("\n") + 1

    def plant(self, root: Path) -> str:
        """Plant the fault in the project at `root` and return the file as it was. Raises ValueError as `line` does."""
        self.line(root)
        path = root / self.file
        text = path.read_text()
        path.write_text(text.replace(self.before, self.after))
        return text


class _List(BaseModel):
    model_config = ConfigDict(extra="forbid")

    mutant: Annotated[list[Mutant], Field(min_length=1)]


def read(path: Path = LIST) -> list[Mutant]:
    """Return the mutants that a file lists, in its order; raises pydantic's ValidationError."""
    return _List.model_validate(tomllib.loads(path.read_text())).mutant
