// Reads Prometheus' text format, as far as this server writes it.

const LINE = /^(\w+)(?:\{(.*)\})? ([^ ]+)$/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;
const ESCAPED = { n: "\n", "\\": "\\", '"': '"' };

// Returns the samples of a text, [{ name, labels, value }].
export function readMetrics(text) {
  return text.split("\n").flatMap((line) => {
    const found = line.startsWith("#") ? null : LINE.exec(line);
    if (!found) return [];
    const labels = {};
    for (const [, name, value] of (found[2] ?? "").matchAll(LABEL)) labels[name] = value.replace(/\\(.)/g, (_, next) => ESCAPED[next] ?? next);
    return [{ name: found[1], labels, value: Number(found[3].replace("Inf", "Infinity")) }];
  });
}

// Those of a name whose labels hold all of `labels`; of several workers, each has its own.
export function samplesOf(metrics, name, labels = {}) {
  return metrics.filter((each) => each.name === name && Object.entries(labels).every(([label, value]) => each.labels[label] === value));
}

export const totalOf = (metrics, name, labels) => samplesOf(metrics, name, labels).reduce((all, { value }) => all + value, 0);

// The value below which that share of a histogram lies, by the upper end of its bucket; null where nothing was counted.
export function quantile(metrics, name, labels, share) {
  const buckets = new Map();
  for (const { labels: { le }, value } of samplesOf(metrics, `${name}_bucket`, labels)) {
    const end = Number(le.replace("Inf", "Infinity"));
    buckets.set(end, (buckets.get(end) ?? 0) + value);
  }
  const ends = [...buckets.keys()].sort((a, b) => a - b);
  const count = buckets.get(Infinity) ?? 0;
  return count === 0 ? null : ends.find((end) => buckets.get(end) >= share * count);
}
