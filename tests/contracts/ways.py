"""Every way in by which samples are asked about: an adapter each, which writes a question and reads its answer.

A new way in joins `WAYS` by a class of twenty lines. What it has no words for stands in its `unsaid`, with the reason.
"""

import asyncio
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr
from dataclasses import dataclass, field
from http import HTTPStatus
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import Any, ClassVar, Protocol
from urllib.parse import urlencode

import grpc
import httpx
import numpy as np
import pytest

import spikeserve
from spikeserve.models.coding.records import make_records
from spikeserve.plugins.local.__main__ import main
from spikeserve.service.inference.protocols.v2.tensors import DTYPES, Datatype
from spikeserve.service.telemetry import logs
from tests.plugins.grpc import rpc
from tests.service import infer_requests as tensors
from tests.service.http.recordings import npy
from tests.serving import ROOT, Process

STEP_US = 1000  # of the models of events

Predictions = list[dict[str, Any]]


@dataclass(frozen=True)
class Question:
    """Samples for a model, and options: time_steps, seed, stop, returns, version, timeout_ms and unknown ones."""

    model: str
    samples: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    needs: frozenset[str] = frozenset()  # what a way in needs words for

    @property
    def words(self) -> set[str]:
        """What a way in needs words for, of the options and of the samples."""
        words = {*self.needs, *({"returns", "timeout_ms", "datatype", "version"} & self.options.keys())}
        if any(isinstance(sample, dict) for sample in self.samples):
            return words | {"events"}
        try:
            kind = np.asarray(self.samples).dtype.kind
        except ValueError:
            return words | {"no array"}
        return words if kind in "iufb" else words | {"no array"}

    @property
    def datatype(self) -> str:
        """What the protocol v2 calls the type of the numbers: FP64 where they are no integers, and else FP32."""
        return self.options.get("datatype", "FP64" if np.asarray(self.samples).dtype.kind == "f" else "FP32")

    @property
    def array(self) -> Any:
        """The samples as an array of that type."""
        return np.asarray(self.samples).astype(DTYPES[Datatype(self.datatype)])

    def query(self, **more: Any) -> dict[str, Any]:
        """Return the options that stand in a request's fields or its URL."""
        options = {
            name: value for name, value in self.options.items() if name not in ("version", "timeout_ms", "datatype")
        }
        returns = options.pop("returns", None)
        return options | ({"return": returns} if returns else {}) | more


@dataclass
class Refusal(Exception):
    """A refusal: the status of HTTP and the sentence."""

    status: int
    sentence: str


@dataclass(frozen=True)
class Served:
    """Where the models are: a server with all its ports, and their repository."""

    service: Process
    root: Path
    http: httpx.Client
    rpc: rpc.Rpc
    stack: ExitStack
    programs: dict[tuple[str, str], Popen[str]] = field(default_factory=dict)

    def program(self, client: str, kind: str) -> Popen[str]:
        """Return the process of somebody's client, once it is started."""
        if (client, kind) not in self.programs:
            at = self.service.url.removeprefix("http://") if kind == "http" else rpc.address(self.service)
            command = [sys.executable, "-m", "tests.contracts.foreign", client, kind, at]
            started = Popen(command, cwd=ROOT, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, text=True)
            self.programs[client, kind] = self.stack.enter_context(started)
        return self.programs[client, kind]


class Way(Protocol):
    """A way in. Its `form` is the one in which it sends samples: sentences of their faults differ by it."""

    form: ClassVar[str]
    unsaid: ClassVar[Mapping[str, str]]  # what it has no words for, and why

    def ask(self, question: Question, served: Served) -> Predictions:
        """Return the answer for each sample; raises Refusal."""

    def status(self, status: int) -> int:
        """Return the status with which it refuses what the native routes refuse with this one."""
        return status


V2 = {"returns": "no output holds what is recorded", "flat": "a tensor has the axes of the model's input"}
NO_TIMEOUT = {"timeout_ms": "its own time-out ends the wait"}
NO_NAMES = {"unknown": "a function has no other arguments"}
TEXT = {"datatype": "JSON has numbers of one kind"}
NUMBERS = {
    "events": "an array holds no events in time steps",
    "no array": "all of an array is numbers in equal rows",
    "JSON": "a number is never where an array belongs",
}


