// Reads an array as np.save writes it, only to show it: the server is sent the file as it is.

const KINDS = {
  "|b1": Uint8Array, "|u1": Uint8Array, "|i1": Int8Array, "<u2": Uint16Array, "<i2": Int16Array,
  "<u4": Uint32Array, "<i4": Int32Array, "<f4": Float32Array, "<f8": Float64Array,
  "<u8": BigUint64Array, "<i8": BigInt64Array,
};

// Returns { shape, values } in C order, or null for what is not shown: another type of numbers, or records.
export function readNpy(buffer) {
  const bytes = new Uint8Array(buffer), view = new DataView(buffer);
  if (bytes.length < 12 || String.fromCharCode(...bytes.subarray(1, 6)) !== "NUMPY") return null;
  const long = bytes[6] > 1;
  const start = long ? 12 : 10, length = long ? view.getUint32(8, true) : view.getUint16(8, true);
  const header = new TextDecoder("latin1").decode(bytes.subarray(start, start + length));
  const kind = KINDS[/'descr':\s*'([^']*)'/.exec(header)?.[1]];
  const shape = /'shape':\s*\(([^)]*)\)/.exec(header)?.[1].split(",").filter((size) => size.trim()).map(Number);
  if (!kind || !shape) return null;
  const content = buffer.slice(start + length);
  const count = shape.reduce((all, size) => all * size, 1);
  if (content.byteLength !== count * kind.BYTES_PER_ELEMENT) return null;
  const values = Array.from(new kind(content), Number);
  return { shape, values: header.includes("'fortran_order': True") ? inCOrder(values, shape) : values };
}

// Reorders values of Fortran order, whose first index changes fastest, to C order.
function inCOrder(values, shape) {
  return values.map((_, index) => {
    let place = 0, stride = values.length;
    for (const size of [...shape].reverse()) {
      stride /= size;
      place += index % size * stride;
      index = Math.floor(index / size);
    }
    return values[place];
  });
}
