"""A bundle as one C99 file and its header, which need no heap and no library: only the headers of a bare compiler."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from spikeserve.models.engines.fan_out import constant_nodes
from spikeserve.models.engines.state import NO_SPIKE, READOUT, REDUCED, SPIKE_COUNTS, arrays_of
from spikeserve.models.errors import InvalidSpec
from spikeserve.models.spec import Coding, Readout
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.nodes import Spiking
from spikeserve.models.spec.readouts import Reduction
from spikeserve.plugins.c.nodes import Pieces, Value
from spikeserve.plugins.c.operations import functions, number
from spikeserve.plugins.c.tables import floats

KINDS = {np.float32: "float", np.float64: "double", np.int64: "int64_t"}
PREAMBLE = """#include "HEADER.h"

#include <float.h>

#ifdef __FAST_MATH__
#error "compile without -ffast-math: the answers would be others"
#endif
#if FLT_EVAL_METHOD != 0 && FLT_EVAL_METHOD != 16 /* 16 is 0 with half precision: floats stay floats */
#error "float has to be computed as float: with gcc for x86 add -msse2 -mfpmath=sse"
#endif
/* A product and the sum after it round one by one. */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif
"""

BYTES = """
static void copy(void *to, const void *from, size_t size) {
  size_t i;
  for (i = 0; i < size; i++) ((uint8_t *)to)[i] = ((const uint8_t *)from)[i];
}

static void clear(void *bytes, size_t size) {
  size_t i;
  for (i = 0; i < size; i++) ((uint8_t *)bytes)[i] = 0;
}
"""

LAYER = """
#ifndef LAYER /* yours to define: what is done with the name, spikes and size of each layer at each step */
#define LAYER(name, spikes, count)
#endif
"""
SHARED = "/* What a step needs for a part of its time: arrays that are never needed together lie in one place. */\n"

HALF_BYTE = """
static int32_t half_byte(uint8_t pair, int high) { return (int32_t)((high ? pair >> 4 : pair & 15) ^ 8) - 8; }
"""


@dataclass(frozen=True)
class Source:
    """A network in C: the text of the file and of its header, and what its functions begin with."""

    code: str
    header: str
    prefix: str


def prefix_of(name: str) -> str:
    """Make a model's name one that C takes: `my-net` becomes `my_net`."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)
    return plain if plain[:1].isalpha() else f"net_{plain}"


def write(network: Network, name: str, title: str = "") -> Source:
    """Write a network as C; `title` stands above."""
    prefix, spec = prefix_of(name), network.spec
    # With a constant input some nodes are computed once.
    once = constant_nodes(spec) if spec.coding is Coding.DIRECT else frozenset[str]()
    pieces = Pieces.of(network, once)
    arrays = arrays_of(network)
    for array, field in ((READOUT, "read"), (SPIKE_COUNTS, "counts")):
        if array in arrays:
            pieces.add_field(KINDS[arrays[array].dtype], field, spec.classes)
    for value in _read(network, pieces):
        pieces.read(value, len(spec.nodes))
    sizes, places = pieces.shared()
    for kind, size in sizes.items():
        pieces.add_field(kind, f"shared_{kind}", size)
    shared = "".join(f"#define {name} (net->shared_{kind} + {start})\n" for name, (kind, start) in places.items())
    calls = {True: "", False: ""}
    for place, node in enumerate(spec.nodes):
        if node.name in pieces.bodies:
            calls[node.name in once] += f"  node_{place}(net);\n"
        if node.name in spec.layers:
            spikes, count = pieces.values[node.name].name, spec.layers[node.name]
            calls[False] += f'  {prefix.upper()}_LAYER("{_quoted(node.name)}", {spikes}, {count})\n'
    bodies = "".join(
        f"\n/* {node.name}: {node.type} */\nstatic void node_{place}({prefix}_net *net) {{\n"
        f"{_declared(pieces.bodies[node.name])}{pieces.bodies[node.name]}\n}}\n"
        for place, node in enumerate(spec.nodes)
        if node.name in pieces.bodies
    )
    half = HALF_BYTE if "half_byte" in bodies else ""
    code = (
        f"/* {title or name} */\n{PREAMBLE.replace('HEADER', prefix)}{BYTES}{functions(pieces.used)}{half}\n"
        + f"{LAYER.replace('LAYER', f'{prefix.upper()}_LAYER')}\n{SHARED}{shared}\n"
        + "".join(pieces.tables)
        + bodies
        + _input(prefix, network)
        + _run(prefix, network, pieces, calls)
    )
    return Source(code, _header(prefix, network, pieces, title or name), prefix)


def _declared(body: str) -> str:
    """Declare the indices that a function's body uses."""
    used = [index for index in "inkyzpq" if re.search(rf"\b{index}\b", body)]
    return f"  int32_t {', '.join(used)};\n" if used else ""