def again(ask: Callable[[], httpx.Response]) -> httpx.Response:
    """Ask three times, and require the same answer: the server learns what is ordinary, and then answers it faster."""
    answer = ask()
    for _ in range(2 if answer.status_code != HTTPStatus.GATEWAY_TIMEOUT else 0):
        other = ask()
        assert (other.status_code, other.content) == (answer.status_code, answer.content)
    return answer


def native(question: Question, served: Served, content: bytes, kind: str, query: Mapping[str, Any]) -> Predictions:
    """Post a body to the native route, and return its predictions."""
    version = f"/versions/{question.options['version']}" if "version" in question.options else ""
    timeout = question.options.get("timeout_ms")
    headers = {"Content-Type": kind} | ({"X-Request-Timeout-Ms": str(timeout)} if timeout else {})
    path = f"/models/{question.model}{version}/predict?{urlencode(query)}"
    answer = again(lambda: served.http.post(path, content=content, headers=headers))
    if answer.status_code != 200:
        raise Refusal(answer.status_code, answer.json()["error"])
    body = answer.json()
    assert (body["model"], body["version"]) == (question.model, question.options.get("version", body["version"]))
    return body["predictions"]


class NativeJson(Way):
    """The native route, with JSON."""

    form = "json"
    unsaid: ClassVar = TEXT

    def ask(self, question: Question, served: Served) -> Predictions:
        content = json.dumps(question.query(inputs=question.samples)).encode()
        return native(question, served, content, "application/json", {})


def in_url(question: Question) -> dict[str, Any]:
    """Return the options as parameters of a URL."""
    return {name: ",".join(each) if isinstance(each, list) else each for name, each in question.query().items()}


class NativeArray(Way):
    """The native route, with an array as `np.save` writes it."""

    form = "array"
    unsaid = NUMBERS

    def ask(self, question: Question, served: Served) -> Predictions:
        return native(question, served, npy(question.array), "application/x-npy", in_url(question))


def recording(question: Question) -> Any:
    """Return a raster (steps, units) as the events that a sensor would have recorded."""
    steps, units = np.nonzero(question.array[0])
    return make_records(STEP_US * steps, units)


class NativeRecords(Way):
    """The native route, with the event records of a sensor."""

    form = "records"
    unsaid: ClassVar = NUMBERS | {"values": "only a sensor's events are recorded, one recording in a body"}

    def ask(self, question: Question, served: Served) -> Predictions:
        content = recording(question).tobytes()
        return native(question, served, content, "application/vnd.spikeserve.events", in_url(question))


class Tensors(Way):
    """The protocol v2 over HTTP, its tensors in JSON."""

    form = "tensor"
    unsaid: ClassVar = NUMBERS | V2

    def ask(self, question: Question, served: Served) -> Predictions:
        return self.post(
            question, served, json.dumps(tensors.request(question.array, question.datatype, **self.rest(question))), {}
        )

    @staticmethod
    def rest(question: Question) -> dict[str, Any]:
        """Return the fields beside the tensors."""
        options = question.query()
        if timeout := question.options.get("timeout_ms"):
            options["timeout"] = 1000 * timeout
        return {"parameters": options}

    def post(self, question: Question, served: Served, content: Any, headers: Mapping[str, str]) -> Predictions:
        """Post a body, and return the outputs of each sample."""
        version = f"/versions/{question.options['version']}" if "version" in question.options else ""
        path = f"/v2/models/{question.model}{version}/infer"
        answer = again(lambda: served.http.post(path, content=content, headers=headers))
        if answer.status_code != 200:
            raise Refusal(answer.status_code, answer.json()["error"])
        return by_sample(tensors.outputs(answer))

    def status(self, status: int) -> int:
        return 400 if status == 422 else status


class TensorBytes(Tensors):
    """The protocol v2 over HTTP, its tensors in bytes both ways."""

    form = "bytes"

    def ask(self, question: Question, served: Served) -> Predictions:
        rest = self.rest(question)
        rest["parameters"]["binary_data_output"] = True
        return self.post(question, served, *tensors.binary_request(question.array, question.datatype, **rest))


