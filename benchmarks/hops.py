"""The files and calls of this project that a small `POST /predict` passes, in order: `python -m benchmarks.hops`.

A real server runs on a free port of the loopback, answers a few requests for the digits that ship, and notes each call
of a function of `service` or `models` while it answers one more. `--calls` lists every call. `--write` writes the list
of files in docs/architecture.md.
"""

from __future__ import annotations

import argparse
import http.client
import json
import signal
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from spikeserve.service.app import create_app
from spikeserve.service.http.openapi import example
from spikeserve.service.process.listener import listen
from spikeserve.service.process.server import Server
from spikeserve.service.settings import Settings

OURS = Path(__file__).parents[1] / "spikeserve"
PAGE = OURS.parent / "docs/architecture.md"
BEGIN, END = "<!-- written by python -m benchmarks.hops --write -->", "<!-- end of the list -->"
ENGINE = "models/engines/"
UNCOUNTED = 5  # requests before the one that is noted: the first of a connection takes a longer way


class Call(NamedTuple):
    """A call of a function, and whether it comes from another file."""

    file: str
    function: str
    enters: bool


class Trace:
    """Notes the project's own calls on the thread that it is installed on, while it is `on`."""

    def __init__(self) -> None:
        self.on = False
        self.calls: list[Call] = []

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        """Note a call, as `sys.setprofile` asks."""
        code = frame.f_code
        if self.on and event == "call" and code.co_filename.startswith((f"{OURS}/service", f"{OURS}/models")):
            file, enters = (
                Path(code.co_filename),
                not frame.f_back or frame.f_back.f_code.co_filename != code.co_filename,
            )
            self.calls.append(Call(file.relative_to(OURS).as_posix(), code.co_qualname, enters))


def ask(port: int, trace: Trace) -> None:
    """Send the requests once the model answers, then end this process's server."""
    body = json.dumps(example(None))
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def post() -> int:
        connection.request("POST", "/predict", body, {"content-type": "application/json"})
        response = connection.getresponse()
        response.read()
        return response.status

    while post() != http.client.OK:
        pass
    for _ in range(UNCOUNTED):
        post()
    trace.on = True
    post()
    post()  # until it comes, what follows the answer to the one before is noted
    trace.on = False
    signal.raise_signal(signal.SIGTERM)


def noted() -> list[Call]:
    """Return the calls of one request, in order."""
    settings, trace = Settings(port=0, log_level="error", engine="event"), Trace()
    listener = listen(settings.host, settings.port)
    client = threading.Thread(target=ask, args=(listener.getsockname()[1], trace))
    client.start()
    sys.setprofile(trace)
    try:
        with redirect_stdout(StringIO()):
            Server(create_app(settings), settings).run(sockets=[listener])
    finally:
        sys.setprofile(None)
    client.join()
    begin, end, *_ = (at for at, call in enumerate(trace.calls) if call.function == "Connection.data_received")
    calls = trace.calls[begin:end]  # what ends the request before is still noted
    return [call for call in calls if call.function != "TimedSelector.select"]  # it waits for the next


def listed(calls: Sequence[Call]) -> str:
    """Return a numbered list of every file that is entered, in order, and how often from another."""
    counts = Counter(call.file for call in calls if call.enters)
    return "\n".join(f"{number}. `{file}` {count}" for number, (file, count) in enumerate(counts.items(), start=1))


def write(text: str) -> None:
    """Put a list in the place of the one in the page."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def main(arguments: Sequence[str]) -> None:
    """Print each file or call, and how many there are before, in and after the engine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", action="store_true", help="list every call instead of the files")
    parser.add_argument("--write", action="store_true", help="write the list of files in docs/architecture.md")
    options = parser.parse_args(arguments)
    calls = noted()
    if options.calls:
        for number, call in enumerate(calls, start=1):
            print(f"{number:4} {'>' if call.enters else ' '} {call.file}  {call.function}")
    else:
        print(listed(calls))
    if options.write:
        write(listed(calls))
    files = list(dict.fromkeys(call.file for call in calls))
    engine = [file for file in files if file.startswith(ENGINE)]
    print(f"{len(calls)} calls in {len(files)} files, {len(engine)} of them the engine's")


if __name__ == "__main__":
    main(sys.argv[1:])
