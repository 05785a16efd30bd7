"""The README tells the truth: its request gives its answer, and its tables list every file and every setting."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from models.bundle.repository import PRETRAINED
from service.settings import Settings
from tests.service.conftest import serving

ROOT = Path(__file__).parents[1]


def test_the_readme_lists_every_file_and_every_setting() -> None:
    readme = (ROOT / "README.md").read_text()
    table = readme.partition("## Files")[2]
    listed = set(re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE))
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S607
    files = {re.sub(r"^(models/pretrained/\w+/\d+/).*", r"\1", path) for path in tracked.stdout.split()}
    assert listed == files
    for name in Settings.model_fields:
        assert f"| `--{name.replace('_', '-')}` |" in readme, name


def test_the_readmes_request_gives_the_readmes_answer() -> None:
    readme = (ROOT / "README.md").read_text()
    (sent,) = re.findall(r"-d '(\{.*?\})'", readme, re.DOTALL)
    (answered,) = re.findall(r"^    (\{\"model\":.*?\]\})$", readme, re.DOTALL | re.MULTILINE)
    with serving(PRETRAINED) as client:
        answer = client.post("/predict", content=sent)
    assert answer.json() == json.loads(answered)