def by_sample(outputs: Mapping[str, Any]) -> Predictions:
    """Return outputs (samples, values) as predictions: one value is no list where it is one of each sample."""
    outputs = {name: rows for name, rows in outputs.items() if name != "readout"}  # which is of this protocol alone
    single = ("class_index", "label", "synaptic_operations", "steps_used")
    columns = {name: [row[0] if name in single else row for row in rows] for name, rows in outputs.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


STATUSES = {"INVALID_ARGUMENT": 400, "NOT_FOUND": 404, "RESOURCE_EXHAUSTED": 413, "DEADLINE_EXCEEDED": 504}


class Call(Tensors):
    """The protocol v2 over gRPC, its tensors in the bytes of the message."""

    form = "bytes"
    raw: ClassVar = True

    def ask(self, question: Question, served: Served) -> Predictions:
        version, parameters = str(question.options.get("version", "")), self.rest(question)["parameters"]
        array, more = question.array, {"model_version": version, "parameters": parameters}
        try:
            request = rpc.infer_request(array, question.model, question.datatype, raw=self.raw, **more)
            answer, *others = [served.rpc.call("ModelInfer", request) for _ in range(3)]
        except grpc.RpcError as error:
            raise Refusal(STATUSES[error.code().name], error.details()) from None
        assert others == [answer, answer]
        return by_sample(rpc.outputs(answer))


class TypedCall(Call):
    """The protocol v2 over gRPC, its tensors in fields of the message."""

    raw = False
    unsaid: ClassVar = Call.unsaid | {"FP16": "no field of a message holds it"}


OF_ALL = ("model", "version", "time_steps", "names", "units", "more")  # fields of a prediction that are its answer's


class Foreign(Tensors):
    """Other people's clients, each in a process of its own."""

    form = "bytes"

    def __init__(self, client: str, kind: str) -> None:
        self.client, self.kind = client, kind
        of_kserve = {"version": "its methods name no version"} if client == "kserve" else {}
        self.unsaid = Tensors.unsaid | {"timeout_ms": "its own time-out ends the wait"} | of_kserve  # type: ignore[misc]

    def ask(self, question: Question, served: Served) -> Predictions:
        program = served.program(self.client, self.kind)
        array, parameters = question.array, self.rest(question)["parameters"]
        version = str(question.options.get("version", ""))
        said = [question.model, version, array.tolist(), question.datatype, array.dtype.str, parameters]
        assert program.stdin
        assert program.stdout
        print(json.dumps(said), file=program.stdin, flush=True)
        answer = json.loads(program.stdout.readline())
        if isinstance(answer, str):
            code = re.search(r"\b[45]\d\d(?=\]| [A-Z])|(?<=StatusCode\.)\w+", answer)
            assert code, answer
            raise Refusal(STATUSES.get(code[0]) or int(code[0]), answer)
        return by_sample(answer)


class Client(Way):
    """The Python client that blocks."""

    form = "array"
    unsaid: ClassVar = NO_TIMEOUT | NO_NAMES | {name: NUMBERS[name] for name in ("no array", "JSON")}

    def ask(self, question: Question, served: Served) -> Predictions:
        options: Any = {name: each for name, each in question.options.items() if name != "datatype"}
        try:
            found = self.predict(served.service.url, self.inputs(question), options | {"model": question.model})
        except spikeserve.AnswerError as error:
            raise Refusal(error.status, error.sentence) from None
        return [fields_of(prediction) for prediction in found]

    def inputs(self, question: Question) -> Any:
        """Return samples as they are given to the client."""
        return question.samples if "events" in question.words else question.array

    def predict(self, url: str, inputs: Any, options: Any) -> Sequence[spikeserve.Prediction]:
        """Ask the client."""
        with spikeserve.Client(url) as client:
            return client.predict(inputs, **options)


def fields_of(prediction: spikeserve.Prediction) -> dict[str, Any]:
    """Return the fields of a prediction as the server wrote them."""
    fields = {name: value for name, value in vars(prediction).items() if name not in OF_ALL and value is not None}
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in fields.items()}


