"""The operations of a step in C, one row for each of `models.neurons.operations`, and the functions that some need.

Each row makes an expression of its operands, which are names, or numbers. What C99 leaves to libm is written out, from
what the spec says to the bit: the exponential (`models.spec.exponential`), and a square root that rounds once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from spikeserve.models.spec.exponential import COEFFICIENTS, HIGHEST, LN2_HIGH, LN2_LOW, LOG2_E, LOWEST


def number(value: float) -> str:
    """Write a float32 as C reads it to the bit: `0x1.999999999999ap-4f`."""
    value = float(np.float32(value))
    if value != value or value in (float("inf"), float("-inf")):
        return "(0.0f / 0.0f)" if value != value else f"({'-' if value < 0 else ''}1.0f / 0.0f)"
    written = f"{value.hex()}f"
    return f"({written})" if written.startswith("-") else written


def double(value: float) -> str:
    """Write a float64 as C reads it to the bit."""
    return float(value).hex()


def _compared(sign: str) -> Callable[..., str]:
    return lambda first, second: f"({first} {sign} {second} ? 1.0f : 0.0f)"


OPERATIONS: Mapping[str, Callable[..., str]] = {
    **{sign: lambda first, second, sign=sign: f"({first} {sign} {second})" for sign in "+-*/"},
    **{sign: _compared(sign) for sign in (">", ">=", "==")},
    "neg": lambda value: f"(-{value})",
    "abs": lambda value: f"absolute({value})",
    "minimum": lambda first, second: f"({first} < {second} ? {first} : {second})",
    "maximum": lambda first, second: f"({first} > {second} ? {first} : {second})",
    "select": lambda condition, yes, no: f"({condition} > 0.0f ? {yes} : {no})",
    "exp": lambda value: f"exponential({value})",
    "sqrt": lambda value: f"square_root({value})",
    "floor": lambda value: f"rounded_down({value})",
    "trunc": lambda value: f"truncated({value})",
    "fire": _compared(">="),
    "fire_above": _compared(">"),
    "fire_multiple": lambda charged, threshold: f"fired({charged}, {threshold})",
    "hold": lambda value: value,
}

_ABSOLUTE = """
static float absolute(float x) {
  union { float value; uint32_t bits; } held;
  held.value = x;
  held.bits &= 0x7fffffffu;
  return held.value;
}
"""

_TRUNCATED = """
static float truncated(float x) {
  float whole;
  if (!(x > -8388608.0f && x < 8388608.0f)) return x; /* whole already, or NaN */
  whole = (float)(int32_t)x;
  return whole == 0.0f ? 0.0f * x : whole; /* with the sign of x */
}
"""

_ROUNDED_DOWN = """
static float rounded_down(float x) {
  float whole = truncated(x);
  return whole > x ? whole - 1.0f : whole;
}
"""

_FIRED = """
static float fired(float charged, float threshold) {
  float often = charged / threshold;
  return charged > 0.0f && often > 0.0f ? rounded_down(often) : 0.0f;
}
"""

_EXPONENTIAL = f"""
/* e to the power of x, rounded once. */
static float exponential(float x) {{
  static const double terms[] = {{{", ".join(map(double, COEFFICIENTS))}}};
  union {{ double value; uint64_t bits; }} power;
  double c, k, r, p;
  int32_t whole;
  size_t i;
  if (x != x) return x;
  c = x > {number(LOWEST)} ? (double)x : {double(LOWEST)};
  c = c < {double(HIGHEST)} ? c : {double(HIGHEST)};
  k = c * {double(LOG2_E)} + 0.5;
  whole = (int32_t)k;
  if ((double)whole > k) whole--;
  k = (double)whole;
  r = k * {double(LN2_HIGH)};
  r = c - r;
  p = k * {double(LN2_LOW)};
  r = r - p;
  p = terms[0];
  for (i = 1; i < {len(COEFFICIENTS)}; i++) {{
    p = p * r;
    p = p + terms[i];
  }}
  power.bits = (uint64_t)(1023 + whole) << 52;
  return (float)(p * power.value);
}}
"""

_SQUARE_ROOT = """
/* The square root, rounded once: digit by digit in whole numbers, with a last bit for what remains. */
static float square_root(float x) {
  union { float value; uint32_t bits; } held;
  union { double value; uint64_t bits; } power;
  uint64_t rest, root = 0, bit;
  uint32_t bits;
  int32_t exponent;
  held.value = x;
  bits = held.bits;
  if (x == 0.0f || x != x || bits == 0x7f800000u) return x;
  if (x < 0.0f) return 0.0f / 0.0f;
  exponent = (int32_t)(bits >> 23) - 150;
  rest = bits & 0x7fffffu;
  if (bits >> 23) rest |= 0x800000u;
  else exponent++;
  while (rest < 0x800000u) { rest <<= 1; exponent--; }
  if (exponent & 1) { rest <<= 1; exponent--; }
  rest <<= 26;
  for (bit = (uint64_t)1 << 50; bit; bit >>= 2) {
    if (rest >= root + bit) { rest -= root + bit; root = (root >> 1) + bit; }
    else root >>= 1;
  }
  power.bits = (uint64_t)(1023 + exponent / 2 - 14) << 52;
  return (float)((double)(2 * root + (rest != 0)) * power.value);
}
"""

# Each function by the operation that needs it; one that calls another names it before.
FUNCTIONS: Mapping[str, tuple[str, ...]] = {
    "abs": (_ABSOLUTE,),
    "trunc": (_TRUNCATED,),
    "floor": (_TRUNCATED, _ROUNDED_DOWN),
    "fire_multiple": (_TRUNCATED, _ROUNDED_DOWN, _FIRED),
    "exp": (_EXPONENTIAL,),
    "sqrt": (_SQUARE_ROOT,),
}


def functions(used: set[Any]) -> str:
    """Give the functions that some operations need, each once."""
    needed = dict.fromkeys(text for operation in FUNCTIONS if operation in used for text in FUNCTIONS[operation])
    return "".join(needed)
