"""The learning curves of a run, as JSON and as a picture."""

import json
import math
from pathlib import Path
from typing import Any

from rangeformer.models.checkpoint import write_atomically
from rangeformer.pretrain.card import plain_history
from rangeformer.pretrain.plan import Plan
from rangeformer.pretrain.trainer import TrainingResult

_MAX_COLUMNS = 4


def write_curves(out: Path, plan: Plan, result: TrainingResult) -> None:
    """Write `<out>.history.json`, and `<out>.png` where matplotlib is installed."""
    history = plain_history(result)
    write_atomically(out.with_suffix(".history.json"), (json.dumps(history, indent=1) + "\n").encode())
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    keys = [*(["loss"] if "loss" in history[-1] else []), *result.record.untrained]
    num_columns = min(len(keys), _MAX_COLUMNS)
    num_rows = math.ceil(len(keys) / num_columns)
    figure = Figure(figsize=(3.4 * num_columns, 3 * num_rows), layout="constrained")
    panels = figure.subplots(num_rows, num_columns, squeeze=False).flatten()
    for axes, key in zip(panels, keys, strict=False):
        _panel(axes, key, history, plan.task.figure_titles.get(key, key.replace("_", " ")))
    for axes in panels[len(keys) :]:
        axes.set_visible(False)
    figure.savefig(out.with_suffix(".png"), dpi=120)


def _panel(axes: Any, key: str, history: list[dict[str, Any]], title: str) -> None:
    """One quantity by step; what spans decades on a logarithmic axis."""
    rows = [row for row in history if row.get(key) is not None]
    values = [row[key] for row in rows]
    axes.plot([row["step"] for row in rows], values, marker=".")
    if rows and rows[0]["step"] == 0:
        axes.axhline(values[0], color="grey", linestyle=":", label="untrained")
        axes.legend()
    if values and min(values) > 0 and max(values) > 20 * min(values):
        axes.set_yscale("log")
    axes.set(title=title, xlabel="step")
