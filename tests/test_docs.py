"""The pages hang together: every link leads somewhere, every page is on the site, and the settings are the code's.

The messages that the page of questions explains are the code's, and the neuron of the concepts is right.
"""

import ast
import importlib.util
import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import typer
from typer.core import TyperGroup

from docs import configuration, pages
from spikeserve.__main__ import COMMANDS
from spikeserve.models.coding import encode
from spikeserve.models.engines import Record
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.service.settings import with_protocols
from spikeserve.training.commands.groups import RUN
from tests.apps import OF_PLUGINS, app
from tests.bundles import publish
from tests.networks import network_of, task, toy
from tests.pages import ROOT, blocks, section
from tests.serving import serving

SITE = pages.places()
PAGES = [path for path in SITE if path.endswith(".md")]
OPERATORS = ["docs/run.md", "docs/secure.md", "docs/under-load.md"]
SETTINGS = with_protocols().model_fields.keys()
MOST_WORDS = 35
LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^()\s]+)\)")


def links(text: str) -> Iterator[tuple[str, str]]:
    """Yield the path and the anchor of each link within the project; either of them may be empty."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    for match in LINK.finditer(re.sub(r"`[^`\n]*`", "", prose)):
        if "://" not in match["target"] and not match["target"].startswith("mailto:"):
            path, _, anchor = match["target"].partition("#")
            yield path, anchor


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and the site agree for plain words."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ["README.md", *PAGES])
def test_every_link_of_a_page_leads_to_a_file_and_a_heading_that_are_there(page: str) -> None:
    text = (ROOT / page).read_text()
    folder = PurePosixPath(page).parent
    for path, anchor in links(text):
        target = (ROOT / folder / path).resolve() if path else ROOT / page
        assert target.exists(), f"{page} links to {path}"
        if anchor:
            assert anchor in anchors(target.read_text()), f"{page} links to {path}#{anchor}"


@pytest.mark.parametrize("page", PAGES)
def test_a_page_of_the_site_links_to_nothing_that_is_not_on_the_site(page: str) -> None:
    place = PurePosixPath(SITE[page])
    on_the_site = set(SITE.values())
    for path, _ in links(pages.moved((ROOT / page).read_text(), page, SITE)):
        assert not path or os.path.normpath(place.parent / path) in on_the_site, f"{page} links to {path}"


def named(nav: Any) -> Iterator[str]:
    """Yield each page that the site's navigation names."""
    if isinstance(nav, str):
        yield nav
    else:
        for each in nav.values() if isinstance(nav, dict) else nav:
            yield from named(each)


def test_the_navigation_has_every_page_once() -> None:
    project = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]
    assert sorted(named(project["nav"])) == sorted(SITE[page] for page in PAGES)


def test_the_page_of_settings_is_what_the_settings_say() -> None:
    assert configuration.PAGE.read_text() == configuration.page(), "run python -m docs.configuration"


def test_the_page_of_settings_has_a_row_for_each_with_its_default_and_bounds() -> None:
    page = configuration.page()
    assert [flag for name in SETTINGS if f"| `{(flag := '--' + name.replace('_', '-'))}` |" not in page] == []
    assert "| `--port` | `8000` | 0 to 65535 |" in page
    assert "| `--client-seconds` | `30` | a decimal, more than 0, at most 3600 |" in page
    assert "| `--engine` | `auto` | `auto`, `event`, `onnx`, `torch`, `reference` |" in page
    assert "| `--strict-readiness` | `true` | `true` or `false` |" in page
    assert str(ROOT) not in page  # nor anything else that is not the same on every machine


@pytest.mark.parametrize("page", ["README.md", *OPERATORS, "docs/api.md", "SECURITY.md", "deploy/README.md"])
def test_a_setting_that_a_page_names_in_backquotes_is_one(page: str) -> None:
    named_settings = set(re.findall(r"`--([a-z][a-z-]*)[` ]", (ROOT / page).read_text()))
    assert {name.replace("-", "_") for name in named_settings} - SETTINGS <= {"build_arg"}  # which is Docker's


def test_the_page_of_running_names_every_metric_and_no_other(tmp_path: Path) -> None:
    publish(tmp_path, toy())
    with serving(tmp_path) as client:
        client.post("/predict", json={"inputs": [[1, 1]]})
        told = set(re.findall(r"^# TYPE (spikeserve_\w+)", client.get("/metrics").text, re.MULTILINE))
    written = set(re.findall(r"`(spikeserve_\w+)`", (ROOT / "docs/run.md").read_text()))
    assert {name for name in told if not name.endswith("_created")} == written


