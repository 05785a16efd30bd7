"""The exponential is the float32 nearest to e**x, whatever computes it."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from numba import njit
from onnx import TensorProto, helper

from spikeserve.models.engines.event.vectors import LANES
from spikeserve.models.engines.onnx.graph import IR_VERSION, OPSET
from spikeserve.models.engines.onnx.operations import OPERATIONS, GraphBuilder, Value
from spikeserve.models.spec.exponential import COEFFICIENTS, HIGHEST, LN2_HIGH, LN2_LOW, LOWEST, exponential
from spikeserve.models.spec.network import FloatArray
from tests.exponentials import exponentials

LARGEST = 88.72283  # e to the power of the next float32, 88.72284, is above the largest float32
LEAST = -103.972076  # -150 ln 2 is -103.9720771: e to the power of the next float32 is below half the least one


def float32(*values: float) -> FloatArray:
    return np.array(values, np.float32)


@pytest.fixture(scope="module")
def arguments() -> FloatArray:
    """What is special, and a million float32 of every size."""
    rng = np.random.default_rng(0)
    spread = rng.uniform(LOWEST - 1, HIGHEST + 1, 500_000)
    small = rng.choice([-1.0, 1.0], 500_000) * 2.0 ** rng.uniform(-30, 6, 500_000)
    special = float32(np.nan, np.inf, -np.inf, 0, -0.0, 1e30, -1e30, LARGEST, LEAST, LOWEST, HIGHEST, 2**-149)
    return np.concatenate([special, spread, small]).astype(np.float32)


def same(found: FloatArray, expected: FloatArray) -> bool:
    return found.dtype == np.float32 and np.array_equal(found, expected, equal_nan=True)


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="long double is no wider than double here")
def test_it_is_the_nearest_float32_of_a_million(arguments: FloatArray) -> None:
    with np.errstate(over="ignore", under="ignore"):
        nearest = np.exp(arguments.astype(np.longdouble)).astype(np.float32)
    assert same(exponential(arguments), nearest)


def test_it_overflows_underflows_and_keeps_nan() -> None:
    above, below = np.nextafter(float32(LARGEST), np.float32(np.inf)), np.nextafter(float32(LEAST), np.float32(-np.inf))
    assert exponential(float32(np.inf, 1e30)).tolist() == [np.inf, np.inf]
    assert exponential(float32(-np.inf, -1e30)).tolist() == [0, 0]
    assert np.isnan(exponential(float32(np.nan))).all()
    assert exponential(float32(0, -0.0)).tolist() == [1, 1]
    # A float32 goes up to (2 - 2**-23) * 2**127, and down to 2**-149.
    assert float(exponential(float32(LARGEST))[0]) < np.inf == float(exponential(above)[0])
    assert float(exponential(float32(LEAST))[0]) == 2**-149 > float(exponential(below)[0]) == 0


def test_its_constants_leave_no_rounding_where_it_says_that_there_is_none() -> None:
    # ln 2 by its series, in whole numbers of 2**-120: the sum over n of 2**-n / n.
    ln2 = sum(2**120 // (n << n) for n in range(1, 120))
    assert abs(int(LN2_HIGH * 2**60) * 2**60 + int(LN2_LOW * 2**90) * 2**30 - ln2) < 2**34
    assert all(float.fromhex((k * LN2_HIGH).hex()) == k * int(LN2_HIGH * 2**40) / 2**40 for k in range(-150, 129))
    assert COEFFICIENTS[-3:] == (0.5, 1.0, 1.0)
    assert len(COEFFICIENTS) == 13


def test_pytorch_computes_the_same(arguments: FloatArray) -> None:
    torch = pytest.importorskip("torch")
    from spikeserve.models.engines.torch.operations import exponential as of_torch

    assert same(of_torch(torch.from_numpy(arguments)).numpy(), exponential(arguments))


def test_onnx_runtime_computes_the_same(arguments: FloatArray) -> None:
    graph = GraphBuilder()
    graph.name(OPERATIONS["exp"](graph, Value(graph, "x")), "y")
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"])] for name in "xy"]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "exponential", *ends, graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert same(session.run(None, {"x": arguments})[0], exponential(arguments))


@njit  # type: ignore[untyped-decorator]
def vectors(found: FloatArray, values: FloatArray) -> None:
    for place in range(0, values.size, LANES):
        exponentials(found, values, place)


def test_the_event_engines_vectors_compute_the_same(arguments: FloatArray) -> None:
    whole = arguments[: arguments.size // LANES * LANES]
    found = np.empty_like(whole)
    vectors(found, whole)
    assert same(found, exponential(whole))


def test_its_derivative_is_itself() -> None:
    torch = pytest.importorskip("torch")
    from spikeserve.models.engines.torch.operations import exponential as of_torch

    values = torch.tensor([0.0, 1.0, -200.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(of_torch(values).sum(), values)
    assert torch.equal(gradient, of_torch(values.detach()))
