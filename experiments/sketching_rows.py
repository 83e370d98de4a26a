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


def deviations(rows: list[dict], method: str, other: str) -> dict[str, float]:
    """By how many standard errors a method's mean excess is above another's, by matrix; 0 where seeds are too few to say."""
    found = {}
    for case in dict.fromkeys(row["case"] for row in rows):
        ours, theirs = (
            [row["excess"] for row in rows if row["case"] == case and row["method"] == name] for name in (method, other)
        )
        if min(len(ours), len(theirs)) < 2:
            found[case] = 0.0
            continue
        error = np.sqrt(np.var(ours, ddof=1) / len(ours) + np.var(theirs, ddof=1) / len(theirs))
        found[case] = float((np.mean(ours) - np.mean(theirs)) / max(error, np.finfo(float).tiny))
    return found


def geometric(values: Iterable[float]) -> float:
    """Mean, none counted below `FLOOR`."""
    return float(np.exp(np.mean(np.log(np.maximum(list(values), FLOOR)))))


def said(setting: str) -> str:
    """A setting in words."""
    return f"{FEW}, 2 passes" if setting == FEW else f"{2 + 2 * int(setting)} passes"


def number(value: float) -> str:
    """Four digits behind the point while they mean something."""
    return f"{value:.4f}" if value >= 1e-4 else f"{value:.0e}"
