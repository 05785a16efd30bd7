"""A state in C: the same bytes as a server's (`models.engines.blob`), for one sample.

A network's arrays have fixed sizes, so that the header of safetensors is a constant, and each array has its place.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Set
from decimal import Decimal

import numpy as np

from spikeserve.models.engines.blob import HEADER, to_bytes
from spikeserve.models.engines.readout import MAX_SPIKES
from spikeserve.models.engines.state import MOST_STEPS, NO_SPIKE, READOUT, State, arrays_of
from spikeserve.models.spec import Readout
from spikeserve.models.spec.network import Network
from spikeserve.models.spec.sums import sums_of
from spikeserve.training.targets.c.operations import number
from spikeserve.training.targets.c.tables import array, filled

KINDS = {np.float32: "float", np.float64: "double", np.int64: "int64_t"}
SHA256 = """
/* SHA-256, FIPS 180-4. */
static uint32_t turned(uint32_t x, int n) { return x >> n | x << (32 - n); }

static void sha256(const uint8_t *bytes, size_t size, uint8_t digest[32]) {
  static const uint32_t constants[64] = {
CONSTANTS
  };
  uint32_t h[8] = {0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u, 0xa54ff53au,
                   0x510e527fu, 0x9b05688cu, 0x1f83d9abu, 0x5be0cd19u};
  uint32_t w[64], s[8], first, second;
  size_t block, i, place;
  for (block = 0; block < (size + 8) / 64 + 1; block++) {
    for (i = 0; i < 64; i++) {
      uint8_t byte = 0;
      place = block * 64 + i;
      if (place < size) byte = bytes[place];
      else if (place == size) byte = 0x80;
      else if (place >= ((size + 8) / 64 + 1) * 64 - 8)
        byte = (uint8_t)((uint64_t)size * 8 >> 8 * (((size + 8) / 64 + 1) * 64 - 1 - place));
      w[i / 4] = w[i / 4] << 8 | byte;
    }
    for (i = 16; i < 64; i++)
      w[i] = w[i - 16] + w[i - 7] + (turned(w[i - 15], 7) ^ turned(w[i - 15], 18) ^ w[i - 15] >> 3)
             + (turned(w[i - 2], 17) ^ turned(w[i - 2], 19) ^ w[i - 2] >> 10);
    copy(s, h, sizeof h);
    for (i = 0; i < 64; i++) {
      first = s[7] + (turned(s[4], 6) ^ turned(s[4], 11) ^ turned(s[4], 25)) + ((s[4] & s[5]) ^ (~s[4] & s[6]))
              + constants[i] + w[i];
      second = (turned(s[0], 2) ^ turned(s[0], 13) ^ turned(s[0], 22))
               + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
      for (place = 7; place; place--) s[place] = s[place - 1];
      s[4] += first;
      s[0] = first + second;
    }
    for (i = 0; i < 8; i++) h[i] += s[i];
  }
  for (i = 0; i < 32; i++) digest[i] = (uint8_t)(h[i / 4] >> 8 * (3 - i % 4));
}
"""

SPIKES = """
/* Spikes are bytes here, and float32 in a state. */
static void widen(uint8_t *bytes, const uint8_t *spikes, size_t count) {
  size_t i;
  for (i = 0; i < count; i++) {
    float value = spikes[i];
    copy(bytes + i * sizeof value, &value, sizeof value);
  }
}

static void narrow(uint8_t *spikes, const uint8_t *bytes, size_t count) {
  size_t i;
  for (i = 0; i < count; i++) {
    float value;
    copy(&value, bytes + i * sizeof value, sizeof value);
    spikes[i] = value != 0.0f;
  }
}
"""

FITS = """
/* Whether values of a state are from low to high, and multiples of step if that is not 0. */
static int TYPE_fits(const uint8_t *bytes, size_t count, TYPE low, TYPE high, TYPE step) {
  TYPE value;
  for (; count; count--, bytes += sizeof value) {
    copy(&value, bytes, sizeof value);
    if (!(value >= low && value <= high) || (step != 0 && (TYPE)(int64_t)(value / step) * step != value)) return 0;
  }
  return 1;
}
"""

FUNCTIONS = """
void NET_state_save(const NET_net *net, uint8_t *bytes) {
  int64_t k;
  copy(bytes, state_named, sizeof state_named);
  copy(bytes + BEHIND, state_described, sizeof state_described);
SAVE
  sha256(CONTENT, bytes + sizeof state_named);
}

