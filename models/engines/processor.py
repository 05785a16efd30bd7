"""For which processors kernels are compiled; this is said to Numba before it compiles the first one.

By default for this machine's alone. NUMBA_CPU_NAME may be a level of x86-64, such as x86-64-v3, whose processors share
them, or `x86-64`: the best one that this machine has of those whose names are files in the kernels' __pycache__.
"""

from __future__ import annotations

from pathlib import Path

from llvmlite import binding as llvm
from numba import config

V3 = {"avx2", "bmi", "bmi2", "cx16", "f16c", "fma", "lzcnt", "movbe", "popcnt", "sahf", "sse4.2", "xsave"}
V4 = V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
LEVELS = {"x86-64-v4": V4, "x86-64-v3": V3}  # the best first, with what a processor needs for it
HOST = llvm.get_host_cpu_features()
UNSPLIT = "-prefer-256-bit"  # else LLVM splits vectors of AVX-512 in two for the sake of old processors' clock rates
if config.CPU_NAME == "x86-64":
    made = [level for level in LEVELS if (Path(__file__).parent / "event" / "__pycache__" / level).exists()]
    config.CPU_NAME = next((level for level in made if all(map(HOST.get, LEVELS[level]))), None)
if not config.CPU_FEATURES and config.CPU_NAME in LEVELS:
    config.CPU_FEATURES = UNSPLIT
elif config.CPU_NAME is None and not config.CPU_FEATURES and HOST.get("avx512f"):
    config.CPU_NAME, config.CPU_FEATURES = llvm.get_host_cpu_name(), f"{HOST.flatten()},{UNSPLIT}"
FEATURES: str = HOST.flatten() if config.CPU_FEATURES is None else config.CPU_FEATURES
WIDE = config.CPU_NAME == "x86-64-v4" or "+avx512f" in FEATURES  # whether registers hold the sums of twelve vectors
