"""Views of LAWT that need no model (encodings, rounding ceilings, trivial answers), and how all views are made."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rangeformer.baselines.lawt import ENCODINGS, TASKS, Scores, Source, Vocabulary, draw_problems, rounding_ceiling
from rangeformer.baselines.lawt.metrics import TOLERANCES, checks, errors, trivial_answers

Row = dict[str, Any]
RIGHT = {f"right_{t:g}": f"{100 * t:g} %" for t in TOLERANCES}
CONDITIONING = {**RIGHT, "passed": "median cond, right", "failed": "median cond, wrong", "predicted": "told by cond"}
_CEILING_SIZE = 5


@dataclass(frozen=True)
class Budget:
    """How much to measure.

    Attributes:
        num_test: Fresh test examples of every model and distribution.
        num_ceiling: Examples of every rounding ceiling.
    """

    num_test: int
    num_ceiling: int


def encoding_views(budget: Budget) -> dict[str, Any]:
    """Sizes of the encodings, and the ceilings of every task in each."""
    n = _CEILING_SIZE
    sizes: list[Row] = []
    for name in ENCODINGS:
        vocabulary = Vocabulary(name)
        lengths = {
            "matrix": vocabulary.length((n, n), vocabulary.input),
            "eigenvalues": vocabulary.length(TASKS["eigenvalues"].output_shape(n, n), vocabulary.output),
            "svd": vocabulary.length(TASKS["svd"].output_shape(n, n), vocabulary.output),
        }
        sizes.append({"label": name, "vocabulary": vocabulary.size, "tokens": vocabulary.input.width, **lengths})
    titles = {"vocabulary": "vocabulary", "tokens": "tokens a number", "matrix": f"{n} x {n} matrix"}
    titles |= {"eigenvalues": "its eigenvalues", "svd": "its SVD"}
    caption = (
        f"Exact answers of {n} x {n} problems, rounded: share right; {budget.num_ceiling:,} examples, all right if "
        "not named"
    )
    return {
        "sizes": view(
            "Vocabularies with the common symbols, and lengths of sequences with both boundaries", titles, sizes
        ),
        "ceilings": view(caption, RIGHT, _ceilings(n, budget.num_ceiling)),
    }


def _ceilings(n: int, count: int) -> list[Row]:
    """One line for each task whose exact answers, rounded, are not all right.

    Encodings with equal shares on one line.
    """
    rows = []
    for task in TASKS:
        by_shares: dict[tuple[float, ...], list[str]] = {}
        for name in ENCODINGS:
            found = shares(rounding_ceiling(task, n, encodings=(name, name), count=count))
            by_shares.setdefault(tuple(found.values()), []).append(name)
        for values, names in by_shares.items():
            where = "" if len(names) == len(ENCODINGS) else f", {', '.join(names)}"
            rows.append({"label": task.replace("_", " ") + where, **dict(zip(RIGHT, values, strict=True))})
    return [row for row in rows if row["right_0.005"] < 1]


def error_views(budget: Budget) -> dict[str, Any]:
    """The true inverse by size and number of digits, and trivial answers in the paper's error."""
    count = budget.num_ceiling
    inverses = [
        {
            "label": f"{n} x {n}, {digits} digits",
            **by_condition(rounding_ceiling("inversion", n, digits=digits, count=count)),
        }
        for n, digits in ((3, 3), (5, 3), (8, 3), (5, 2), (5, 4), (5, 5), (5, 6))
    ]
    trivial = []
    for task in ("eigenvectors", "svd"):
        [group] = draw_problems(Source(tasks=(task,), rows=(5, 5)), count, torch.Generator().manual_seed(0))
        for name, predicted in trivial_answers(task, group.input).items():
            arguments = (task, predicted, group.output, group.input, group.shape)
            row = {"label": f"{task}: {name}", "right_0.05": share(errors(*arguments) < 0.05)}
            trivial.append(row | {key: share(value < 0.05) for key, value in checks(*arguments).items()})
    titles = {"right_0.05": "right at 5 %", **_check_titles(trivial)}
    return {
        "inverse": view(
            f"The true inverse, rounded: share right, and conditioning; {count:,} examples", CONDITIONING, inverses
        ),
        "trivial": view("Answers that are no solution: share below 5 %, n = 5", titles, trivial),
    }


def checks_view(caption: str, found: Sequence[tuple[str, Scores]]) -> dict[str, Any]:
    rows = [{"label": label, **_hidden(scores)} for label, scores in found]
    titles = {"right_0.05": "right at 5 %", "all": "and all checks below 5 %", **_check_titles(rows)}
    return view(caption, titles, rows)


def view(caption: str, titles: dict[str, str], rows: list[Row]) -> dict[str, Any]:
    return {"caption": caption, "columns": titles, "rows": rows}


def by_condition(scores: Scores) -> Row:
    """Shares right, and what conditioning tells about it.

    Medians, and how often the best threshold says right or wrong.
    """
    right, condition = scores.error < 0.05, scores.checks["condition"]
    ordered = right[condition.argsort()].double()
    # a threshold after the k best conditioned is right about those of them that passed and the others that failed
    agrees = torch.cat([ordered.new_zeros(1), (2 * ordered - 1).cumsum(0)]) + (1 - ordered).sum()
    medians = {"passed": condition[right], "failed": condition[~right]}
    return {
        **shares(scores),
        **{key: float(values.median()) if len(values) else None for key, values in medians.items()},
        "predicted": float(agrees.max() / len(right)),
    }


def _hidden(scores: Scores) -> Row:
    """Shares of the checks below 5 %, each by itself and all with the paper's error."""
    right = scores.error < 0.05
    each = {name: value < 0.05 for name, value in scores.checks.items() if name != "condition"}
    together = right
    for passed in each.values():
        together = together & passed
    return {"right_0.05": share(right), "all": share(together), **{name: share(x) for name, x in each.items()}}


def _check_titles(rows: list[Row]) -> dict[str, str]:
    known = ("orthogonality", "values", "residual", "distance")
    return {name: name for name in known if any(name in row for row in rows)}


def shares(scores: Scores) -> Row:
    return {f"right_{tolerance:g}": scores.right(tolerance) for tolerance in TOLERANCES}


def share(which: torch.Tensor) -> float:
    return which.double().mean().item()
