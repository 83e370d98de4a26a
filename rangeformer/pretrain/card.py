"""What the card of a trained checkpoint says of its training."""

import math
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from rangeformer.pretrain.plan import Plan
from rangeformer.pretrain.trainer import TrainingResult


def make_card(plan: Plan, result: TrainingResult) -> dict[str, Any]:
    """Configuration, distributions, validation untrained and trained, history, run, versions; for `checkpoint.save`."""
    record = result.record
    said = plan.task.card()
    return {
        "seed": plan.run.seed,
        "training": plan.as_fields(),
        **{key: value for key, value in said.items() if key != "meaning"},
        "improved_over_untrained": record.improved,
        "validation": {
            **({"meaning": said["meaning"]} if "meaning" in said else {}),
            "objective": plan.task.objective,
            "untrained": _plain(record.untrained),
            "trained": _plain(record.best),
            "table": [
                _side_by_side(before, after, set(record.best))
                for before, after in zip(record.untrained_table, record.best_table, strict=True)
            ],
        },
        "history": plain_history(result),
        "run": {
            "num_steps": record.step,
            "num_skipped": record.num_skipped,
            "minutes": round(record.minutes, 2),
            "num_threads": torch.get_num_threads(),
            "num_processes": result.num_processes,
            "device": plan.run.device,
            "device_name": torch.cuda.get_device_name() if plan.run.device.startswith("cuda") else platform.machine(),
        },
        "versions": {"torch": torch.__version__, "python": platform.python_version(), "machine": platform.machine()},
        "commit": _commit(),
    }


def plain_history(result: TrainingResult) -> list[dict[str, Any]]:
    """The history as JSON has it, to five digits."""
    return [_plain(row, digits=5) for row in result.record.history]


def _side_by_side(before: dict[str, Any], after: dict[str, Any], figures: set[str]) -> dict[str, Any]:
    """One row of the table: what describes the case once, what was measured untrained and trained."""
    measured = {key for key in after if key in figures or before.get(key) != after[key]}
    sides = [_plain({k: v for k, v in row.items() if k in measured}, digits=4) for row in (before, after)]
    described = _plain({k: v for k, v in after.items() if k not in measured}, digits=4)
    return {**described, "untrained": sides[0], "trained": sides[1]}


def _plain(row: dict[str, Any], digits: int | None = None) -> dict[str, Any]:
    """JSON has no NaN and no infinity: null, as in "there is no number"."""

    def plain(value: Any) -> Any:
        if not isinstance(value, float):
            return value
        if not math.isfinite(value):
            return None
        return value if digits is None else float(f"{value:.{digits}g}")

    return {key: plain(value) for key, value in row.items()}


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
