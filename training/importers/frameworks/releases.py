"""The released versions of a framework: which of them compute alike, and which one a network was trained with."""

from __future__ import annotations

from dataclasses import dataclass

from packaging.version import InvalidVersion, Version

from spikeserve.training.errors import InvalidEntry


@dataclass(frozen=True)
class Releases:
    """A framework's releases whose arithmetic is known, oldest first, in groups that compute the same bits.

    Each group is written as one line of versions. The last one goes on: a later release belongs to it.
    """

    lines: tuple[str, ...]

    @property
    def groups(self) -> list[list[Version]]:
        """The releases of each group."""
        return [[Version(text) for text in line.split()] for line in self.lines]

    def find(self, framework: str, given: str, installed: str) -> Version:
        """Return the release that `--trained-with` names, in full or by its first numbers.

        Raises InvalidEntry where there is none, or where the first numbers fit releases that compute otherwise.
        """
        groups = self.groups
        known = {version for group in groups for version in group} | {Version(installed)}
        try:
            asked = Version(given)
        except InvalidVersion:
            asked = None
        size = given.count(".") + 1
        named = sorted(each for each in known if asked in (each, Version(".".join(map(str, each.release[:size])))))
        if not named:
            oldest = groups[0][0] if groups else installed
            raise InvalidEntry(
                f"trained-with: '{given}' is no release of {framework} whose arithmetic is known, expected one from "
                f"{oldest} to {max(known)}"
            )
        if len({self._group(each) for each in named}) > 1:
            *others, last = map(str, named)
            raise InvalidEntry(
                f"trained-with: '{given}' may be {framework} {', '.join(others)} or {last}, which do not all compute "
                "the same, expected one of them in full"
            )
        return named[-1]

    def span(self, *versions: Version) -> str:
        """Return the releases that compute as any of these do, oldest first, such as `0.6.0 to 0.7.0 and 0.9.4`."""
        runs: list[list[Version]] = []
        last_place = -1
        for version in versions:
            place = self._group(version)
            alike = sorted({*(self.groups[place] if self.lines else ()), version})
            if runs and place == last_place + 1:
                runs[-1] += alike
            else:
                runs.append(alike)
            last_place = place
        return " and ".join(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)

    def _group(self, version: Version) -> int:
        """Return the place of the group that a release belongs to: the last one that does not begin after it."""
        return max((place for place, group in enumerate(self.groups) if group[0] <= version), default=0)
