"""Every operation is in the table of every writer, and gives the bits of its definition, for any two float32.

The exponential is the float32 nearest to e**x, whatever computes it.

The event engine's exponential as a function that a kernel can call.
"""

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numba import njit
from numba.core import types
from onnx import TensorProto, helper

from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines import ENGINES, Record, create
from spikeserve.models.engines.event.steps import OPERATIONS as OF_EVENT
from spikeserve.models.engines.event.steps import Vector
from spikeserve.models.engines.event.vectors import LANES, Code, intrinsic
from spikeserve.models.neurons import OPERATIONS
from spikeserve.models.spec.exponential import COEFFICIENTS, HIGHEST, LN2_HIGH, LN2_LOW, LOWEST, exponential
from spikeserve.models.spec.expressions import ARITY
from spikeserve.models.spec.network import FloatArray
from spikeserve.models.spec.program import FUNCTIONS
from spikeserve.plugins.onnx.graph import IR_VERSION, OPSET
from spikeserve.plugins.onnx.operations import OPERATIONS as OF_ONNX
from spikeserve.plugins.onnx.operations import GraphBuilder, Value
from tests.networks import network_of, task


@intrinsic
def exponentials(_: Any, found: Any, values: Any, place: Any) -> Any:
    """Write the exponentials of a vector of values to the same place of another array: (found, values, place)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments)
        given = Vector(code, code.load(code.pointer(1), arguments[2]))
        code.store(OF_EVENT["exp"](given).value, code.pointer(0), arguments[2])
        return context.get_dummy_value()

    return types.void(found, values, place), generate


SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, 1e-45, -1e-45, 1e-38, 3e38, -3e38, 7.25, -0.75, 88.7, -103.0]


def test_each_operation_has_a_row_in_every_writer() -> None:
    pytest.importorskip("torch")
    from spikeserve.models.engines.event import steps
    from spikeserve.models.engines.torch import operations as of_torch
    from spikeserve.plugins.onnx import operations as of_onnx
    from spikeserve.training import library
    from spikeserve.training.fit.operators import triton_code, vector_code

    assert OPERATIONS.keys() == ARITY.keys()
    assert steps.OPERATIONS.keys() == ARITY.keys()
    assert of_onnx.OPERATIONS.keys() == ARITY.keys()
    assert of_torch.operations(of_torch.HardThreshold()).keys() == ARITY.keys()
    of_gradients = {"sigmoid", "nearest"}
    assert vector_code.OPERATIONS.keys() == ARITY.keys() | of_gradients
    assert triton_code.OPERATIONS.keys() == ARITY.keys() | of_gradients
    assert FUNCTIONS - {"abs"} <= {*library.__all__}


def pairs() -> tuple[FloatArray, FloatArray]:
    """Every pair of special values, and of what 0 / 0 and 1 / 0 are, with pairs of any bits."""
    values = np.array([*SPECIAL, np.inf, -np.inf, np.nan], np.float32)
    bits = np.random.default_rng(0).integers(0, 2**32, (2, 1000), np.uint32).view(np.float32)
    first, second = (grid.ravel() for grid in np.meshgrid(values, values))
    return np.concatenate([first, bits[0]]), np.concatenate([second, bits[1]])


def same_bits(found: FloatArray, expected: FloatArray) -> bool:
    """Tell whether all values are the same, with their signs; a NaN is a NaN."""
    numbers = ~np.isnan(expected)
    same_sign = np.signbit(found[numbers]) == np.signbit(expected[numbers])
    return np.array_equal(found, expected, equal_nan=True) and bool(same_sign.all())


@pytest.mark.parametrize("engine", list(ENGINES))
@pytest.mark.parametrize("operation", sorted(ARITY))
def test_an_engine_gives_the_bits_of_the_definition(engine: str, operation: str) -> None:
    first, second = pairs()
    numerators, divisors = zip(*(_quotient(values) for values in (first, second)), strict=True)
    operands = ["x", "y", "c"][: ARITY[operation]]
    written = f"{operation}({', '.join(operands)})" if operation.isidentifier() else f" {operation} ".join(operands)
    written = "-x" if operation == "neg" else written
    # The current is 1. A step that may divide by 0 has infinities, NaN and the sign of 0.
    lines = ["x = a / (d * current)", "y = b / (e * current)", f"z = {written}", "v = select(current, z, x)"]
    tensors = {"a": numerators[0], "d": divisors[0], "b": numerators[1], "e": divisors[1], "c": numerators[1]}
    if "y" not in operands:
        del lines[1], tensors["b"], tensors["e"]
    if "c" not in operands:
        del tensors["c"]
    node: dict[str, Any] = {"type": "Integrator", "name": "n", "parameters": dict.fromkeys(tensors, "per_neuron")}
    node["program"] = {"states": {"v": 0.0}, "step": lines, "output": "v"}
    network = network_of(
        [node],
        {f"n.{name}": value for name, value in tensors.items()},
        **task([len(first)], 1, len(first), "current", readout="last_membrane")
    )  # fmt: skip
    inputs = DenseInputs(np.ones((1, 1, len(first)), np.float32), 1)
    result, _ = create(engine, network).run(inputs, record=Record.MEMBRANE)
    with np.errstate(all="ignore"):
        x, y = (a / d for a, d in zip(numerators, divisors, strict=True))
        expected = OPERATIONS[operation](*[x, y, tensors.get("c")][: ARITY[operation]])
    assert same_bits(result.membranes["n"][0, 0], np.asarray(expected, np.float32))


def test_a_square_root_is_the_float32_nearest_to_it() -> None:
    torch = pytest.importorskip("torch")
    from spikeserve.models.engines.torch.operations import OPERATIONS as OF_TORCH

    values = np.random.default_rng(0).integers(0, 0x7F80_0000, 1_000_000, np.uint32).view(np.float32)
    # A root in float64 is never so near to the middle between two float32 that rounding it again could go wrong.
    nearest = np.sqrt(values.astype(np.float64)).astype(np.float32)
    assert np.array_equal(OPERATIONS["sqrt"](values), nearest)
    assert np.array_equal(OF_TORCH["sqrt"](torch.from_numpy(values)).numpy(), nearest)


def _quotient(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Write each value as a quotient of finite numbers: an infinity as 1 / 0, and NaN as 0 / 0."""
    finite = np.isfinite(values)
    numerators = np.where(finite, values, np.where(np.isnan(values), 0, np.sign(values)))
    return numerators.astype(np.float32), finite.astype(np.float32)


@pytest.mark.parametrize("engine", list(ENGINES))
@pytest.mark.parametrize("line", ["q = 1 / current", "q = fire_multiple(1e30, current * 1e-30)"])
def test_a_current_of_zeros_is_positive_whatever_the_signs_of_its_weights(engine: str, line: str) -> None:
    # Its only product is -1 times 0, which is -0, and so may the sum be: 1 / -0 would be the other infinity.
    program = {"states": {"v": 0.0}, "step": [line, "s = fire(q, 1)", "v = q"], "spikes": "s"}
    network = network_of(
        [
            {"type": "Linear", "name": "fc", "in_features": 1, "out_features": 2, "bias": False},
            {"type": "Neuron", "name": "n", "program": program, "parameters": {}},
        ],
        {"fc.weight": [[-1.0], [1.0]]},
        **task(1, 2, ["less", "more"], "current")
    )  # fmt: skip
    result, _ = create(engine, network).run(DenseInputs(np.zeros((2, 1, 1), np.float32), 2))
    assert result.spike_counts.tolist() == [[2, 2]]


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
    graph.name(OF_ONNX["exp"](graph, Value(graph, "x")), "y")
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
