"""`python -m tests.unasync` makes the client that blocks, `spikeserve/_sync`, of the one that is awaited.

A test compares what it would write with what is there.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
WRITTEN, MADE = ROOT / "spikeserve/_async", ROOT / "spikeserve/_sync"
CHANGES = (
    (r"\b(async|await) ", ""),
    (r"\b_async\b", "_sync"),
    (r"\bAsync(?=[A-Z])", ""),  # AsyncClient, AsyncIterator
    (r"\basync_(?=\w)", ""),  # async_items, async_sleep
    (r"\b__a(?=enter|exit|iter)", "__"),
    (r"\benter_async_context\b", "enter_context"),
    (r"\baclose\b", "close"),
    (r"\bwebsockets\.asyncio\b", "websockets.sync"),
)


def made() -> dict[Path, str]:
    """Return the text of each file of the client that blocks."""
    return {MADE / path.name: _made_of(path) for path in sorted(WRITTEN.glob("*.py"))}


def _made_of(path: Path) -> str:
    if path.name == "__init__.py":
        return '"""The client that blocks, which `python -m tests.unasync` makes of `_async`."""\n'
    text = path.read_text()
    for pattern, replacement in CHANGES:
        text = re.sub(pattern, replacement, text)
    for command in (["check", "--select", "I", "--fix", "--exit-zero"], ["format"]):
        words = [sys.executable, "-m", "ruff", *command, "--quiet", "--stdin-filename", str(MADE / path.name), "-"]
        text = subprocess.run(words, input=text, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return text


if __name__ == "__main__":
    for place, content in made().items():
        place.write_text(content)
