"""What every table of the low-rank benchmark does with its rows.

Choose, average over seeds, average over matrices, write.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from experiments.low_rank.contenders import FEW, named

FLOOR = 1e-6
"""Excess below is the optimum to all purposes, and has no logarithm worth averaging."""
WORSE = 1.05
"""Times the better rival's excess that is a loss."""
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


@dataclass(frozen=True)
class Loss:
    """A matrix and a setting in which ours came out more than five per cent farther off than the better rival.

    Attributes:
        case: The matrix.
        setting: What was equal.
        methods: Ours, sampled rows and Gaussian.
        excesses: Theirs, means over seeds.
    """

    case: str
    setting: str
    methods: tuple[str, str, str]
    excesses: tuple[float, float, float]

    @property
    def rival(self) -> str:
        """The better of the two."""
        return self.methods[1] if self.excesses[1] <= self.excesses[2] else self.methods[2]

    @property
    def ratio(self) -> float:
        """Ours over the better rival's."""
        return self.excesses[0] / max(min(self.excesses[1:]), FLOOR)


def losses(measured: list[dict]) -> list[Loss]:
    """All of them at equal passes, in rows of real matrices at full rank."""
    found = []
    for setting in (FEW, "0", "1", "2"):
        gaussian = named(GAUSSIAN, "0" if setting == FEW else setting)
        methods = (named(OURS, setting), named(RIVAL, setting), gaussian)
        tables = [by_case(measured, method, "excess") for method in methods]
        for case in tables[0]:
            loss = Loss(case, setting, methods, (tables[0][case], tables[1][case], tables[2][case]))
            if loss.ratio > WORSE:
                found.append(loss)
    return found


def deviations(rows: list[dict], method: str, other: str) -> dict[str, float]:
    """By how many standard errors a method's mean excess is above another's, by matrix.

    0 where seeds are too few to say.
    """
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