def _input(prefix: str, network: Network) -> str:
    """Write `normalise`: raw values to currents. Raises InvalidSpec for what only a whole sample says."""
    if network.spec.input.by_deviation:
        raise InvalidSpec(f"input: the bundle has {network.spec.read_whole}, expected another: C reads step by step")
    declared, size = network.spec.input, math.prod(network.spec.input.shape)
    tables, parts = "", dict[str, str]()
    factors = dict(zip(("low", "high", "scale", "offset"), (*declared.range, *declared.factors), strict=True))
    for name, values in factors.items():
        if values.ndim:
            tables += floats(f"input_{name}", np.ascontiguousarray(np.broadcast_to(values, declared.shape)))
        parts[name] = f"input_{name}[i]" if values.ndim else number(float(values))
    clips = declared.out_of_range.value == "clip"
    beyond = (
        f"""    if (x != x) return -1;
    if (x < {parts["low"]}) x = {parts["low"]};
    if (x > {parts["high"]}) x = {parts["high"]};"""
        if clips
        else f"    if (!(x >= {parts['low']} && x <= {parts['high']})) return -1;"
    )
    rounds = ""
    if declared.resolution is not None:
        step = number(declared.resolution)
        rounds = f"""
    x = x / {step};
    if (x > -8388608.0f && x < 8388608.0f) {{ /* to the nearest whole number, half to even */
      float up = x < 0.0f ? -12582912.0f : 12582912.0f;
      volatile float shifted = x + up;
      x = shifted - up;
    }}
    x = x * {step};"""
    return f"""
{tables}
int {prefix}_normalise(const float *values, float *currents) {{
  int32_t i;
  for (i = 0; i < {size}; i++) {{
    float x = values[i];
{beyond}
    x = {parts["scale"]} * x;
    x = x + {parts["offset"]};{rounds}
    currents[i] = x;
  }}
  return 0;
}}
"""


def _run(prefix: str, network: Network, pieces: Pieces, calls: dict[bool, str]) -> str:
    spec, classes = network.spec, network.spec.classes
    size = math.prod(spec.input.shape)
    starts = "\n".join(f"  {line}" for line in [*pieces.starts, *_readout_start(network)])
    steps = f"""{calls[False]}{_readout_step(network, pieces)}
  net->steps++;
  return 0;
}}
"""
    beyond = f"  if (net->steps >= {spec.bounded[1]}) return -1;\n" if spec.bounded else ""
    if spec.coding is Coding.DIRECT:
        step = f"""
void {prefix}_present({prefix}_net *net, const float *currents) {{
  copy(input, currents, {size} * sizeof *input);
{calls[True]}}}

int {prefix}_step({prefix}_net *net) {{
  int32_t i;
  (void)i;
{beyond}{steps}"""
    else:
        table, event = _event(network)
        step = f"""
{table}static int take_step({prefix}_net *net) {{
  int32_t i;
  (void)i;
{beyond}{steps}
int {prefix}_step({prefix}_net *net, const float *currents) {{
  copy(input, currents, {size} * sizeof *input);
  return take_step(net);
}}

int {prefix}_step_events({prefix}_net *net, const uint32_t *units, size_t count) {{
  size_t k;
  clear(input, {size} * sizeof *input);
  for (k = 0; k < count; k++) if (units[k] < {size}u) input[units[k]] = {event};
  return take_step(net);
}}
"""
    counts = "read" if spec.readout is Readout.SPIKE_COUNT else "counts"
    counted = f"net->{counts}[i]" if isinstance(spec.readout_node, Spiking) else "0"
    return f"""
void {prefix}_init({prefix}_net *net) {{
  int32_t i;
  clear(net, sizeof *net);
  (void)i;
{starts}
}}
{step}
void {prefix}_counts(const {prefix}_net *net, int64_t *counts) {{
  int32_t i;
  (void)net;
  for (i = 0; i < {classes}; i++) counts[i] = {counted};
}}

void {prefix}_readout(const {prefix}_net *net, float *values) {{
  int32_t i;
  for (i = 0; i < {classes}; i++) values[i] = {_readout_value(network)};
}}

int32_t {prefix}_class(const {prefix}_net *net) {{
  int32_t i, best = 0;
  float values[{classes}];
  {prefix}_readout(net, values);
  for (i = 1; i < {classes}; i++) if (values[i] > values[best]) best = i;
  return best;
}}
"""


def _event(network: Network) -> tuple[str, str]:
    """Write the current of an event, which is the greatest value of its unit's range, and the table that it needs."""
    currents = event_currents(network)
    if currents.ndim == 0:
        return "", number(float(currents))
    return floats("input_event", np.broadcast_to(currents, network.spec.input.shape)), "input_event[units[k]]"


