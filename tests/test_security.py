"""Tables of promises, in SECURITY.md and of other pages in tests/README.md: each row names tests that are there."""

import ast
import re

import pytest

from spikeserve.models.bundle import bundle, remote
from spikeserve.models.spec.price import LoadLimits
from spikeserve.plugins.grpc import call, server, stream, wire
from spikeserve.plugins.grpc.protocol import PROTOCOL
from spikeserve.plugins.nir import file as nir
from spikeserve.plugins.nir import graph as nir_graph
from spikeserve.service.catalog import load_process, mirror
from spikeserve.service.inference.decoding import binary as npy
from spikeserve.service.inference.decoding import body, compression
from spikeserve.service.inference.scheduling import scheduler
from spikeserve.service.inference.sessions import windows
from spikeserve.service.process import command_line, connections
from spikeserve.training import config
from spikeserve.training.fit import folder
from spikeserve.training.publish import golden
from tests.pages import ROOT

PAGE = (ROOT / "SECURITY.md").read_text()
OTHERS = (ROOT / "tests/README.md").read_text()
TABLES = [
    "What is defended, and how",
    "Budgets",
    "What a file can do to training's commands",
    *re.findall(r"(?m)^## (docs/.*)$", OTHERS),
]
TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the rows of the table below a heading."""
    section = (OTHERS if "/" in heading else PAGE).partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [line.strip("| ").split(" | ") for line in lines[1:]]


@pytest.mark.parametrize("heading", TABLES)
def test_each_promise_names_tests_that_are_there(heading: str) -> None:
    found = rows(heading)
    assert found
    for promise, *_, tests in found:
        named = TEST.findall(tests)
        assert named, promise
        for file, name in named:
            text = (ROOT / "tests" / file).read_text()
            assert re.search(rf"^(async )?def {name}\(", text, re.MULTILINE), f"{promise}: {file}::{name}"


@pytest.mark.parametrize("page", ["docs/api.md", "docs/spec.md"])
def test_each_section_of_a_reference_has_its_promise(page: str) -> None:
    depth = "###?" if page == "docs/api.md" else "##"
    assert [row[0] for row in rows(page)] == re.findall(rf"(?m)^{depth} (.+)$", (ROOT / page).read_text())


def size(count: int) -> str:
    """Write a number of bytes as the page does, such as 64 KiB."""
    power = (count.bit_length() - 1) // 10
    return f"{count / 2 ** (10 * power):g} {['bytes', 'KiB', 'MiB', 'GiB'][power]}"


NUMBERS = [
    f"at most another {size(body.LINGER_BYTES)} or {body.LINGER_SECONDS:g} s is read",
    f"Bodies of at most {size(body.UNRESERVED_BYTES)} do not count",
    f"| bytes of headers | {size(connections.MAX_HEADER_BYTES)} of a connection",
    f"Beyond {size(connections.MAX_BACKLOG_BYTES)} the connection is not read from",
    f"closes at most {windows.MAX_GAP:,} windows",
    f"| decoded samples | {size(scheduler.MAX_DECODED_BYTES)};",
    f"One not there after {call.AT_ONCE_SECONDS:g} s",
    f"{wire.MAX_FIELDS}; {size(wire.MAX_REST_BYTES)}",
    f"{call.MAX_RPCS:,} of a process, {server.MAX_STREAMS} of a connection; {stream.MAX_IN_FLIGHT}",
    f"of at most {compression.MAX_MEMBERS:,} members",
    f"literals of at most {npy.MAX_HEADER_BYTES:,} bytes",
    f"{size(mirror.MAX_MEMORY)} of addresses; at most {remote.MAX_FILES:,} files",
    f"{load_process.AT_ONCE}, of which 2 to 4 hold a place, for {load_process.PLACE_SECONDS:g} s",
    f"{size(bundle.MAX_BYTES['bundle.json'])} of `bundle.json`, {size(bundle.MAX_BYTES['card.md'])} of `card.md`",
    f"and {command_line.OTHER_THREADS}; with gRPC {PROTOCOL.threads} more; "
    f"beside them {command_line.OTHER_PROCESSES} processes",
    f"for {nir.MAX_SECONDS:g} s and in {size(nir.MAX_MEMORY)} of addresses; a file of {size(nir_graph.MAX_BYTES)}",
    f"{nir_graph.MAX_GROUPS} groups, {nir_graph.MAX_EDGES:,} edges, {nir_graph.MAX_DEPTH} levels",
    f"{size(LoadLimits.model_bytes)} and 10**{len(str(LoadLimits.operations)) - 1} operations",
    f"after {golden.ENOUGH // 10**10} · 10**10 no more samples",
    f"replayed at once have {size(bundle.REPLAYED_BYTES)} of signals",
    f"{size(config.MAX_BYTES)} of TOML, {size(folder.MAX_BYTES)} of each file of JSON",
]


@pytest.mark.parametrize("written", NUMBERS)
def test_a_bound_that_the_page_gives_in_numbers_is_the_codes(written: str) -> None:
    assert written in PAGE


RUNS_CODE = {"eval", "exec", "__import__", "cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}


@pytest.mark.parametrize("package", ["models", "service", "plugins/grpc", "plugins/onnx"])
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