int NET_state_load(NET_net *net, const uint8_t *bytes, size_t size) {
  uint8_t digest[32];
  int64_t k;
  if (size != SIZE || differ(bytes, state_named, sizeof state_named)) return -1;
  sha256(CONTENT, digest);
  if (differ(bytes + sizeof state_named, digest, 32)) return -1;
  if (differ(bytes + BEHIND, state_described, sizeof state_described)) return -1;
  copy(&k, bytes + STEPS, 8);
  if (k < 0 || k > MOST || (!k && differ(digest, state_rest, 32))) return -1;
CHECKS
LOAD
  return 0;
}
"""


def _constants() -> str:
    """Give the first 32 bits of the fractions of the cube roots of the first 64 primes."""
    primes = [n for n in range(2, 312) if all(n % k for k in range(2, n))]
    roots = (int(Decimal(prime) ** (Decimal(1) / 3) * 2**32) & 0xFFFFFFFF for prime in primes)
    return ",\n".join(f"    0x{root:08x}u" for root in roots)


class Layout:
    """Where each array lies in the bytes of a state of one sample, for the bundle with that `digest`.

    `size`: of all bytes. `named`: the bytes before the check sum, which name format and bundle. `described`: those
    after it, up to the arrays. `rest`: the check sum of the state at rest. `places`: the first byte of each array and
    the number of its bytes.
    """

    def __init__(self, network: Network, digest: str) -> None:
        content = to_bytes(State.rest(network, 1), digest)
        (length,) = struct.unpack_from("<Q", content, HEADER.size)
        begin = HEADER.size + 8 + length
        header = json.loads(content[HEADER.size + 8 : begin])
        self.size = len(content)
        self.named, self.described = content[: HEADER.size - 32], content[HEADER.size : begin]
        self.rest = content[HEADER.size - 32 : HEADER.size]
        self.places = {
            name: (begin + each["data_offsets"][0], each["data_offsets"][1] - each["data_offsets"][0])
            for name, each in header.items()
        }


def _limits(name: str, network: Network, *, single: bool) -> tuple[str, str, str]:
    """Give the least and greatest value of an array after `k` steps, and what they are multiples of, or 0.

    They are those of `models.engines.blob`, and what the types of C hold; `single`: of spikes, at most one in a step.
    """
    dtype = arrays_of(network)[name].dtype
    if name == READOUT and network.spec.readout is Readout.FIRST_SPIKE:
        return str(NO_SPIKE), "k - 1", "0"
    if dtype is np.int64:
        return "0", str(MOST_STEPS), "0"
    if single or name.endswith(".spikes"):
        return "0", "1" if single else str(MAX_SPIKES), "1"
    if name.endswith(".line") and (arriving := sums_of(network)[name.removesuffix(".line")].arriving).step:
        return number(-arriving.bound), number(arriving.bound), number(arriving.step if arriving.fit else 0)
    return ("-FLT_MAX", "FLT_MAX", "0") if dtype is np.float32 else ("-DBL_MAX", "DBL_MAX", "0")


def functions(prefix: str, network: Network, digest: str, fields: Mapping[str, str], spikes: Set[str]) -> str:
    """Write `state_save` and `state_load`; `fields` are those of the struct by the names of the state's arrays.

    Those of them that are `spikes` hold bytes. The line of a Delay is a ring in C, and begins with its oldest step in
    the bytes.
    """
    layout, arrays = Layout(network, digest), arrays_of(network)
    save, load, checks = list[str](), list[str](), list[str]()
    for name, (place, size) in layout.places.items():
        field, count, part, first = f"(uint8_t *)&net->{fields[name]}", 1, size, ""
        put, get, own = "copy", "copy", size
        if fields[name] in spikes:
            field, put, get, own = f"net->{fields[name]}", "widen", "narrow", size // 4
        if name.endswith(".line") and size:
            count = arrays[name].shape[0]
            part, own = size // count, own // count
            first = f" + (net->steps + k) % {count} * {own}"
        if size and name in arrays:
            low, high, step = _limits(name, network, single=put == "widen")
            kind, values = KINDS[arrays[name].dtype], math.prod(arrays[name].shape)
            checks.append(f"  if (k && !{kind}_fits(bytes + {place}, {values}, {low}, {high}, {step})) return -1;")
        if size:
            each, there = f"for (k = 0; k < {count}; k++) ", f"bytes + {place} + k * {part}"
            save.append(f"  {each}{put}({there}, {field.replace('(uint8', '(const uint8')}{first}, {own});")
            load.append(f"  {each}{get}({field}{first}, {there}, {own});")
    load.sort(key=lambda line: "&net->steps," not in line)  # first, as lines turn by it
    content = f"bytes + {HEADER.size}, {layout.size - HEADER.size}"
    tables = (
        array(f"state_{name}", "uint8_t", [str(byte) for byte in text])
        for name, text in (("named", layout.named), ("described", layout.described), ("rest", layout.rest))
    )
    lines = {"SAVE": "\n".join(save), "LOAD": "\n".join(load), "STEPS": str(layout.places["steps"][0])}
    lines |= {"NET": prefix, "CONTENT": content, "BEHIND": str(HEADER.size), "SIZE": str(layout.size)}
    lines |= {"CHECKS": "\n".join(checks), "MOST": str(network.spec.bounded[1] if network.spec.bounded else MOST_STEPS)}
    fits = "".join(FITS.replace("TYPE", kind) for kind in KINDS.values() if f"{kind}_fits" in lines["CHECKS"])
    text = fits + (SPIKES if not spikes.isdisjoint(fields.values()) else "") + filled(FUNCTIONS, lines)
    return "\n".join(tables) + SHA256.replace("CONSTANTS", _constants()) + text