def event_currents(network: Network) -> FloatArray:
    """Give the current of an event of each unit, an array that spreads over the input's shape."""
    declared = network.spec.input
    if network.spec.coding in (Coding.RATE, Coding.LATENCY):
        return np.array(1, np.float32)
    return np.asarray(declared.normalise(declared.range[1]))


def _readout_start(network: Network) -> list[str]:
    spec = network.spec
    if spec.readout is Readout.SPIKE_COUNT:
        return []
    if spec.readout is Readout.FIRST_SPIKE:
        return [f"for (i = 0; i < {spec.classes}; i++) net->read[i] = {NO_SPIKE};"]
    value = REDUCED[spec.readout.reduction].value
    written = "-1.0f / 0.0f" if value == -math.inf else number(value)
    return [f"for (i = 0; i < {spec.classes}; i++) net->read[i] = {written};"]


def _read(network: Network, pieces: Pieces) -> tuple[Value, Value]:
    """Give what the answer is read from: the output of the last neurons, and the value that the readout reduces."""
    spec = network.spec
    last = pieces.values[spec.nodes[-1].name]
    return pieces.values[spec.readout_node.name], pieces.membranes.get(spec.readout_node.name, last)


def _readout_step(network: Network, pieces: Pieces) -> str:
    spec, read = network.spec, network.spec.readout_node
    spikes, value = (each.element for each in _read(network, pieces))
    each = f"  for (i = 0; i < {spec.classes}; i++)"
    lines = []
    if spec.readout is Readout.SPIKE_COUNT:
        return f"{each} net->read[i] += (int64_t){spikes};"
    if isinstance(read, Spiking):
        lines.append(f"{each} net->counts[i] += (int64_t){spikes};")
    if spec.readout is Readout.FIRST_SPIKE:
        lines.append(f"{each} if (net->read[i] < 0 && {spikes} > 0.0f) net->read[i] = net->steps;")
    else:
        lines.append(f"{each} {REDUCTIONS[spec.readout.reduction].replace('VALUE', value)}")
    return "\n".join(lines)


REDUCTIONS = {
    Reduction.SUM: "net->read[i] += (double)VALUE;",
    Reduction.MEAN: "net->read[i] += (double)VALUE;",
    Reduction.MAX: "if (VALUE > net->read[i]) net->read[i] = VALUE;",
    Reduction.LAST: "net->read[i] = VALUE;",
}


def _readout_value(network: Network) -> str:
    readout = network.spec.readout
    if readout is Readout.FIRST_SPIKE:
        return "net->read[i] < 0 ? 0.0f : (float)(net->steps - net->read[i])"
    if readout is not Readout.SPIKE_COUNT and readout.reduction is Reduction.MEAN:
        return "(float)(net->read[i] / (double)net->steps)"
    return "(float)net->read[i]"


def _header(prefix: str, network: Network, pieces: Pieces, title: str) -> str:
    spec = network.spec
    guard = f"{prefix.upper()}_H"
    fields = "\n".join(f"  {kind} {name}[{size}];" for kind, name, size in pieces.fields)
    labels = ", ".join(f'"{_quoted(label)}"' for label in spec.labels)
    steps = (
        f"""void {prefix}_present({prefix}_net *net, const float *currents); /* of the sample, before its first step */
int {prefix}_step({prefix}_net *net); /* -1, and no step: there are no parameters for as many */"""
        if spec.coding is Coding.DIRECT
        else f"""/* -1, and no step: there are no parameters for as many; each unit comes at most once */
int {prefix}_step({prefix}_net *net, const float *currents);
int {prefix}_step_events({prefix}_net *net, const uint32_t *units, size_t count);"""
    )
    return f"""/* {title} */
#ifndef {guard}
#define {guard}

#include <stddef.h>
#include <stdint.h>

#define {prefix.upper()}_INPUTS {math.prod(spec.input.shape)}
#define {prefix.upper()}_CLASSES {spec.classes}
#define {prefix.upper()}_TIME_STEPS {spec.time_steps}
#define {prefix.upper()}_LABELS {{{labels}}}

typedef struct {{
  int64_t steps; /* since init */
{fields}
}} {prefix}_net;

void {prefix}_init({prefix}_net *net);
int {prefix}_normalise(const float *values, float *currents); /* -1: a value is outside of the declared range */
{steps}
void {prefix}_counts(const {prefix}_net *net, int64_t *counts); /* spikes of each output since init */
void {prefix}_readout(const {prefix}_net *net, float *values);
int32_t {prefix}_class(const {prefix}_net *net);

#endif
"""


def _quoted(label: str) -> str:
    """Write a label as the bytes of a C string."""
    plain = (chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\?' else f"\\{byte:03o}" for byte in label.encode())
    return "".join(plain)
