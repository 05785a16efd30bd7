"""docs/ray.md says how much code there is for Ray; this needs no Ray."""

import re

from tests.serving import ROOT


def lines(files: str) -> int:
    """Return how many lines files have, to the nearest ten."""
    return round(sum(len(path.read_text().splitlines()) for path in ROOT.glob(files)), -1)


def test_the_page_says_how_many_lines_there_are() -> None:
    said = re.search(
        r"some (\d+) lines for serving and training \(`deploy/ray`\), and (\d+) for batches \(`plugins/ray`\)",
        " ".join((ROOT / "docs/ray.md").read_text().split()),
    )
    counted = lines("deploy/ray/*.py"), lines("plugins/ray/*.py")
    assert said is not None
    assert tuple(map(int, said.groups())) == counted
