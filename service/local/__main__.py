"""`spikeserve run`: answer what comes on standard input, without a server."""

from __future__ import annotations

import argparse
import io
import os
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import IO, Any
from urllib.parse import urlencode

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from spikeserve.models.bundle.gallery import bundle_folder
from spikeserve.models.engines.declared import EngineName
from spikeserve.models.errors import InvalidBundle, SpikeserveError, bounded_line
from spikeserve.models.recordings.files import file_format
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.errors import MalformedBody, Misconfigured, TooLarge
from spikeserve.service.inference.decoding.media import BYTES, JSON, MAGIC, NPY, RECORDS
from spikeserve.service.inference.decoding.validation import first_error
from spikeserve.service.inference.protocols.native.codec import NativeCodec
from spikeserve.service.inference.protocols.native.schemas import Options, read_options
from spikeserve.service.inference.sessions.messages import StreamOptions
from spikeserve.service.inference.sessions.session import Session
from spikeserve.service.local.arrays import array_of, event_records, is_recording, parts, recording
from spikeserve.service.local.model import answer, load, read_bundle, samples_at_once
from spikeserve.service.local.windows import OneByOne, answer_windows, records
from spikeserve.service.settings import Settings
from spikeserve.service.telemetry import logs

REFUSED, INTERRUPTED, PIPE_CLOSED = 1, 130, 141  # the last two as a shell tells of SIGINT and SIGPIPE
STDOUT = 1
BUFFER = 2**16
ZIP = b"PK\x03\x04"
SPACE = b" \t\r\n"

