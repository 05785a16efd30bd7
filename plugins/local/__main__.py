"""`spikeserve run`: answer what comes on standard input, without a server."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any
from urllib.parse import urlencode

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from spikeserve.models.bundle.repository import bundle_folder
from spikeserve.models.engines.declared import ENGINES
from spikeserve.models.errors import SpikeserveError, bounded_line
from spikeserve.models.recordings.files import file_format
from spikeserve.plugins.local.arrays import CHUNK, event_records, parts
from spikeserve.plugins.local.model import answer, loaded, read_bundle, samples_at_once
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.errors import MalformedBody, Misconfigured, TooLarge
from spikeserve.service.inference.decoding.media import JSON, MAGIC, NPY, RECORDS
from spikeserve.service.inference.decoding.readers import prepare
from spikeserve.service.inference.decoding.validation import first_error
from spikeserve.service.inference.protocols.native.codec import NativeCodec
from spikeserve.service.inference.protocols.native.schemas import Options, read_options
from spikeserve.service.inference.sessions.messages import StreamOptions
from spikeserve.service.settings import Settings
from spikeserve.service.telemetry import logs

REFUSED, INTERRUPTED, PIPE_CLOSED = 1, 130, 141  # the last two as a shell tells of SIGINT and SIGPIPE
STDOUT = 1
SPACE = b" \t\r\n"
ROW = "{:>6}  {:<24}  {:>11}  {:>12}\n"
NO_TIMEOUT_MS = 2**31


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, by default that of this process, and return its exit status."""
    options = vars(parser().parse_args(arguments))
    try:
        if sys.stdin is None or sys.stdin.isatty() or sys.stdout is None:
            raise Misconfigured("input: comes from a terminal or a closed file, expected `< file` or a pipe")
        logs.configure("warning", sys.stderr)
        run(options)
    except BrokenPipeError:  # who read the answers has had enough
        return PIPE_CLOSED
    except SpikeserveError as error:
        sentence = str(error)
    except OSError as error:
        sentence = f"'{error.filename or 'standard input'}': {error.strerror}"
    except KeyboardInterrupt:
        return INTERRUPTED
    else:
        return 0
    print(f"spikeserve: {bounded_line(sentence)}", file=sys.stderr)
    return REFUSED


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; an option that is not there has no value."""
    made = argparse.ArgumentParser(
        prog="spikeserve run",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        description="Answers samples on standard input by a bundle, without a server, as /predict does.",
        epilog="Input: JSON lines, each a sample or a whole request; an .npy of samples; a recording of events. "
        "With --window: event records or messages, as a stream of the server takes them.",
    )
    made.add_argument("bundle", metavar="BUNDLE", help="a bundle's folder, a pulled model, or a name of the gallery")
    made.add_argument("--engine", choices=list(ENGINES), help="default: the fastest here")
    made.add_argument("--time-steps", help="the time steps of each sample; default: the model's")
    made.add_argument("--seed", help="what rate coding draws its spikes by; default: 0")
    made.add_argument("--stop", help="end a sample early: decided or confident")
    made.add_argument("--return", help="what answers also hold: raster, membrane, spikes_per_node")
    made.add_argument("--window", dest="window_steps", metavar="STEPS", help="go on in windows of so many steps")
    made.add_argument("--step-us", help="with --window: microseconds of a step, where the model does not say it")
    made.add_argument("--format", choices=("json", "table"), help="default: table at a terminal, else JSON lines")
    return made


def run(options: Mapping[str, Any]) -> None:
    """Answer standard input; raises SpikeserveError, and OSError of a file or of standard input."""
    try:
        settings = Settings(threads=1, request_timeout_ms=NO_TIMEOUT_MS, **_of(options, "engine"))
    except ValidationError as error:
        raise Misconfigured(first_error(error, fields=", ".join(Settings.model_fields))) from error
    query = urlencode(_of(options, "time_steps", "seed", "stop", "return")).encode()
    asked, folder = read_options(query), bundle_folder(options["bundle"])
    with loaded(read_bundle(folder, settings), settings, prepare) as model:
        _answer_all(model, settings, options, asked, query)


def _answer_all(
    model: LoadedModel, settings: Settings, options: Mapping[str, Any], asked: Options, query: bytes
) -> None:
    is_table = options.get("format", "table" if os.isatty(STDOUT) else "json") == "table"
    write = partial(_write, numbers=count() if is_table else None)
    source: io.BufferedReader = io.BufferedReader(io.FileIO(sys.stdin.fileno(), closefd=False), CHUNK)
    if stream := _of(options, "window_steps", "step_us"):
        from spikeserve.plugins.local.stream import answer_stream  # here, since only a stream needs the sessions

        with _explained("input"):
            choices = StreamOptions.read(urlencode(stream | _of(options, "seed")).encode())
            answer_stream(model, choices, _messages(source, settings.max_body_bytes), write, settings)
        return
    for where, kind, body in bodies(source, model, asked, settings.max_body_bytes):
        model = model.newest
        with _explained(where):
            answers = answer(model, NativeCodec(model, kind=kind, query=b"" if kind == JSON else query).decode(body))
        write([to_json(each, inf_nan_mode="null") for each in answers])


def _of(options: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: options[name] for name in names if name in options}


@contextmanager
def _explained(where: str) -> Iterator[None]:
    """Raise what is wrong with the input as Misconfigured, which says where; the server's sentences say `the body`."""
    try:
        yield
    except (SpikeserveError, MemoryError) as error:  # the second of an array that is longer than its file
        said = str(error).replace("inputs[0]", "sample", 1) if where.startswith("line") else str(error)
        said = said.replace("the body", "it", 1).removeprefix("query: ").replace("?step_us=…", "--step-us")
        raise Misconfigured(f"{where}: {said}") from error


