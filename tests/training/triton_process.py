"""What runs in a process of its own for test_operators_triton.py, since Triton reads how to run at its import.

`cpu` runs each of CASES there, for which Triton has to be told to interpret, `cuda` on a device; both print what is
wrong with each, or null. `compile` compiles KERNELS for a CUDA device, without one, and prints what they compute with.
"""

import json
import re
import sys
from dataclasses import replace
from typing import Any

import torch

from spikeserve.training.config import Surrogate
from spikeserve.training.fit.operators import connect, scan
from spikeserve.training.fit.operators.derivation import rule_of
from spikeserve.training.fit.operators.triton_code import LAUNCH_OPTIONS, kernels_of
from tests.training.operator_cases import CASES, Case, assert_same_run, parse

# 3 samples of 47 neurons are 141 elements: a block of 128 and a part of one.
SHAPE: dict[str, Any] = {"size": 47, "batch": 3, "time_steps": 4}


# What is divided, rounded, multiplied and added in a step, forward and back, also in float64.
KERNELS = rule_of(
    parse(
        {"type": "CubaLIF", "charge": "exponential_input_first", "tau": 2.0, "sharpness": 0.5, "critical": 0.5}
        | {"syn_decay": 0.5, "floor": -1.0, "fire": "multiple"}
    ),
    ("tau", "threshold"),
    Surrogate.SIGMOID,
    detach_reset=False,
)


def run(device: str) -> dict[str, str | None]:
    """Return the difference of each case that ran as Triton's code, or None."""
    cases = {name: Case.of(parse(node), **options, **SHAPE) for name, (node, options) in CASES.items()}
    return {name: _fault(_moved(case, device)) for name, case in cases.items()}


def _moved(case: Case, device: str) -> Case:
    def moved(value: torch.Tensor) -> torch.Tensor:
        return value.detach().to(device).requires_grad_(value.requires_grad)

    return replace(
        case,
        inputs=moved(case.inputs),
        connection=case.connection.to(device),
        recurrent=None if case.recurrent is None else case.recurrent.to(device),
        parameters={name: moved(value) for name, value in case.parameters.items()},
    )


def _fault(case: Case) -> str | None:
    current: Any = connect(case.connection, case.inputs)
    rest = case.time_steps, case.threshold, case.recurrent
    leaving: Any = scan(case.node, case.parameters, current, *rest)
    if "TritonScan" not in str(getattr(leaving, "grad_fn", None)):
        return f"Triton did not run it, but {leaving}"
    if not 0 < float((leaving != 0).float().mean()) <= 1:
        return f"only {float((leaving != 0).float().mean())} of it is other than 0"
    with torch.no_grad():
        again: Any = scan(case.node, case.parameters, current, *rest)
    if not torch.equal(again, leaving):
        return "without gradients other spikes leave"
    try:
        assert_same_run(case)
    except AssertionError as fault:
        return str(fault) or "other spikes"
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
