"""What every table of the low-rank benchmark does with its rows: choose, average over seeds, average over matrices, write."""

from collections.abc import Iterable

import numpy as np

from experiments.sketching_contenders import FEW

FLOOR = 1e-6
"""Excess below is the optimum to all purposes, and has no logarithm worth averaging."""
OURS, UNTRAINED, RIVAL, GAUSSIAN = "rangeformer", "rangeformer-untrained", "sampled-rows", "gaussian"


def real(result: dict) -> list[dict]:
    """Rows of real matrices at full rank."""
    names = {case["name"] for case in result["cases"] if not case["is_control"]}
    return [row for row in result["rows"] if row["fraction"] == 1 and row["case"] in names]


def by_case(rows: list[dict], method: str, key: str) -> dict[str, float]:
    """Least of the times over seeds (the machine may be busy), means of the rest, by matrix."""
    values: dict[str, list[float]] = {}
    for row in rows:
        if row["method"] == method:
            values.setdefault(row["case"], []).append(row[key])
    mean = np.min if key == "seconds" else np.mean
    return {name: float(mean(found)) for name, found in values.items()}


def geometric(values: Iterable[float]) -> float:
    """Mean, none counted below `FLOOR`."""
    return float(np.exp(np.mean(np.log(np.maximum(list(values), FLOOR)))))


def said(setting: str) -> str:
    """A setting in words."""
    return f"{FEW}, 2 passes" if setting == FEW else f"{2 + 2 * int(setting)} passes"


def number(value: float) -> str:
    """Four digits behind the point while they mean something."""
    return f"{value:.4f}" if value >= 1e-4 else f"{value:.0e}"
