"""The display of a run in progress: a progress bar with the latest epoch, and TensorBoard events."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from training.report.epochs import Epoch, Watcher


@contextmanager
def shown(epochs: int, events: Path, console: Console) -> Iterator[Watcher]:
    """Yield a watcher that draws a bar on `console`, prints a line for each epoch and writes events to a folder."""
    columns = (
        TextColumn("epoch"),
        MofNCompleteColumn(),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[latest]}"),
    )
    with Progress(*columns, console=console) as progress, SummaryWriter(str(events)) as writer:
        task = progress.add_task("fit", total=epochs, latest="")

        def on_batch(number: int, share: float) -> None:
            progress.update(task, completed=number + share)

        def on_epoch(epoch: Epoch) -> None:
            progress.update(task, completed=epoch.number + 1, latest=summary(epoch))
            progress.console.print(f"epoch {epoch.number + 1:3d}  {summary(epoch)}", highlight=False)
            _write(writer, epoch)

        yield Watcher(on_batch, on_epoch)


def summary(epoch: Epoch) -> str:
    """Return an epoch as one line: loss, accuracy and firing rate."""
    rates = epoch.firing_rates.values()
    return (
        f"loss {epoch.training_loss:.4f}  accuracy {epoch.training_accuracy:.2%}  "
        f"validation {epoch.validation_accuracy:.2%}  firing rate {sum(rates) / max(1, len(rates)):.1%}"
    )


def _write(writer: SummaryWriter, epoch: Epoch) -> None:
    scalars = {
        "loss/training": epoch.training_loss,
        "loss/validation": epoch.validation_loss,
        "accuracy/training": epoch.training_accuracy,
        "accuracy/validation": epoch.validation_accuracy,
    } | {f"firing_rate/{name}": rate for name, rate in epoch.firing_rates.items()}
    for name, value in scalars.items():
        writer.add_scalar(name, value, epoch.number + 1)
