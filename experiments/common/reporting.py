"""Progress and tables on the terminal (by rich, or plain where it is not installed), and results as JSON."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

try:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Table

    console = Console()
except ImportError:
    console = None


def say(text: str) -> None:
    """A line of text."""
    print(text) if console is None else console.print(text, highlight=False, soft_wrap=True)


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[str], None]]:
    """Yield a function that counts one step and says something about it."""
    if console is None:
        yield lambda text: None
        say(f"{description}: done")
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(f"{description:<28}", total=total, note="")
        yield lambda text: bar.update(task, advance=1, note=text)


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> None:
    """A table whose first column is text and whose others are numbers."""
    if console is None:
        widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
        lines = [
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in (columns, *rows)
        ]
        print("\n".join([title, *lines, *notes]))
        return
    table = Table(title=title, title_justify="left", caption="\n".join(notes), caption_justify="left")
    for index, column in enumerate(columns):
        table.add_column(
            column, justify="right" if index else "left", overflow="fold"
        )  # a digit cut off would be a lie
    for row in rows:
        table.add_row(*row)
    console.print(table)


def seconds(value: float) -> str:
    """Three digits, as a person says them."""
    return f"{value:.2f} s" if value < 10 else f"{value:.0f} s"


def duration(value: float) -> str:
    """Seconds as a person says them, milliseconds below a tenth of a second."""
    return f"{1000 * value:.3g} ms" if value < 0.1 else seconds(value)


def write_json(path: Path, result: dict, *, compact: bool = False) -> None:
    """Write a result.

    NaN is not JSON and would not be a result. `compact` puts innermost lists and objects on a line each.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=2, allow_nan=False)
    if compact:
        one_line = re.sub(r"[\[{][^\[\]{}\"]*(?:\"[^\[\]{}\"]*\"[^\[\]{}\"]*)*[\]}]", _on_one_line, text)
        text = one_line if json.loads(one_line) == result else text
    path.write_text(text + "\n")


def _on_one_line(innermost: re.Match) -> str:
    return re.sub(r"\n\s*", " ", innermost[0])
