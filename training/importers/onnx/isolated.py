"""An ONNX file is read and tried in a process of its own, with bounds on its time and its memory.

A graph may loop for ever, call for any memory, or use a fault of ONNX Runtime, and constants are computed as soon as it
is loaded. So this process never opens it: `trial`, run as a program, reads the file, finds its contract and makes the
dry run, and what it answers is published. It costs some 0.5 s, the start of an interpreter with ONNX Runtime.

The process is given a line of JSON, `{"path": text, "said": fields, "seconds": number, "memory": number}`, and answers
with `{"refused": sentence}`, or with the fields of a Trial but for its content, and the content after that line.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from spikeserve.models.errors import InvalidBundle
from spikeserve.models.isolated import NoAnswer, answered
from spikeserve.models.spec.onnx_contract import OnnxContract
from spikeserve.models.spec.price import LoadLimits
from spikeserve.training.importers.onnx.said import Said

SECONDS = 60.0  # as a server has by default to load a model (load_seconds)
MEMORY = LoadLimits.model_bytes + 2**30  # of addresses; the interpreter and its libraries need some 500 MB of them


@dataclass(frozen=True)
class Trial:
    """A model that has kept its contract: its bytes, its operator sets and operators, and the largest batch it may get.

    `changes` has a sentence for each thing in which it is not the file that was read.
    """

    contract: OnnxContract
    content: bytes
    opsets: dict[str, int]
    operators: tuple[str, ...]
    changes: tuple[str, ...]
    largest_batch: int


def try_isolated(path: Path, said: Said, seconds: float = SECONDS, memory: int = MEMORY) -> Trial:
    """Return the model of a file under its contract; raises InvalidBundle with one sentence for any fault of it."""
    given = {"path": str(path), "said": asdict(said), "seconds": seconds, "memory": memory}
    module = "spikeserve.training.importers.onnx.trial"
    try:
        with answered(module, seconds=seconds, given=json.dumps(given).encode()) as answer:
            return _read_answer(answer)
    except TimeoutError as error:
        raise InvalidBundle(
            f"'{path}': reading and running it took longer than {seconds:g} s (--load-seconds) and was stopped"
        ) from error
    except NoAnswer as error:
        raise InvalidBundle(f"'{path}': the process that ran its graph crashed ({error})") from error


def write_answer(trial: Trial, stream: IO[bytes]) -> None:
    """Write what the process answers."""
    fields: dict[str, Any] = {name: value for name, value in vars(trial).items() if name != "content"}
    stream.write(json.dumps(fields | {"contract": trial.contract.model_dump(mode="json")}).encode() + b"\n")
    stream.write(trial.content)


def _read_answer(stream: IO[bytes]) -> Trial:
    """Return the trial; raises InvalidBundle where the file was refused."""
    answer = json.loads(stream.readline())
    if "refused" in answer:
        raise InvalidBundle(answer["refused"])
    return Trial(
        contract=OnnxContract.of(answer["contract"]),
        content=stream.read(),
        opsets=answer["opsets"],
        operators=tuple(answer["operators"]),
        changes=tuple(answer["changes"]),
        largest_batch=answer["largest_batch"],
    )
