"""The trial of an ONNX file: it is read, its contract found, and a dry run made. See `isolated`, which runs this.

python -m spikeserve.training.importers.onnx.trial      reads the question from its input, and answers on its output
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import IO

from pydantic import TypeAdapter

from spikeserve.models.bundle.dry_run import verify
from spikeserve.models.engines.onnx.external import ContractEngine
from spikeserve.models.errors import SpikeserveError
from spikeserve.models.isolated import limit_this_process
from spikeserve.training.importers.onnx.contract import contract_of
from spikeserve.training.importers.onnx.file import OnnxFile
from spikeserve.training.importers.onnx.isolated import Trial, write_answer
from spikeserve.training.importers.onnx.said import Said


def tried(path: Path, said: Said) -> Trial:
    """Return a file's model once it has kept its contract; raises InvalidBundle, InvalidInput or InvalidSpec."""
    model = OnnxFile.read(path)
    contract = contract_of(model, said)
    engine = ContractEngine(contract, model.content)
    verify(contract, engine)
    return Trial(
        contract=contract,
        content=model.content,
        opsets=model.outline.opsets,
        operators=tuple(sorted({operator for _, operator in model.outline.used})),
        changes=model.changes,
        largest_batch=max(engine.batch_sizes),
    )


def main(asked: IO[bytes], stream: IO[bytes]) -> None:
    """Try a file within this process's limits, and write what came of it."""
    given = json.loads(asked.read())
    limit_this_process(given["memory"], given["seconds"])
    refused: str
    try:
        trial = tried(Path(given["path"]), TypeAdapter(Said).validate_python(given["said"]))
    except SpikeserveError as error:
        refused = str(error)
    except MemoryError:
        refused = f"'{given['path']}': its graph needs more than {given['memory']:,} bytes of memory, which is refused"
    except OSError as error:
        refused = f"'{error.filename or given['path']}' cannot be read: {error.strerror or error}"
    else:
        return write_answer(trial, stream)
    stream.write(json.dumps({"refused": refused}).encode() + b"\n")
    return None


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
