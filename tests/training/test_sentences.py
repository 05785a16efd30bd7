"""What the command line makes of an error: a sentence for a user's mistake, and nothing for a fault of the code."""

from __future__ import annotations

import pytest
import torch

from spikeserve.training.commands.sentences import MOST, sentence_of
from spikeserve.training.errors import InvalidConfig, NotConvertible


def test_a_fault_of_the_code_has_no_sentence() -> None:
    assert sentence_of(KeyError("name")) is None
    assert sentence_of(RuntimeError("no memory of that")) is None


def test_a_file_that_cannot_be_written_is_named() -> None:
    error = NotADirectoryError(20, "Not a directory", "file/runs")
    assert sentence_of(error) == "'file/runs': cannot be read or written: Not a directory"
    assert sentence_of(OSError(28, "No space left on device")) == (
        "a file: cannot be read or written: No space left on device"
    )


def test_memory_that_runs_out_is_told_whichever_library_asked_for_it() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**60, dtype=torch.uint8)  # an exabyte, which no machine has
    for each in (error.value, MemoryError(), torch.OutOfMemoryError("CUDA out of memory")):
        assert (sentence_of(each) or "").startswith("memory: there is not enough for this command")


def test_what_a_sentence_quotes_controls_no_terminal_and_fits_on_a_screen() -> None:
    assert sentence_of(InvalidConfig("file: '\x1b[31m\na' is none")) == "file: '\\x1b[31m\\na' is none"
    long = sentence_of(InvalidConfig(f"file: '{'a' * 10_000}' is none"))
    assert long is not None
    assert len(long) == MOST + len(" … ")
    assert long.startswith("file: 'aaa")
    assert long.endswith("aaa' is none")


def test_each_module_that_cannot_be_converted_keeps_its_line() -> None:
    told = sentence_of(NotConvertible.because(["0: why", "1: why"]))
    assert told is not None
    assert told.splitlines()[1:] == ["  0: why", "  1: why"]