class AwaitedClient(Client):
    """The Python client that is awaited."""

    def predict(self, url: str, inputs: Any, options: Any) -> Sequence[spikeserve.Prediction]:
        async def ask() -> Sequence[spikeserve.Prediction]:
            async with spikeserve.AsyncClient(url) as client:
                return await client.predict(inputs, **options)

        return asyncio.run(ask())


class ClientRecords(Client):
    """The Python client, with a recording."""

    form = "records"
    unsaid: ClassVar = Client.unsaid | NativeRecords.unsaid

    def inputs(self, question: Question) -> Any:
        return recording(question)


class Run(Way):
    """`spikeserve run`, with a sample on each line."""

    form = "json"
    unsaid: ClassVar = TEXT | {
        "timeout_ms": "nobody waits for it elsewhere",
        "together": "it cuts its input into requests",
        "server": "it reads a bundle, and asks no server",
        "unknown": "its parser names the flags that there are",
    }

    def ask(self, question: Question, served: Served) -> Predictions:
        folder = served.root / question.model
        folder = folder / str(question.options["version"]) if "version" in question.options else folder
        options = [
            word for name, each in in_url(question).items() for word in (f"--{name.replace('_', '-')}", str(each))
        ]
        status, lines, sentence = run([str(folder), "--format", "json", "--engine", "reference", *options],
                                      self.content(question))  # fmt: skip
        if status:
            raise Refusal(status, sentence.replace("sample", "inputs[0]", 1) if "line 1:" in sentence else sentence)
        return [json.loads(line) for line in lines]

    def content(self, question: Question) -> bytes:
        """Return the standard input."""
        return "\n".join(map(json.dumps, question.samples)).encode()

    def status(self, status: int) -> int:  # noqa: ARG002
        return 1


OF_FILES = {name: reason for name, reason in Run.unsaid.items() if name not in TEXT}


class RunArray(Run):
    """`spikeserve run`, with an array."""

    form = "array"
    unsaid: ClassVar = OF_FILES | NUMBERS

    def content(self, question: Question) -> bytes:
        return npy(question.array)


class RunRecords(Run):
    """`spikeserve run`, with a recording."""

    form = "records"
    unsaid: ClassVar = OF_FILES | NativeRecords.unsaid

    def content(self, question: Question) -> bytes:
        return recording(question).tobytes()


@contextmanager
def standard_output(file: int) -> Iterator[None]:
    """Have what is written to standard output go to a file."""
    before = os.dup(1)
    os.dup2(file, 1)
    try:
        yield
    finally:
        os.dup2(before, 1)
        os.close(before)


def run(arguments: list[str], content: bytes) -> tuple[int, list[str], str]:
    """Run the command in this process, and return its status, its lines, and what it says of a fault."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as written, pytest.MonkeyPatch.context() as patch:
        given.write(content)
        given.seek(0)
        patch.setattr(logs, "configure", lambda *_: None)  # which is for a whole process
        patch.setattr(sys, "stdin", given)
        with standard_output(written.fileno()), redirect_stderr(StringIO()) as said:
            status = main(arguments)
        written.seek(0)
        return status, written.read().decode().splitlines(), said.getvalue()


OURS = (
    *(NativeJson(), NativeArray(), NativeRecords(), Tensors(), TensorBytes(), Call(), TypedCall()),
    *(Client(), AwaitedClient(), ClientRecords(), Run(), RunArray(), RunRecords()),
)
WAYS: Mapping[str, Way] = {type(each).__name__: each for each in OURS} | {
    f"{client} {kind}": Foreign(client, kind)
    for client, library in (("triton", "tritonclient"), ("kserve", "kserve"))
    for kind in ("http", "grpc")
    if find_spec(library)  # it is of the extra `clients`
}


def written_alike(sentence: str) -> str:
    """Return a sentence as it is whether an option came as a number or in a URL, and without the name of its group."""
    return re.sub(r"(time_steps|seed) is '(-?\d+)'", r"\1 is \2", sentence).replace("parameters.", "")
