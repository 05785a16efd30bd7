"""What runs in a process of its own for test_operators_triton.py, since Triton reads how to run at its import.

`cpu` runs each of CASES there, for which Triton has to be told to interpret, `cuda` on a device; both print what is
wrong with each, or null. `compile` compiles KERNELS for a CUDA device, without one, and prints what they compute with.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from spikeserve.training.config import Surrogate
from spikeserve.training.fit.operators import connect, scan
from spikeserve.training.fit.operators.derivation import Rule
from spikeserve.training.fit.operators.triton_code import LAUNCH_OPTIONS, kernels_of
from tests.training.operator_cases import ADLIF_IN_A_LOOP, MANY, SE_ADLIF, Case, assert_same_run, parse

# 3 samples of 47 neurons are 141 elements: a block of 128 and a part of one.
SHAPE: dict[str, Any] = {"size": 47, "batch": 3, "time_steps": 4}


def _case(node: dict[str, Any], **options: Any) -> Callable[[], Case]:
    return lambda: Case.of(parse(node), **SHAPE, **options)


LATE = {"type": "LIF", "decay": 0.75, "reset_timing": "next_step"}
VALUE: dict[str, Any] = {"reset": "value", "reset_value": "per_neuron"}
CURRENT: dict[str, Any] = {"type": "CubaLIF", "decay": 0.75}
RECURRENT: dict[str, Any] = {"type": "LIF", "decay": "per_neuron"}
# Each choice of each rule at least once, and each surrogate, with the reset's gradient and without.
CASES: dict[str, Callable[[], Case]] = {
    "decay": _case(
        {"type": "LIF", "decay": "per_neuron", "gain": 0.5, "drive": 0.25},
        trained=["decay", "gain", "drive", "threshold"],
        begun=True,
    ),
    "euler, value": _case(
        {"type": "LIF", "charge": "euler", "rate": "per_neuron", "leak": 0.25} | VALUE,
        trained=["rate", "reset_value"],
        surrogate=Surrogate.FAST_SIGMOID,
        detach_reset=False,
    ),
    "euler_input_first, subtract next_step": _case(
        {"type": "LIF", "charge": "euler_input_first", "rate": 0.5, "leak": "per_neuron", "reset_timing": "next_step"},
        trained=["rate", "leak"],
        surrogate=Surrogate.ARCTAN,
    ),
    "relax, subtract corrected": _case(
        {"type": "LIF", "charge": "relax", "tau": "per_neuron", "reset_timing": "corrected"},
        trained=["tau", "threshold"],
        surrogate=Surrogate.TRIANGULAR,
        detach_reset=False,
    ),
    "leak_then_add, value next_step": _case(
        {"type": "LIF", "charge": "leak_then_add", "tau": 1.5, "reset_timing": "next_step"} | VALUE,
        trained=["tau"],
        surrogate=Surrogate.SUPERSPIKE,
        constant=True,
    ),
    "synapse decay, value next_step_charged": _case(
        CURRENT | {"syn_decay": "per_neuron", "reset_timing": "next_step_charged"} | VALUE,
        trained=["syn_decay"],
        begun=True,
    ),
    "synapse euler, value corrected": _case(
        CURRENT | {"synapse": "euler", "syn_rate": "per_neuron", "reset_timing": "corrected"} | VALUE,
        trained=["syn_rate"],
        detach_reset=False,
    ),
    "synapse jump, value corrected_charged": _case(
        CURRENT | {"synapse": "jump", "syn_rate": "per_neuron", "reset_timing": "corrected_charged"} | VALUE,
        trained=["syn_rate", "reset_value"],
    ),
    "synapse sum_then_decay, reset none": _case(
        CURRENT | {"synapse": "sum_then_decay", "syn_decay": "per_neuron", "reset": "none"},
        trained=["syn_decay", "threshold"],
    ),
    "multiple, floor": _case(
        {"type": "LIF", "decay": 0.75, "gain": 16.0, "fire": "multiple", "threshold": "per_neuron", "floor": -1.0},
        trained=["threshold", "floor"],
        detach_reset=False,
    ),
    "multiple, halfway between two": _case(
        {"type": "LIF", "decay": 0.75, "gain": 8.0, "fire": "multiple", "threshold": 2.0},
        trained=["threshold"],
        surrogate=Surrogate.SUPERSPIKE,
    ),
    "ALIF": _case(
        {"type": "ALIF", "decay": 0.75, "adapt_decay": "per_neuron", "adapt_gain": 0.25},
        trained=["adapt_decay", "adapt_gain", "threshold"],
        detach_reset=False,
    ),
    "CubaALIF": _case(
        {"type": "CubaALIF", "decay": 0.75, "syn_decay": 0.5, "adapt_decay": 0.875, "adapt_gain": "per_neuron"},
        trained=["adapt_gain"],
    ),
    "Alpha": _case(
        {"type": "Alpha", "exc_decay": "per_neuron", "inh_decay": 0.5, "gain": 2.0, "threshold": 0.5},
        trained=["exc_decay", "inh_decay"],
    ),
    "refractory": _case(
        {"type": "LIF", "decay": "per_neuron", "threshold": 0.25, "refractory": 2.0} | VALUE, trained=["decay"]
    ),
    "charge exponential_input_first": _case(
        {"type": "LIF", "charge": "exponential_input_first", "tau": 1.5, "sharpness": "per_neuron", "critical": 0.75}
        | VALUE,
        trained=["sharpness", "critical"],
    ),
    "charge exponential, adapt current": _case(
        {"type": "ALIF", "charge": "exponential", "rate": 0.75, "sharpness": 0.5, "critical": 1.0, "adapt": "current"}
        | {"adapt_rate": "per_neuron", "adapt_coupling": 0.5, "adapt_gain": 0.25}
        | VALUE,
        trained=["adapt_rate", "adapt_coupling", "adapt_gain"],
    ),
    "charge quadratic": _case(
        {"type": "LIF", "charge": "quadratic", "tau": 1.5, "curvature": "per_neuron", "critical": 0.5} | VALUE,
        trained=["curvature", "critical"],
    ),
    "charge filter": _case({"type": "LI", "charge": "filter", "rate": "per_neuron"}, trained=["rate"]),
    "ALIF, relax": _case(
        {"type": "ALIF", "decay": 0.75, "adapt": "relax", "adapt_rate": "per_neuron", "adapt_gain": 0.25},
        trained=["adapt_rate", "adapt_gain", "threshold"],
    ),
    "synapse late_jump": _case(CURRENT | {"synapse": "late_jump", "syn_rate": "per_neuron"}, trained=["syn_rate"]),
    "readout": _case({"type": "LI", "decay": 0.75, "start": 0.5}, trained=["decay", "start"], constant=True),
    "Threshold, above_threshold": _case(
        {"type": "Threshold", "threshold": 0.5, "fire": "above_threshold"}, trained=["threshold"]
    ),
    "program": _case(SE_ADLIF, trained=["alpha", "beta", "a", "b"], begun=True),
    "program in a loop": _case(ADLIF_IN_A_LOOP, trained=["alpha", "a"], begun=True),
    "program of many operations": _case(MANY, trained=["start", "scale"], surrogate=Surrogate.ARCTAN),
    "recurrent, joins input": _case(RECURRENT | {"recurrent": {"bias": True}}, trained=["decay"], begun=True),
    "recurrent, joins charge": _case(
        RECURRENT | {"gain": 0.5, "recurrent": {"joins": "charge", "bias": True, "bias_at_start": False}},
        trained=["gain"],
        constant=True,
    ),
}

# What is divided, rounded, multiplied and added in a step, forward and back, also in float64.
KERNELS = Rule.of(
    parse(
        {"type": "CubaLIF", "charge": "exponential_input_first", "tau": 2.0, "sharpness": 0.5, "critical": 0.5}
        | {"syn_decay": 0.5, "floor": -1.0, "fire": "multiple"}
    ),
    ["tau", "threshold"],
    Surrogate.SIGMOID,
    detach_reset=False,
)


def run(device: str) -> dict[str, str | None]:
    """Return the difference of each case that ran as Triton's code, or None."""
    return {name: _fault(_moved(case(), device)) for name, case in CASES.items()}