Write = Callable[[Sequence[Any]], None]  # of answers, as predictions or as lines of JSON


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, by default that of this process, and return its exit status."""
    given = parser().parse_args(arguments)
    try:
        if sys.stdin is None or sys.stdin.isatty() or sys.stdout is None:
            raise Misconfigured("input: comes from a terminal or a closed file, expected `< file` or a pipe")
        logs.configure("warning", sys.stderr)
        run(given)
    except BrokenPipeError:  # who read the answers has had enough
        return PIPE_CLOSED
    except SpikeserveError as error:
        return _refused(str(error))
    except OSError as error:
        return _refused(f"'{error.filename or 'standard input'}': {error.strerror}")
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _refused(sentence: str) -> int:
    print(f"spikeserve: {bounded_line(sentence)}", file=sys.stderr)
    return REFUSED


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="spikeserve run",
        description="Answers samples on standard input by a bundle, without a server, as /predict does.",
        epilog="Input: JSON lines, each a sample or a whole request; an .npy or .npz of samples; a recording of "
        "events. With --window: event records or messages, as a stream of the server takes them.",
    )
    made.add_argument("bundle", metavar="BUNDLE", help="a bundle's folder, a pulled model, or a name of the gallery")
    made.add_argument("--engine", choices=[each.value for each in EngineName], help="default: the fastest here")
    made.add_argument("--time-steps", help="the time steps of each sample; default: the model's")
    made.add_argument("--seed", help="what rate coding draws its spikes by; default: 0")
    made.add_argument("--stop", help="end a sample early: decided or confident")
    made.add_argument("--return", help="what answers also hold: raster, membrane, spikes_per_node")
    made.add_argument(
        "--window",
        dest="window_steps",
        metavar="STEPS",
        help="go on from window to window of so many steps, while input comes",
    )
    made.add_argument("--step-us", help="with --window: microseconds of a step, where the model does not say it")
    made.add_argument("--format", choices=("json", "table"), help="default: table at a terminal, else JSON lines")
    return made


def run(given: argparse.Namespace) -> None:
    """Answer standard input; raises SpikeserveError, and OSError of a file or of standard input."""
    asked: dict[str, str] = {name: value for name, value in vars(given).items() if value is not None}
    settings = _settings({name: asked[name] for name in ("engine",) if name in asked})
    query = _query(asked, "time_steps", "seed", "stop", "return")
    options = read_options(query)
    folder = bundle_folder(given.bundle)
    try:
        model = load(read_bundle(folder, settings), settings)
    except InvalidBundle as error:
        raise Misconfigured(f"bundle: '{folder}' cannot be used: {error}") from error
    is_table = given.format == "table" or (given.format is None and os.isatty(STDOUT))
    write: Write = Table() if is_table else write_lines
    source: io.BufferedReader = io.BufferedReader(io.FileIO(sys.stdin.fileno(), closefd=False), BUFFER)
    if "window_steps" in asked or "step_us" in asked:
        choices = _query(asked, "window_steps", "step_us", "seed")
        answer_stream(model, choices, source, settings.max_body_bytes, write)
        return
    for where, kind, body in bodies(source, model, options, settings.max_body_bytes):
        codec = NativeCodec(model, kind=kind, query=b"" if kind == JSON else query)
        with _explained(where):
            found = codec.decode(body)
            if kind == JSON and not _is_request(body) and len(found.samples) != 1:
                raise MalformedBody(f"it holds {len(found.samples)} samples, expected one")
            answers = answer(model, found)
        write(answers)


def _query(asked: Mapping[str, str], *names: str) -> bytes:
    """Return options as the query of a URL: the service reads them from there."""
    return urlencode([(name, asked[name]) for name in names if name in asked]).encode()


def _settings(fields: Mapping[str, Any]) -> Settings:
    try:
        return Settings(threads=1, **fields)
    except ValidationError as error:
        raise Misconfigured(first_error(error, fields=", ".join(Settings.model_fields))) from error


@contextmanager
def _explained(where: str) -> Iterator[None]:
    """Raise what is wrong with the input as Misconfigured, which says where; the server's sentences say `the body`."""
    try:
        yield
    except (SpikeserveError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        said = str(error).replace("inputs[0]", "sample", 1) if where.startswith("line") else str(error)
        said = said.replace("the body", "it", 1).removeprefix("query: ").replace("?step_us=…", "--step-us")
        raise Misconfigured(f"{where}: {said}") from error


def bodies(
    source: io.BufferedReader, model: LoadedModel, options: Options, most_bytes: int
) -> Iterator[tuple[str, bytes, bytes]]:
    """Yield what the server would take as bodies: where each lies in the input, its media type, and itself.

    No more of the input is held than `most_bytes`, or one run's samples. Raises Misconfigured.
    """
    first = source.peek(1)
    if is_text(first, (b"[", b"{")):
        fields = b"]," + to_json(options.model_dump(by_alias=True))[1:]
        for where, line in lines(source, most_bytes):
            yield where, JSON, line if _is_request(line) else b'{"inputs":[' + line + fields
        return
    with _explained("input"):
        if not first:
            raise MalformedBody("it is empty, expected JSON lines, an .npy, an .npz or a recording")
        head = source.read(len(MAGIC))
        if head.startswith(ZIP):
            file: Any = io.BytesIO(_read(head, source, most_bytes)) if not source.seekable() else source
            file.seek(0)
            if is_recording(file):
                yield "input", BYTES, recording(file, most_bytes)
                return
            with array_of(file) as array:
                yield from _arrays(array, b"", model, options, most_bytes)
        elif head == MAGIC:
            yield from _arrays(source, head, model, options, most_bytes)
        else:
            content = _read(head, source, most_bytes)
            if (kind := file_format(content)) is not None:
                content = event_records(content, kind)
            yield "input", BYTES if kind is None else RECORDS, content


def _arrays(
    file: IO[bytes], head: bytes, model: LoadedModel, options: Options, most_bytes: int
) -> Iterator[tuple[str, bytes, bytes]]:
    most = 1 if options.returned else samples_at_once(model.limits, options.time_steps or 1)
    first = 0
    for samples, part in parts(file, model.spec, most, most_bytes, head):
        yield f"input, from sample {first}" if first else "input", NPY, part
        first += samples


def _read(head: bytes, source: io.BufferedReader, most_bytes: int) -> bytes:
    content = head + source.read(most_bytes)
    if len(content) > most_bytes:
        raise TooLarge(f"it has more than {most_bytes} bytes, expected at most as many (max_body_bytes)")
    return content


def is_text(first: bytes, opening: bytes | tuple[bytes, ...]) -> bool:
    """Return whether input that begins so is JSON: numbers as bytes may begin as it does, but hold zeros."""
    return first.lstrip(SPACE).startswith(opening) and b"\0" not in first


def _is_request(line: bytes) -> bool:
    """Return whether a line is a whole request, as one sends it to /predict, and no sample."""
    return line.startswith(b"{") and b'"inputs"' in line


def lines(source: io.BufferedReader, most_bytes: int) -> Iterator[tuple[str, bytes]]:
    """Yield the lines that are not empty, each with its place; raises Misconfigured for a longer one."""
    number = 0
    while line := source.readline(most_bytes + 1):
        number += 1
        if len(line) > most_bytes:
            raise Misconfigured(
                f"line {number}: has more than {most_bytes} bytes, expected at most as many (max_body_bytes)"
            )
        if line := line.strip(SPACE):
            yield f"line {number}", line


def answer_stream(model: LoadedModel, query: bytes, source: io.BufferedReader, most_bytes: int, write: Write) -> None:
    """Write a line for each window of a stream; `query` has its options. Raises Misconfigured."""
    with _explained("input"):
        session, first = Session(model, StreamOptions.read(query), OneByOne()), source.peek(1)
        if (kind := file_format(first)) is not None or first[:1] == MAGIC[:1]:
            raise MalformedBody(f"it is a file ({kind or 'NPY'}), expected event records or messages with --window")
        if is_text(first, b"{"):
            messages = (line.decode(errors="replace") for _, line in lines(source, most_bytes))
            answer_windows(session, messages, lambda line: write([line]))
        else:
            chunks = iter(partial(source.read1, BUFFER), b"")
            answer_windows(session, records(chunks, session.windows.record_bytes), lambda line: write([line]))


def write_lines(answers: Sequence[Any]) -> None:
    """Write answers as JSON, a line each, to standard output at once."""
    made = (each if isinstance(each, bytes) else to_json(each, inf_nan_mode="null") for each in answers)
    _write(b"\n".join([*made, b""]))


class Table:
    """Writes answers as the rows of a table for people."""

    def __init__(self) -> None:
        self.written = 0

    def __call__(self, answers: Sequence[Any]) -> None:
        """Write a row for each answer; those of windows are lines of JSON."""
        for each in answers:
            found = from_json(each) if isinstance(each, bytes) else each
            if not self.written:
                _write(_row("", "answer", "probability", "operations"))
            _write(self._row(found))
            self.written += 1

    def _row(self, found: Mapping[str, Any]) -> bytes:
        if "windows" in found:
            return f"{found['windows']} windows\n".encode()
        values = found.get("values") or found["spike_counts"]
        said = found.get("label", " ".join(f"{each:.4g}" for each in values))
        share = f"{max(found['probabilities']):.1%}" if "probabilities" in found else ""
        return _row(self.written, bounded_line(said), share, found.get("synaptic_operations", ""))


def _row(number: object, said: str, share: str, operations: object) -> bytes:
    return f"{number:>6}  {said:<24}  {share:>11}  {operations:>12}\n".encode()


def _write(content: bytes) -> None:
    """Write all to standard output, unbuffered, so that who reads it has each answer once it is known."""
    try:
        while content:
            content = content[os.write(STDOUT, content) :]
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Misconfigured(f"standard output: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())
