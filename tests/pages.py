"""The pages that people read, for the tests that hold them to the truth: their code blocks, and their curl commands."""

import re
import shlex
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[1]
LOCAL = "localhost:8000"  # where the pages have the service


def blocks(page: str, language: str) -> list[str]:
    """Return the fenced code blocks of one language, in the page's order."""
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


def block_with(page: str, language: str, words: str) -> str:
    """Return the one block of a language that holds `words`."""
    (found,) = [block for block in blocks(page, language) if words in block]
    return found


def section(page: str, title: str) -> str:
    """Return the text below a heading of the second level, up to the next one."""
    (found,) = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
    return found


def serve_flags(command: str, repository: Path) -> list[str]:
    """Return the flags of a page's `spikeserve serve --repository repository`, with the repository elsewhere."""
    program, name, *flags = shlex.split(command)
    assert (program, name) == ("spikeserve", "serve")
    assert flags[:2] == ["--repository", "repository"]
    return ["--repository", str(repository), *flags[2:]]


def curl(command: str, url: str) -> Any:
    """Send what a page's curl command would, but to `url`, and return the JSON of its answer, which is to be a 200."""
    program, *words = shlex.split(command)
    assert program == "curl"
    address, headers, body = "", {"content-type": "application/x-www-form-urlencoded"}, ""  # which curl says of -d
    while words:
        match words.pop(0):
            case "-s":
                pass
            case "-H":
                name, _, value = words.pop(0).partition(": ")
                headers[name.lower()] = value
            case "-d":
                body = words.pop(0)
            case word:
                assert not address, f"curl has '{word}' beside '{address}', which this helper does not know"
                address = word
    assert address.startswith(LOCAL)
    answer = httpx.post(address.replace(LOCAL, url), content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()