def sentences(text: str) -> Iterator[str]:
    """Yield each sentence of a page's paragraphs, lists and tables, with what a link says in place of the link."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    prose = re.sub(r"\]\([^)\s]*\)", "]", re.sub(r" *\| *|\n(?=[-#] )", "\n\n", prose))
    for paragraph in prose.split("\n\n"):
        yield from re.split(r"(?<=[.?!])\s+", paragraph.strip())


@pytest.mark.parametrize("page", ["README.md", *(page for page in PAGES if page != "CHANGELOG.md")])
def test_no_sentence_of_a_page_is_long(page: str) -> None:
    text = re.sub(r"\n\n(?: {4}.*\n+)+", "\n\n", (ROOT / page).read_text())  # without code that is indented
    assert [each for each in sentences(text) if len(each.split()) > MOST_WORDS] == []


EVERYTHING = ["README.md", *PAGES]
FOLDERS = "benchmarks|deploy|docs|examples|models|plugins|requirements|scripts|service|spikeserve|tests|training"


@pytest.mark.parametrize("page", [page for page in EVERYTHING if page != "CHANGELOG.md"])
def test_a_file_a_script_or_a_module_that_a_page_names_is_there(page: str) -> None:
    text = (ROOT / page).read_text()
    files = set(re.findall(rf"`((?:{FOLDERS})/[\w./-]+)`", text)) | set(re.findall(r"\./(scripts/[\w-]+)", text))
    modules = set(re.findall(r"python -m ([\w.]+)", text))
    assert [file for file in sorted(files) if not (ROOT / file).exists()] == []
    assert [name for name in sorted(modules) if importlib.util.find_spec(name) is None] == []


def test_a_page_says_what_every_script_does() -> None:
    first_cells = re.findall(r"^\| (`\./[^|]*)", (ROOT / "scripts/README.md").read_text(), re.MULTILINE)
    said = re.findall(r"`\./(scripts/[\w-]+)", "".join(first_cells))
    assert sorted(said) == sorted(f"scripts/{script.name}" for script in (ROOT / "scripts").glob("[!R]*"))


def commands(*beginnings: str) -> Iterator[tuple[str, str]]:
    """Yield the page and the arguments of each command in a shell block of a page that begins so."""
    for page in EVERYTHING:
        for line in "".join(blocks((ROOT / page).read_text(), "sh")).splitlines():
            for beginning in beginnings:
                if line.startswith(f"{beginning} "):
                    arguments = line.removeprefix(beginning).partition("  #")[0]
                    yield page, arguments.removeprefix(" --plugins-dir lab")


def by_training(arguments: str) -> bool:
    """Return whether a command of `spikeserve` is one of training, as is the check of a NIR file."""
    name = shlex.split(arguments)[0]
    room, _ = COMMANDS.get(name, ("", ""))
    return room == "training" or name in OF_PLUGINS or arguments.strip().endswith(".nir")


@pytest.mark.parametrize(("page", "arguments"), [*commands("./scripts/serve", "spikeserve serve", "spikeserve check")])
def test_a_page_serves_with_flags_that_there_are(page: str, arguments: str) -> None:
    given = {word[2:].replace("-", "_") for word in shlex.split(arguments) if word.startswith("--")}
    assert given - SETTINGS == set(), page


@pytest.mark.parametrize(
    ("page", "arguments"),
    [
        (page, arguments)
        for page, arguments in commands(
            "spikeserve", ".venv/bin/python -m spikeserve.training", "python -m spikeserve.training"
        )
        if by_training(arguments)
    ],
)
def test_a_page_trains_and_imports_with_commands_that_parse(page: str, arguments: str) -> None:
    command: Any = typer.main.get_command(app)
    words = shlex.split(re.sub(r"repository/[\w-]+/\d", "digits", arguments))  # which is there
    name = ""
    while isinstance(command, TyperGroup):  # of which `export RUN` and `check FILE` need no name
        name = words.pop(0) if words[0] in command.commands else {"export": RUN, "check": "nir"}[name]
        command = command.get_command(typer.Context(command), name)
        assert command, f"{page}: {arguments}"
    command.make_context(name, words)  # which refuses a flag that there is not, and an argument that is missing


PAGE = (ROOT / "docs/troubleshooting.md").read_text()
CONCEPTS = (ROOT / "docs/concepts.md").read_text()
TABLES = "".join(section(PAGE, title) for title in re.findall(r"^## (Messages.*)$", PAGE, re.MULTILINE))
MESSAGES = re.findall(r"^\|(?: \d{3} \|)? `([^`]+)` \|", TABLES, re.MULTILINE)


@cache
def texts() -> str:
    """Return all texts of the code, a line each; what an f-string fills in separates two."""
    found: list[str] = []
    for package in ("models", "plugins", "service", "training"):
        for path in (ROOT / package).rglob("*.py"):
            found += [
                node.value
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
            ]
    return "\n".join(found)


def test_the_page_explains_messages() -> None:
    assert len(MESSAGES) > 15
    assert len(MESSAGES) == TABLES.count("\n| ") - TABLES.count("message |") - 1  # one message is PyTorch's own


CODE = ("python", "sh", "text", "json")
TRANSLATIONS = {"gradient": "docs/tutorials", "convert": "docs/tutorials", "gallery": "docs/tutorials", "README": ""}


@pytest.mark.parametrize("name", TRANSLATIONS)
def test_a_translation_has_the_same_programs_commands_and_messages(name: str) -> None:
    translated, page = ((ROOT / folder / f"{name}.md").read_text() for folder in ("docs/zh-tw", TRANSLATIONS[name]))
    for language in CODE:
        assert blocks(translated, language) == blocks(page, language)


@pytest.mark.parametrize("name", ["api.md", "training.md"])
def test_a_shorter_translation_has_no_program_or_message_of_its_own(name: str) -> None:
    translated, page = ((ROOT / folder / name).read_text() for folder in ("docs/zh-tw", "docs"))
    for language in CODE:
        assert set(blocks(translated, language)) <= set(blocks(page, language))
    assert set(re.findall(r"(?<![\w`])--[a-z][a-z-]+", translated)) <= set(re.findall(r"--[a-z][a-z-]+", page))


def test_the_chinese_pages_explain_the_same_messages_and_have_one_word_for_each_thing() -> None:
    pages = {page.name: page.read_text() for page in (ROOT / "docs/zh-tw").iterdir()}
    messages = re.compile(r"^\|(?: \d{3} \|)? `([^`]+)`", re.MULTILINE)
    assert messages.findall(pages["troubleshooting.md"]) == messages.findall(TABLES)
    table, _, _ = section((ROOT / "docs/training.md").read_text(), "Architectures").partition("| flag |")
    parts = re.findall(r"^\| .+? \|", table, re.MULTILINE)
    assert [part for part in re.findall(r"`(\w[^`]*)`", " ".join(parts)) if part not in pages["training.md"]] == []
    others = re.compile("準確率|發佈|命令|相機|視窗")  # 正確率, 發布, 指令, 攝影機 and 時間窗
    assert {name: found for name, page in pages.items() if (found := others.findall(page))} == {}


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_of_the_page_is_one_of_the_code(message: str) -> None:
    for part in filter(None, (each.strip(" ,':") for each in message.split("…"))):
        assert part in texts()


def test_the_neuron_of_the_concepts_has_the_membranes_and_spikes_of_its_table() -> None:
    rows = {
        row[0]: [float(cell) for cell in row[1:]]
        for row in (
            line.strip("| ").split(" | ") for line in CONCEPTS.splitlines() if re.match(r"\| [a-z ]+ \| ", line)
        )
    }
    network = network_of(
        [
            {"type": "Linear", "name": "in", "in_features": 1, "out_features": 1, "bias": False},
            {"type": "LIF", "name": "out", "decay": 0.75},
        ],
        {"in.weight": [[0.4]]},
        **task(1, 8, ["one"], "direct", low=0, high=1),
    )
    result, _ = ReferenceEngine(network).run(
        encode(np.ones((1, 1), np.float32), network.spec), record=Record.RASTER | Record.MEMBRANE
    )
    membrane = result.membranes["out"][:, 0, 0]
    assert result.rasters["out"][:, 0, 0].tolist() == rows["spike"]
    assert membrane == pytest.approx(rows["after the reset"], abs=0.0005)
    assert 0.75 * np.append(0, membrane[:-1]) + 0.4 == pytest.approx(rows["charged"], abs=0.0005)