def _moved(case: Case, device: str) -> Case:
    def moved(value: torch.Tensor) -> torch.Tensor:
        return value.detach().to(device).requires_grad_(value.requires_grad)

    state = case.state and {name: moved(value) for name, value in case.state.items()}
    return replace(
        case,
        inputs=moved(case.inputs),
        connection=case.connection.to(device),
        recurrent=None if case.recurrent is None else case.recurrent.to(device),
        parameters={name: moved(value) for name, value in case.parameters.items()},
        state=state,
    )


def _fault(case: Case) -> str | None:
    current = connect(case.connection, case.inputs)
    rest = case.time_steps, case.threshold, case.recurrent, case.state
    leaving, _ = scan(case.node, case.parameters, current, *rest)
    if (
        not isinstance(current, torch.Tensor)
        or not isinstance(leaving, torch.Tensor)
        or "TritonScan" not in str(leaving.grad_fn)
    ):
        return f"Triton did not run it, but {leaving}"
    if not 0.02 < float((leaving != 0).float().mean()) <= 1:
        return f"only {float((leaving != 0).float().mean())} of it is other than 0"
    with torch.no_grad():
        again, _ = scan(case.node, case.parameters, current, *rest)
    if not isinstance(again, torch.Tensor) or not torch.equal(again, leaving):
        return "without gradients other spikes leave"
    try:
        assert_same_run(case)
    except AssertionError as fault:
        return str(fault) or "other spikes or states"
    return None


def compile_kernels() -> dict[str, dict[str, int]]:
    """Return how often the kernels' PTX has each operation on floats."""
    from triton import compile as compile_for
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernels = kernels_of(KERNELS)
    options = {name: value for name, value in LAUNCH_OPTIONS.items() if name != "BLOCK"}
    found = {}
    for kernel, choice in ((kernels.forward, "STORED"), (kernels.backward, "SUMMED")):
        constants = {"BLOCK": LAUNCH_OPTIONS["BLOCK"], choice: choice == "STORED"}
        kinds = {"slope": "fp32"} | dict.fromkeys(constants, "constexpr")
        signature = {
            name: "*fp32" if name.endswith("_pointer") else kinds.get(name, "i32") for name in kernel.arg_names
        }
        code = ASTSource(
            kernel, signature, {(kernel.arg_names.index(name),): value for name, value in constants.items()}
        )
        compiled = compile_for(code, target=GPUTarget("cuda", 80, 32), options=options)
        operations = re.findall(r"\b(add|sub|mul|div|fma|mad)[\w.]*\.f(?:32|64)", compiled.asm["ptx"])
        found[choice] = {operation: operations.count(operation) for operation in sorted(set(operations))}
        assert compiled.asm["cubin"]
    return found


if __name__ == "__main__":
    json.dump(compile_kernels() if sys.argv[1] == "compile" else run(sys.argv[1]), sys.stdout)
