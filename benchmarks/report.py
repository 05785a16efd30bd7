"""What a person sees: every figure in one table, and the ratios beside their targets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.table import Table

from benchmarks.contestants.choose import PYTORCH_LIBRARIES
from benchmarks.measure import Figure
from benchmarks.tables import geometric_mean, verdict
from benchmarks.workloads import Activity, is_dense

OURS = "event"
REST = ("onnx", "jaxpike", "jax_scan", "torch_compile")


@dataclass(frozen=True)
class Target:
    """At least how many times as fast `event` is to be as the fastest of some, on each sparse case and on average."""

    rivals: tuple[str, ...]
    each: float
    mean: float


def targets(batch: int) -> dict[str, Target]:
    """Return the targets at a batch size."""
    libraries = Target(PYTORCH_LIBRARIES, 10, 20) if batch == 1 else Target(PYTORCH_LIBRARIES, 4, 8)
    return {"PyTorch libraries": libraries, "the rest": Target(REST, 2, 4)}


def show_activity(activity: Activity) -> str:
    """Write an input activity as tables do."""
    return "direct" if activity == "direct" else f"{activity:g} %"


def _by_case(figures: Sequence[Figure]) -> Iterator[list[Figure]]:
    return (list(group) for _, group in groupby(figures, key=lambda figure: id(figure.case)))


def figures_table(figures: Sequence[Figure], rate: float | None) -> Table:
    """Return one table of all figures; `rate` is a core's vector additions per second."""
    title = "Medians in milliseconds, each contestant at the number of threads that suits it best"
    table = Table("workload", "input", "batch", "contestant", title=title)
    for heading in ("threads", "median ms", "quartiles", "× event", "counts", "of the limit"):
        table.add_column(heading, justify="right")
    for group in _by_case(figures):
        ours = next((figure.median_ms for figure in group if figure.contestant == OURS), None)
        for place, figure in enumerate(group):
            case = figure.case
            names = (case.workload.name, show_activity(case.input_activity), str(case.inputs.batch))
            table.add_row(
                *(("", "", "") if place else names),
                figure.contestant,
                str(figure.threads),
                _milliseconds(figure.median_ms),
                "–".join(_milliseconds(quartile) for quartile in figure.quartiles_ms),
                f"{figure.median_ms / ours:.1f}" if ours else "",
                "equal" if figure.spikes_equal else f"{figure.differing:.2%} differ",
                f"{of_limit(figure, rate):.0%}" if rate and figure.contestant == OURS else "",
                end_section=figure is group[-1],
            )
    return table


def _milliseconds(value: float) -> str:
    return f"{value:#.3g}".rstrip(".")


def of_limit(figure: Figure, rate: float) -> float:
    """Return a figure's synaptic operations per second as a share of what its threads could add."""
    return figure.case.synaptic_operations / (figure.median_ms / 1e3) / (rate * figure.threads)


def ratios_table(figures: Sequence[Figure], batch: int) -> Table | None:
    """Return how many times as fast `event` is as the fastest rivals at a batch size, or None where it did not run."""
    groups = [group for group in _by_case(figures) if group[0].case.inputs.batch == batch]
    table = Table("workload", "input", title=f"Batch {batch}: how many times as fast as the fastest of …")
    wanted = targets(batch)
    for name, target in wanted.items():
        table.add_column(f"{name}: ≥ {target.each:g}, mean ≥ {target.mean:g}", justify="right")
    sparse: dict[str, list[float]] = {name: [] for name in wanted}
    for group in groups:
        times = {figure.contestant: figure.median_ms for figure in group}
        if OURS not in times:
            return None
        activity = group[0].case.input_activity
        cells = []
        for name, target in wanted.items():
            rivals = {rival: times[rival] for rival in target.rivals if rival in times}
            if not rivals:
                cells.append("none ran")
                continue
            fastest = min(rivals, key=lambda rival: rivals[rival])
            ratio = rivals[fastest] / times[OURS]
            if not is_dense(activity):
                sparse[name].append(ratio)
            cells.append(f"{ratio:.1f} {fastest} {verdict(ratio, 1 if is_dense(activity) else target.each)}")
        shown = show_activity(activity) + (", dense: ≥ 1" if is_dense(activity) else "")
        table.add_row(group[0].case.workload.name, shown, *cells, end_section=group is groups[-1])
    means = {name: geometric_mean(found) for name, found in sparse.items() if found}
    table.add_row(
        "geometric mean",
        "sparse",
        *(f"{means[name]:.1f} {verdict(means[name], wanted[name].mean)}" if name in means else "" for name in wanted),
    )
    return table


def activity_table(figures: Sequence[Figure]) -> Table:
    """Return the percentage of neurons that fire at a step, layer by layer."""
    table = Table("workload", "network", "input", "neurons, layer by layer", title="Activity")
    seen = set()
    for group in _by_case(figures):
        case = group[0].case
        name = (case.workload.name, show_activity(case.input_activity))
        if name not in seen:
            seen.add(name)
            given, *layers = (f"{share:.1%}" for share in case.activity.values())
            shown = "direct, " if case.input_activity == "direct" else ""
            network = f"{case.workload.title}, {case.workload.time_steps} steps"
            table.add_row(name[0], network, shown + given, " ".join(layers))
    return table
