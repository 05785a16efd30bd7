"""Other people's clients of the protocol v2, each in a process of its own, since their messages cannot be in one.

It takes a client, such as `triton http`, and the server's address. Each line of its input is the arguments of `Ask` in
JSON, and each line of its output the outputs by name, or the text of an error.
"""

import asyncio
import json
import sys
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, TypeAlias

import numpy as np

Arrays: TypeAlias = Mapping[str, Any]
Ask: TypeAlias = Callable[[str, str, Any, str, Any], Arrays]  # a model, a version, an array, its type, parameters


def triton(kind: str, address: str) -> Ask:
    """Return how Triton's blocking client asks."""
    library = import_module(f"tritonclient.{kind}")
    client = library.InferenceServerClient(address)
    assert client.is_server_live()
    assert client.is_model_ready("toy", "1")

    def ask(model: str, version: str, array: Any, datatype: str, parameters: Any) -> Arrays:
        tensor = library.InferInput("inputs", list(array.shape), datatype).set_data_from_numpy(array)
        result = client.infer(model, [tensor], model_version=version, parameters=parameters)
        response = result.get_response()
        outputs = response["outputs"] if kind == "http" else response.outputs
        names = [each["name"] if kind == "http" else each.name for each in outputs]
        return {name: result.as_numpy(name) for name in names}

    return ask


def kserve(kind: str, address: str) -> Ask:
    """Return how KServe's awaited client asks."""
    library, loop = import_module("kserve"), asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    client = (
        library.InferenceRESTClient(library.RESTConfig(protocol="v2"))
        if kind == "http"
        else library.InferenceGRPCClient(address)
    )
    server = (f"http://{address}",) if kind == "http" else ()
    assert loop.run_until_complete(client.is_server_ready(*server))
    assert loop.run_until_complete(client.is_model_ready(*server, "toy"))

    def ask(model: str, _: str, array: Any, datatype: str, parameters: Any) -> Arrays:
        tensor = library.InferInput("inputs", list(array.shape), datatype)
        tensor.set_data_from_numpy(array, binary_data=True)
        request = library.InferRequest(model, [tensor], parameters=parameters)
        answer = client.infer(*server, request, **({"model_name": model} if kind == "http" else {}))
        return {output.name: output.as_numpy() for output in loop.run_until_complete(answer).outputs}

    return ask


def plain(array: Any) -> Any:
    """Return an array as nested lists, its bytes as text."""
    values = [value.decode() if isinstance(value, bytes) else value for value in array.ravel().tolist()]
    return np.array(values, object).reshape(array.shape).tolist()


def main(client: str, kind: str, address: str) -> None:
    warnings.simplefilter("ignore")
    ask = {"triton": triton, "kserve": kserve}[client](kind, address)
    for line in sys.stdin:
        model, version, values, datatype, dtype, parameters = json.loads(line)
        try:
            found = ask(model, version, np.array(values).astype(dtype), datatype, parameters)
        except Exception as error:  # of any library
            print(json.dumps(str(error)), flush=True)
        else:
            print(json.dumps({name: plain(array) for name, array in found.items()}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