def bodies(
    source: io.BufferedReader, model: LoadedModel, options: Options, most_bytes: int
) -> Iterator[tuple[str, bytes, bytes]]:
    """Yield what the server would take as bodies: where each lies in the input, its media type, and itself.

    No more of the input is held than `most_bytes`, or one run's samples. Raises Misconfigured.
    """
    if is_text(source, (b"[", b"{")):
        fields = b"]," + to_json(options.model_dump(by_alias=True))[1:]
        for where, line in lines(source, most_bytes):
            is_request = line.startswith(b"{") and b'"inputs"' in line  # and no sample
            yield where, JSON, line if is_request else b'{"inputs":[' + line + fields
        return
    with _explained("input"):
        head = source.read(len(MAGIC))
        if head == MAGIC:
            most = 1 if options.returned else samples_at_once(model.limits, options.time_steps or 1)
            first = 0
            for samples, part in parts(source, model.spec, most, most_bytes, head):
                yield f"input, from sample {first}" if first else "input", NPY, part
                first += samples
            return
        content = head + source.read(most_bytes)
        if not content:
            raise MalformedBody("it is empty, expected JSON lines, an .npy or a recording")
        if len(content) > most_bytes:
            raise TooLarge(f"it has more than {most_bytes} bytes, expected at most as many (max_body_bytes)")
        yield "input", RECORDS, event_records(content)


def is_text(source: io.BufferedReader, opening: bytes | tuple[bytes, ...]) -> bool:
    """Return whether input that begins so is JSON: numbers as bytes may begin as it does, but hold zeros."""
    first = source.peek(1)
    return first.lstrip(SPACE).startswith(opening) and b"\0" not in first


def lines(source: io.BufferedReader, most_bytes: int) -> Iterator[tuple[str, bytes]]:
    """Yield the lines that are not empty, each with its place; raises Misconfigured for a longer one."""
    for number, line in enumerate(iter(partial(source.readline, most_bytes + 1), b""), 1):
        if len(line) > most_bytes:
            raise Misconfigured(
                f"line {number}: has more than {most_bytes} bytes, expected at most as many (max_body_bytes)"
            )
        if content := line.strip(SPACE):
            yield f"line {number}", content


def _messages(source: io.BufferedReader, most_bytes: int) -> io.BufferedReader | Iterator[str]:
    """Return the messages of a stream, or else where its records are read; raises MalformedBody for a file."""
    first = source.peek(1)
    if (kind := file_format(first)) is not None or first[:1] == MAGIC[:1]:
        raise MalformedBody(f"it is a file ({kind or 'NPY'}), expected event records or messages with --window")
    if is_text(source, b"{"):
        return (line.decode(errors="replace") for _, line in lines(source, most_bytes))
    return source


def _write(answers: Sequence[bytes], numbers: Iterator[int] | None) -> None:
    """Write answers to standard output at once, a line each: JSON, or with `numbers` rows of a table for people."""
    content = b"".join(each + b"\n" if numbers is None else _row(next(numbers), each) for each in answers)
    try:
        while content:
            content = content[os.write(STDOUT, content) :]
    except OSError as error:
        error.filename = "standard output"
        raise


def _row(number: int, line: bytes) -> bytes:
    answer = from_json(line)
    if "spike_counts" not in answer:  # the end of a stream
        return line + b"\n"
    said = answer.get("label", " ".join(f"{each:.4g}" for each in answer.get("values") or answer["spike_counts"]))
    share = f"{max(answer['probabilities']):.1%}" if "probabilities" in answer else ""
    head = "" if number else ROW.format("", "answer", "probability", "operations")
    return (head + ROW.format(number, bounded_line(said), share, answer["synaptic_operations"])).encode()


if __name__ == "__main__":
    sys.exit(main())
