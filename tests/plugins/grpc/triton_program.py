"""A program of Triton's gRPC clients, for a process of its own: their messages and KServe's cannot be in one.

It takes the server's address, and prints what the clients got as JSON.
"""

import json
import queue
import sys
import warnings
from typing import Any

import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tritonclient.grpc as triton
    from tritonclient.utils import InferenceServerException

SAMPLES = np.random.default_rng(3).random((20, 64), np.float32)


def tensor(values: Any, name: str = "inputs") -> Any:
    return triton.InferInput(name, list(values.shape), "FP32").set_data_from_numpy(values)


def refused(call: Any) -> str:
    try:
        call()
    except InferenceServerException as error:
        return str(error)
    raise AssertionError("it was answered")


def blocking(client: Any) -> dict[str, Any]:
    """Ask all that a blocking client can."""
    found: dict[str, Any] = {
        "health": [client.is_server_live(), client.is_server_ready(), client.is_model_ready("digits", "1")],
        "metadata": client.get_model_metadata("digits", as_json=True)["inputs"],
        "config": client.get_model_config("digits", as_json=True)["config"]["input"],
        "extensions": client.get_server_metadata(as_json=True)["extensions"],
        "index": sorted(each["name"] for each in client.get_model_repository_index(as_json=True)["models"]),
    }
    for compression in (None, "gzip", "deflate"):
        result = client.infer(
            "digits",
            [tensor(SAMPLES[:1])],
            request_id="a",
            priority=1,
            timeout=10**7,
            compression_algorithm=compression,
        )
        counts = result.as_numpy("spike_counts").tolist()
        assert result.get_response().id == "a"
        assert found.setdefault("infer", counts) == counts
    toy = np.array([[0.6, 2.0]], np.float32)
    asked = [triton.InferRequestedOutput("spike_counts", class_count=2)]
    result = client.infer("toy", [tensor(toy)], outputs=asked, parameters={"time_steps": 3})
    found["classes"] = np.vectorize(bytes.decode)(result.as_numpy("spike_counts")).tolist()
    client.unload_model("regression")
    found["unloaded"] = [
        each["state"]
        for each in client.get_model_repository_index(as_json=True)["models"]
        if each["name"] == "regression"
    ]
    client.load_model("regression")
    found["loaded"] = client.is_model_ready("regression")
    found["load_config"] = refused(lambda: client.load_model("regression", config="{}"))
    return found


def streaming(client: Any) -> list[Any]:
    """Send a sequence and what lies between on one stream, without waiting; return the answers by their ids."""
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    step = np.array([[[1, 0]]], np.float32)
    for number in range(20):
        ends = {"sequence_start": number == 0, "sequence_end": number == 19}
        client.async_stream_infer("pairs", [tensor(step)], request_id=f"s{number}", sequence_id=7, **ends)
        client.async_stream_infer("digits", [tensor(SAMPLES[:1])], request_id=f"d{number}")
    client.async_stream_infer("nobody", [tensor(step)], request_id="unknown")
    found = []
    for _ in range(41):
        result, error = answers.get(timeout=60)
        if error is None:
            found.append([result.get_response().id, result.as_numpy("spike_counts").tolist()])
        else:
            found.append(["error", str(error)])
    client.stop_stream()
    return found


def main(address: str) -> None:
    with triton.InferenceServerClient(address) as client:
        told = {"blocking": blocking(client), "stream": streaming(client)}
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1])
