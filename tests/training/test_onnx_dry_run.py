"""ONNX files whose graphs never end, fill the memory or crash: `import onnx` ends with one sentence, within bounds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from spikeserve.models.errors import InvalidBundle
from spikeserve.models.spec import Coding
from spikeserve.models.spec.onnx_contract import AxisLayout, OutputKind
from spikeserve.training.importers.onnx.dry_run import OnnxOptions, dry_run
from tests.external import endless, scores
from tests.hostile_bundles.graphs import exponential_functions, growing_loop


def while_true() -> Any:
    """Return `scores` of what a loop without a number of trips passes on for as long as a constant is true."""
    model = endless()
    model.graph.node[0].input[0], model.graph.node[0].input[1] = "", "always"
    model.graph.initializer[-1].CopyFrom(numpy_helper.from_array(np.bool_(True), "always"))
    return model


@pytest.mark.parametrize("make", [endless, while_true, exponential_functions])
def test_a_graph_without_an_end_is_stopped(make: Any, tmp_path: Path) -> None:
    path = tmp_path / "theirs.onnx"
    path.write_bytes(make().SerializeToString())
    with pytest.raises(InvalidBundle) as refused:
        dry_run(path, OPTIONS, seconds=2)
    assert str(refused.value) == f"'{path}': reading and running it took longer than 2 s and was stopped"


OPTIONS = OnnxOptions(
    input_shape=(2,),
    labels=("a", "b", "c"),
    time_steps=None,
    any_time_steps=False,
    independent_rows=False,
    coding=Coding.DIRECT,
    declared={},
    layout=AxisLayout.BATCH,
    output_kind=OutputKind.SCORES,
    scores=None,
    units=None,
    output_name=None,
)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to a bound on its memory")
def test_a_graph_that_fills_the_memory_is_refused_by_the_node_that_does(tmp_path: Path) -> None:
    # Each trip of the loop makes its two values twice as many.
    path = tmp_path / "theirs.onnx"
    path.write_bytes(growing_loop().SerializeToString())
    with pytest.raises(InvalidBundle, match=r"Loop node '': Concat node '': Failed to allocate memory for requested"):
        dry_run(path, OPTIONS, memory=2**31)


def test_a_process_that_crashes_is_one_sentence(tmp_path: Path) -> None:
    # Its memory is no number, of which its own limits cannot be made.
    path = tmp_path / "theirs.onnx"
    path.write_bytes(scores().SerializeToString())
    with pytest.raises(
        InvalidBundle, match=r"^'.*theirs.onnx': the process that ran its graph crashed \(exit status 1"
    ):
        dry_run(path, OPTIONS, memory="all")  # type: ignore[arg-type]


def test_what_was_tried_is_what_is_published(tmp_path: Path) -> None:
    path = tmp_path / "theirs.onnx"
    path.write_bytes(scores().SerializeToString())
    tried = dry_run(path, OPTIONS)
    assert (tried.content, tried.operators, tried.opsets) == (path.read_bytes(), ["Gemm"], {"": 17})
    assert (tried.contract.labels, tried.changes, tried.largest_batch) == (("a", "b", "c"), [], 1)
