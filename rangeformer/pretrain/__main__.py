"""Command line of the pretraining program."""

import argparse
import dataclasses
import json
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from rangeformer.checkpoint import card_path, save
from rangeformer.pretrain.config import PretrainConfig
from rangeformer.pretrain.loop import TrainingResult, pretrain


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, write weights, card, history and (with matplotlib) the learning curve."""
    options = _parser().parse_args(arguments)
    given = {
        "num_steps": options.steps,
        "max_minutes": options.minutes,
        "seed": options.seed,
        "batch_size": options.batch_size,
        "sizes": options.sizes,
        "validation_size": options.validation_size,
        "validate_every": options.validate_every,
        "learning_rate": options.learning_rate,
        "num_threads": options.threads,
    }
    given = {key: value for key, value in given.items() if value is not None}
    try:
        config = (
            PretrainConfig.from_json(options.config, **given) if options.config else PretrainConfig.from_fields(given)
        )
    except (ValueError, TypeError, OSError) as error:
        _parser().error(str(error))
    if options.out.suffix != ".safetensors":
        _parser().error(f"--out must end in .safetensors. Got {str(options.out)!r}.")
    with _progress(config, quiet=options.quiet) as report:
        result = pretrain(config, report)
    save(result.model, options.out, make_card(config, result))
    _write_history(options.out, result)
    print(_summary(result, options.out))
    return 0


def make_card(config: PretrainConfig, result: TrainingResult) -> dict[str, Any]:
    """What the checkpoint's card says of the run."""
    return {
        "seed": config.seed,
        "training": dataclasses.asdict(config),
        "training_laws": {
            "kernel": config.training_laws(kernels=True),
            "other": config.training_laws(kernels=False),
            "documented_in": "rangeformer/structured.py",
        },
        "improved_over_untrained": result.improved,
        "validation": {
            "meaning": "missed: share of the oracle's gain in mean log D_i not reached with 2k candidates (0 oracle, "
            "1 no neighbours; over matrices the geometric mean of share + 0.01, less 0.01); recall: share of the "
            "oracle's neighbours found; range: log share of |K|_F^2 outside c range directions",
            "untrained": dataclasses.asdict(result.untrained),
            "trained": dataclasses.asdict(result.best),
            "table": [
                {
                    **{k: row[k] for k in ("law", "num_columns", "room")},
                    "untrained": _figures(row),
                    "trained": _figures(new),
                }
                for row, new in zip(result.untrained_table, result.best_table, strict=True)
            ],
        },
        "history": [{k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()} for row in result.history],
        "run": {
            "num_steps": result.num_steps,
            "num_skipped": result.num_skipped,
            "minutes": round(result.minutes, 2),
            "num_threads": torch.get_num_threads(),
            "device": "cpu",
        },
        "versions": {"torch": torch.__version__, "python": platform.python_version(), "machine": platform.machine()},
        "commit": _commit(),
    }


def _figures(row: dict[str, Any]) -> dict[str, float]:
    return {key: round(row[key], 4) for key in ("missed", "recall", "range")}


def _commit() -> str | None:
    """The commit of the source tree, where it is a git checkout."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


def _write_history(out: Path, result: TrainingResult) -> None:
    """The validations by step as JSON, and as a picture where matplotlib is installed."""
    history_path = out.with_suffix(".history.json")
    history_path.write_text(json.dumps(result.history, indent=1) + "\n", encoding="utf-8")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    figure = Figure(figsize=(10, 3), layout="constrained")
    names = {
        "missed": "share of the oracle's gain missed",
        "recall": "recall of the oracle's",
        "range": "range, log missed",
    }
    for axes, (key, title) in zip(figure.subplots(1, 3), names.items(), strict=True):
        axes.plot([h["step"] for h in result.history], [h[key] for h in result.history], marker=".")
        axes.axhline(result.history[0][key], color="grey", linestyle=":", label="untrained")
        axes.set(title=title, xlabel="step")
        axes.legend()
    figure.savefig(out.with_suffix(".png"), dpi=120)


def _summary(result: TrainingResult, out: Path) -> str:
    before, after = result.untrained, result.best
    verdict = (
        "better than untrained on the validation laws"
        if result.improved
        else "NOT better than untrained: the untrained weights were written"
    )
    return (
        f"{result.num_steps} steps in {result.minutes:.1f} min ({result.num_skipped} skipped); {verdict}.\n"
        f"           missed  recall   range\n"
        f"untrained  {before.missed:6.4f}  {before.recall:6.4f}  {before.range:6.3f}\n"
        f"written    {after.missed:6.4f}  {after.recall:6.4f}  {after.range:6.3f}\n"
        f"wrote {out} and {card_path(out).name}"
    )


@contextmanager
def _progress(config: PretrainConfig, *, quiet: bool) -> Any:
    """A progress bar where rich and a terminal are at hand, else one line per validation."""
    if quiet:
        yield lambda message: None
        return

    def line(message: dict[str, Any]) -> str:
        loss = f"loss {message['loss']:.4f}  " if "loss" in message else ""
        scores = "  ".join(f"{key} {message[key]:.4f}" for key in ("missed", "recall", "range"))
        return f"step {message['step']:6d}  {loss}{scores}"

    try:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        Progress = None
    if Progress is None or not sys.stdout.isatty():
        yield lambda message: print(line(message), flush=True) if "missed" in message else None
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
            if "missed" in message:
                bar.console.print(line(message))
            else:
                bar.update(
                    task,
                    completed=message["progress"],
                    description=f"step {message['step']}, loss {message['loss']:.3f}",
                )

        yield report


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rangeformer.pretrain",
        description="Train a RangeFormer on structured matrices. Starts at the classical algorithm, validates on laws "
        "and sizes it does not train on, and never writes a model that is worse there than the untrained one.",
    )
    sizes: Callable[[str], tuple[int, ...]] = lambda text: tuple(int(n) for n in text.split(","))  # noqa: E731
    add = parser.add_argument
    add("--config", type=Path, help="JSON file with fields of rangeformer.pretrain.PretrainConfig; options below win")
    add("--steps", type=int, help="largest number of optimiser steps (default 6000)")
    add("--minutes", type=float, help="largest wall time")
    add("--seed", type=int, help="seed of weights and matrices (default 0)")
    add("--batch-size", type=int, help="matrices per step (default 4)")
    add("--sizes", type=sizes, help="matrix sizes, comma-separated (default 256,384,512,768)")
    add("--validation-size", type=int, help="size of the validation matrices (default 800)")
    add("--validate-every", type=int, help="steps between validations (default 250)")
    add("--learning-rate", type=float, help="peak learning rate (default 2e-3)")
    add("--threads", type=int, help="CPU threads")
    add("--out", type=Path, default=Path("rangeformer.safetensors"), help="weights file to write (default %(default)s)")
    add("--quiet", action="store_true", help="print the summary only")
    return parser


if __name__ == "__main__":
    sys.exit(main())
