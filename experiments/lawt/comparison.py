"""Charton's "Linear algebra with transformers": what it learns, and where it breaks.

    python -m experiments.lawt.comparison --table ceilings | encodings | tasks | ood | noise | loops | beginnings |
    failure --scale smoke | cpu | gpu

Models that a table needs are trained by the training program and kept in `--weights`, where later tables, and the next
call after an interruption, find them; `ceilings` needs none. Scale cpu takes small models and matrices, gpu the paper's
settings.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from experiments.common import environment
from experiments.common.options import option, parse
from experiments.common.reporting import say, show_table, write_json
from experiments.lawt import pictures as lawt_pictures
from experiments.lawt.measure import MEASURES, Budget
from experiments.lawt.runs import SCALES, Trained, get, runs_of

BUDGETS = {"smoke": Budget(16, 200), "cpu": Budget(2000, 10_000), "gpu": Budget(10_000, 10_000)}


@dataclass(frozen=True)
class Config:
    """One table of LAWT: trains what it needs, measures, writes JSON and a picture."""

    table: str = option("tasks", "what to measure", tuple(MEASURES))
    scale: str = option("smoke", "how large the models and matrices are", SCALES)
    weights: Path | None = option(None, "folder of the checkpoints; default: lawt-<scale> in --output")
    threads: int | None = option(None, "CPU threads of training")
    output: Path = option(Path("results"), "folder of the JSON file and the picture")

    @property
    def folder(self) -> Path:
        """Where the checkpoints are."""
        return self.output / f"lawt-{self.scale}" if self.weights is None else self.weights


def main(config: Config) -> dict:
    """Train what is missing, measure, show, write, and return what was written."""
    environment.prepare()
    device = torch.device("cuda" if config.scale == "gpu" else "cpu")
    trained = [
        get(run, config.folder, threads=config.threads, device=device.type)
        for run in runs_of(config.table, config.scale)
    ]
    for one in trained:
        one.model.to(device)
    result = {
        "kind": f"lawt-{config.table}",
        "config": {key: value for key, value in asdict(config).items() if key in ("table", "scale")},
        "environment": environment.describe(device),
        "runs": {one.run.label: _said(one) for one in trained},
        "views": MEASURES[config.table](trained, BUDGETS[config.scale]),
    }
    for view in result["views"]:
        show_table(caption(result, view), *comparison(result, view))
    path = config.output / f"lawt_{config.table}.json"
    write_json(path, result, compact=True)
    lawt_pictures.draw(path.with_suffix(".png"), result)
    say(f"wrote {path} and {path.with_suffix('.png')}")
    return result


def _said(one: Trained) -> dict:
    """What a reader needs to know of a training."""
    return {
        "checkpoint": one.run.name,
        "config": one.run.config,
        "changes": one.run.changes,
        "sha256": one.card["sha256"],
        "run": one.card["run"],
        "curve": one.curve,
    }


def comparison(result: dict, view: str = "") -> tuple[list[str], list[list[str]]]:
    """Header and rows of one view; shares are percentages."""
    shown = result["views"][view or "trained"]
    rows = [[row["label"], *(_text(row.get(key), key) for key in shown["columns"])] for row in shown["rows"]]
    return ["", *shown["columns"].values()], rows


def caption(result: dict, view: str = "") -> str:
    """What the numbers are."""
    return result["views"][view or "trained"]["caption"]


def _text(value: float | None, key: str) -> str:
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    if key in ("minutes", "passed", "failed"):
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{100 * value:.1f}"


if __name__ == "__main__":
    main(parse(Config))
