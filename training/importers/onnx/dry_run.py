"""An ONNX file is read and run once in a process of its own, with bounds on its time and its memory.

A graph may loop for ever, call for any memory, or use a fault of ONNX Runtime, and constants are computed as soon as it
is loaded. So this process never opens it: another one finds its contract and makes the dry run, and what that returns
is published. It costs some 0.5 s, the start of an interpreter with ONNX Runtime.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from spikeserve.models.bundle.dry_run import verify
from spikeserve.models.engines.onnx.external import ContractEngine
from spikeserve.models.errors import InvalidBundle
from spikeserve.models.isolated import Limits, NoAnswer, call
from spikeserve.models.spec.onnx_contract import OnnxContract
from spikeserve.models.spec.price import LoadLimits
from spikeserve.training.importers.onnx.contract import OnnxOptions, contract_of
from spikeserve.training.importers.onnx.file import OnnxFile

SECONDS = 60.0  # as a server has by default to load a model (load_seconds)
OPTIONS = TypeAdapter(OnnxOptions)
MEMORY = LoadLimits.model_bytes + 2**30  # of addresses; the interpreter and its libraries need some 500 MB of them


@dataclass(frozen=True)
class DryRun:
    """A model that has kept its contract: its bytes, its operator sets and operators, and the largest batch it may get.

    `changes` has a sentence for each thing in which it is not the file that was read.
    """

    contract: OnnxContract
    content: bytes
    opsets: dict[str, int]
    operators: list[str]
    changes: list[str]
    largest_batch: int


def dry_run(path: Path, options: OnnxOptions, seconds: float = SECONDS, memory: int = MEMORY) -> DryRun:
    """Return the model of a file under its contract; raises InvalidBundle with one sentence for any fault of it."""
    given = OPTIONS.dump_json(options).decode()
    try:
        found = call(_run_once, str(path), given, limits=Limits(seconds, memory), refused=InvalidBundle)
    except TimeoutError as error:
        raise InvalidBundle(
            f"'{path}': reading and running it took longer than {seconds:g} s (--load-seconds) and was stopped"
        ) from error
    except MemoryError as error:
        raise InvalidBundle(
            f"'{path}': its graph needs more than {memory:,} bytes of memory, which is refused"
        ) from error
    except NoAnswer as error:
        raise InvalidBundle(f"'{path}': the process that ran its graph crashed ({error})") from error
    return DryRun(**found | {"contract": OnnxContract.of(found["contract"])})


def _run_once(path: str, options: str) -> dict[str, Any]:
    """Return the fields of a DryRun; raises InvalidBundle, InvalidInput or InvalidSpec. Another process calls this."""
    try:
        model = OnnxFile.read(Path(path))
        contract = contract_of(model, OPTIONS.validate_json(options))
        engine = ContractEngine(contract, model.content)
        verify(contract, engine)
    except OSError as error:
        raise InvalidBundle(f"'{error.filename or path}' cannot be read: {error.strerror or error}") from error
    return {
        "contract": contract.model_dump(mode="json"),
        "content": model.content,
        "opsets": dict(model.outline.opsets),
        "operators": sorted({operator for _, operator in model.outline.used}),
        "changes": model.changes,
        "largest_batch": max(engine.batch_sizes),
    }
