"""The display of a run in progress: a row for each epoch, a progress bar on a terminal, and TensorBoard events."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from spikeserve.training.report.epochs import Epoch, Watcher

# 77 wide, so that the mark of the best epoch fits in 80 columns too.
HEADER = "    epoch      loss  accuracy  validation   firing rate  gradient   time left"
ABSENT = "–"
RECENT = 10  # epochs that the time left is judged by; the first may have taken longer, to compile kernels


@contextmanager
def shown(epochs: int, events: Path, console: Console) -> Iterator[Watcher]:
    """Yield a watcher that prints a row for each epoch on `console`, at most 80 wide, and writes events to a folder.

    A terminal has a bar below the rows; elsewhere, in a file or a pipe, there are only rows.
    A warning is printed in yellow when it comes first.
    """
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), TimeRemainingColumn(), TextColumn("left"))
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task("starting", total=epochs)
    best: Epoch | None = None
    seconds: list[float] = []
    # soft_wrap leaves a line as it is: a file has one line for each epoch, however narrow it is said to be.
    show = partial(console.print, highlight=False, markup=False, soft_wrap=True)

    def on_batch(number: int, share: float, *_: float) -> None:
        bar.update(task, completed=number + share, description=f"epoch {number + 1} of {epochs}")

    with ExitStack() as stack:

        @cache
        def writer() -> SummaryWriter:  # made once there is something to write: a run that fails before leaves no file
            return stack.enter_context(SummaryWriter(str(events)))

        def on_epoch(epoch: Epoch) -> None:
            nonlocal best
            if not seconds:
                show(HEADER, style="bold")
            seconds.append(epoch.seconds)
            better = epoch.better_than(best)
            best = epoch if better else best
            left = statistics.median_low(seconds[-RECENT:]) * (epochs - epoch.number - 1)
            show(f"{row(epoch, epochs, left)}{' *' if better and epoch.chooses else ''}")
            for warning in epoch.warnings:
                show(f"warning: {warning}", style="yellow")
            write_scalars(writer(), epoch)

        stack.enter_context(bar)
        yield Watcher(on_batch, on_epoch)


def row(epoch: Epoch, epochs: int, seconds_left: float) -> str:
    """Return an epoch as one row of the table."""
    rates = epoch.firing_rates.values()
    rate = f"{sum(rates) / len(rates):.1%}" if rates else ABSENT
    validated = f"{epoch.validation_accuracy:.2%}" if epoch.validation_samples else ABSENT
    norm = ABSENT if epoch.gradient_norm is None else _number(epoch.gradient_norm, 2)
    return (
        f"{f'{epoch.number + 1}/{epochs}':>9}{_number(epoch.training_loss, 4):>10}{epoch.training_accuracy:>10.2%}"
        f"{validated:>12}{rate:>14}{norm:>10}{duration(seconds_left):>12}"
    )


def _number(value: float, places: int) -> str:
    """Return a number in at most 8 characters: with so many places, or as 1.2e+16 where that is too long or says 0."""
    return f"{value:.{places}f}" if 10**-places <= value < 1000 or value == 0 else f"{value:.1e}"


def duration(seconds: float) -> str:
    """Return a time as 0:07, 12:34 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def write_scalars(writer: SummaryWriter, epoch: Epoch) -> None:
    """Write an epoch's metrics and warnings as TensorBoard events, those of batches by the number of the batch."""
    number = epoch.number + 1
    scalars = {
        "loss/training": epoch.training_loss,
        "accuracy/training": epoch.training_accuracy,
        "time/seconds_per_epoch": epoch.seconds,
    } | {f"firing_rate/{name}": rate for name, rate in epoch.firing_rates.items()}
    if epoch.validation_samples:
        scalars |= {"loss/validation": epoch.validation_loss, "accuracy/validation": epoch.validation_accuracy}
    if epoch.gradient_norm is not None:
        scalars["gradient_norm/median"] = epoch.gradient_norm
    for name, value in scalars.items():
        writer.add_scalar(name, value, number)
    for batch, norm in enumerate(epoch.gradient_norms, start=epoch.number * len(epoch.gradient_norms) + 1):
        writer.add_scalar("gradient_norm/batch", norm, batch)
    if epoch.warnings:
        writer.add_text("warnings", "\n\n".join(epoch.warnings), number)
