"""A service that listens for gRPC as well, and a plain client of it, with the messages of this project."""

import queue
import secrets
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from spikeserve.plugins.grpc import messages
from spikeserve.plugins.grpc.methods import SERVICE
from spikeserve.service.inference.protocols.v2.tensors import DTYPES, Datatype
from tests.service.infer_requests import values_of
from tests.serving import Process, running

SECONDS = 60
ANSWERS: Mapping[str, Any] = {
    "ServerLive": messages.ServerLiveResponse,
    "ServerReady": messages.ServerReadyResponse,
    "ServerMetadata": messages.ServerMetadataResponse,
    "ModelReady": messages.ModelReadyResponse,
    "ModelMetadata": messages.ModelMetadataResponse,
    "ModelConfig": messages.ModelConfigResponse,
    "ModelInfer": messages.ModelInferResponse,
    "ModelStreamInfer": messages.ModelStreamInferResponse,
    "RepositoryIndex": messages.RepositoryIndexResponse,
    "RepositoryModelLoad": messages.RepositoryModelLoadResponse,
    "RepositoryModelUnload": messages.RepositoryModelUnloadResponse,
}


def free_port() -> int:
    """Return a port that nobody listens on, below those that the system gives to others meanwhile."""
    while True:
        port = secrets.choice(range(20_000, 32_000))
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@contextmanager
def serving_grpc(root: Path, *flags: str, ready: int = 1) -> Iterator[Process]:
    """Run the service with gRPC on a free port."""
    with running(root, "--grpc-port", str(free_port()), *flags, ready=ready) as process:
        yield process


def address(service: Process) -> str:
    """Return where it listens for gRPC."""
    (listening,) = [entry for entry in service.entries if entry["event"] == "listening"]
    return f"{listening['host']}:{listening['grpc_port']}"


class Rpc:
    """A client on a connection of its own."""

    def __init__(self, service: Process, **options: int) -> None:
        own = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
        own += [("grpc.max_receive_message_length", -1), *options.items()]
        self.channel = grpc.insecure_channel(address(service), options=own)

    def __enter__(self) -> "Rpc":
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def call(
        self, name: str, request: Any = b"", metadata: Iterable[tuple[str, str]] = (), timeout: float = SECONDS
    ) -> Any:
        """Call a method with a message, or its bytes, and return the answer's message."""
        content = request if isinstance(request, bytes) else request.SerializeToString()
        method = self.channel.unary_unary(f"/{SERVICE}/{name}", response_deserializer=ANSWERS[name].FromString)
        return method(content, metadata=tuple(metadata), timeout=timeout)

    def refused(self, name: str, request: Any = b"", **options: Any) -> grpc.RpcError:
        """Call a method and return its error."""
        try:
            answer = self.call(name, request, **options)
        except grpc.RpcError as error:
            return error
        raise AssertionError(f"it was answered: {answer}")

    def stream(self, requests: Iterable[Any], name: str = "ModelStreamInfer") -> Any:
        """Call a method with infer requests as they come, and return its answers."""
        method = self.channel.stream_stream(
            f"/{SERVICE}/{name}",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=ANSWERS[name].FromString,
        )
        return method(iter(requests), timeout=SECONDS)


class Open:
    """A call that is open for as long as its requests are not over."""

    def __init__(self, rpc: Rpc, name: str = "ModelStreamInfer") -> None:
        self.requests: queue.Queue[Any] = queue.Queue()
        self.answers = rpc.stream(self._sent(), name)

    def _sent(self) -> Iterator[Any]:
        while (request := self.requests.get(timeout=SECONDS)) is not None:
            yield request

    def ask(self, request: Any) -> Any:
        """Send a request and return the next answer."""
        self.requests.put(request)
        return next(self.answers)

    def close(self) -> None:
        """Send nothing more."""
        self.requests.put(None)


def infer_request(
    array: NDArray[Any], model: str = "toy", datatype: str = "FP32", *, raw: bool = True, **more: Any
) -> messages.ModelInferRequest:
    """Return an infer request with `array`, raw or in typed fields; `parameters` are plain values."""
    parameters = more.pop("parameters", {})
    tensor = messages.ModelInferRequest.InferInputTensor(name="inputs", datatype=datatype, shape=array.shape)
    request = messages.ModelInferRequest(model_name=model, inputs=[tensor], **more)
    array = array.astype(DTYPES[Datatype(datatype)])
    if raw:
        request.raw_input_contents.append(array.tobytes())
    else:
        field = {"b": "bool", "f": "fp", "u": "uint", "i": "int"}[array.dtype.kind]
        width = array.dtype.itemsize * 8 if array.dtype.kind == "f" or array.dtype.itemsize == 8 else ""
        getattr(request.inputs[0].contents, f"{field}{width}_contents").extend(array.ravel().tolist())
    for name, value in parameters.items():
        kind = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}[type(value)]
        setattr(request.parameters[name], kind, value)
    return request


def outputs(answer: messages.ModelInferResponse) -> dict[str, Any]:
    """Return an answer's outputs by name, nested as their shapes say, from raw bytes or typed fields."""
    found = {}
    for index, output in enumerate(answer.outputs):
        if answer.raw_output_contents:
            assert not output.HasField("contents")
            values = values_of(answer.raw_output_contents[index], output.datatype)
        else:
            field = {"INT64": "int64_contents", "FP32": "fp32_contents", "BYTES": "bytes_contents"}[output.datatype]
            values = [each.decode() if isinstance(each, bytes) else each for each in getattr(output.contents, field)]
        found[output.name] = np.array(values, object).reshape(tuple(output.shape)).tolist()
    return found
