"""What a run shows while it runs: a bar on a terminal, lines elsewhere, nothing if it is to be quiet."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rangeformer.pretrain.trainer import Report


@contextmanager
def progress(*, quiet: bool) -> Iterator[Report]:
    """A report function for `pretrain`."""
    if quiet:
        yield lambda message: None
        return
    try:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        Progress = None
    if Progress is None or not sys.stdout.isatty():
        yield lambda message: print(_line(message), flush=True) if "figures" in message else None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f}%"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as bar:
        task = bar.add_task("pretraining", total=1.0)

        def report(message: dict[str, Any]) -> None:
            if "figures" in message:
                bar.console.print(_line(message), highlight=False, markup=False)
            loss = message["losses"].get("loss")
            shown = "" if loss is None else f", loss {loss:.3f}"
            bar.update(task, completed=message["progress"], description=f"step {message['step']}{shown}")

        yield report


def _line(message: dict[str, Any]) -> str:
    """A validation in one line."""
    values = {**message["losses"], **message["figures"]}
    return f"step {message['step']:6d}  " + "  ".join(f"{key} {value:.4g}" for key, value in values.items())
