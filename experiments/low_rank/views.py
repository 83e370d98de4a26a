"""Tables of the low-rank benchmark: summary, by matrix, promises, and where ours loses."""

from collections.abc import Callable

import numpy as np

from experiments.low_rank.contenders import FEW, SKETCHES, named
from experiments.low_rank.promises import bars, promises
from experiments.low_rank.rows import (
    FLOOR,
    GAUSSIAN,
    OURS,
    RIVAL,
    UNTRAINED,
    by_case,
    geometric,
    losses,
    number,
    real,
    said,
)

VIEWS = ("bars", "losses", "passes", "defaults", "matrices", "ranks", "promises")


def caption(result: dict, view: str = "") -> str:
    """What the numbers of a view are."""
    num = sum(not case["is_control"] for case in result["cases"])
    state = "trained" if result["trained"] else "the weights untrained: no trained ones are shipped"
    settings = f"{num} real matrices, rank min(40, n/3), {result['config']['num_seeds']} seeds, float64, {state}"
    titles = {
        "bars": "Two passes, geometric means over matrices of ratios of excess errors, and what was to be reached",
        "losses": "Where ours loses: pairs of a matrix and a setting in which the best of Gaussian and sampled rows "
        "is more than 1.05 times better",
        "passes": "Equal passes: geometric means of excess error over the best rank-r",
        "defaults": "Everybody's defaults",
        "matrices": "Excess error over the best rank-r, two passes, default reads (last column: 24 rows)",
        "ranks": "Excess error by rank, two passes, default reads",
        "promises": "Promises and controls",
    }
    return f"{titles[view or 'passes']}; {settings}"


def comparison(result: dict, view: str = "") -> tuple[list[str], list[list[str]]]:
    """Header and rows of a view."""
    table: Callable[[dict], tuple[list[str], list[list[str]]]] = {
        "bars": bars,
        "losses": _losses,
        "passes": _passes,
        "defaults": _defaults,
        "matrices": _matrices,
        "ranks": _ranks,
        "promises": promises,
    }[view or "passes"]
    return table(result)


def points(rows: list[dict]) -> list[dict]:
    """For pictures: every method's mean passes, excess and seconds over Gaussian's, real matrices at full rank."""
    chosen = [row for row in rows if row["fraction"] == 1 and row["case"] != "haar"]
    base = by_case(chosen, GAUSSIAN, "seconds")
    found = []
    for method in dict.fromkeys(row["method"] for row in chosen):
        own = [row for row in chosen if row["method"] == method]
        times = by_case(chosen, method, "seconds")
        found.append(
            {
                "method": method,
                "family": own[0]["family"],
                "setting": own[0]["setting"],
                "passes": float(np.mean([row["passes"] + row["entries"] for row in own])),
                "excess": geometric(by_case(chosen, method, "excess").values()),
                "time": geometric(times[name] / base[name] for name in times),
            }
        )
    return found


def _losses(result: dict) -> tuple[list[str], list[list[str]]]:
    again = {(row["case"], row["setting"]): row for row in result["again"]}
    found = sorted(losses(real(result)), key=lambda loss: -loss.ratio)
    rows = []
    for loss in found:
        more = again[loss.case, loss.setting]
        interval = f"{more['ratio']:.2f} +- {more['standard_error']:.2f}"
        excesses = map(number, loss.excesses)
        rows.append([f"{loss.case}, {said(loss.setting)}", *excesses, f"{loss.ratio:.2f}", interval])
    header = ["", "ours", "sampled rows", "Gaussian", "ours over the best"]
    return [*header, f"with {result['config']['num_more_seeds']} other seeds"], rows


def _passes(result: dict) -> tuple[list[str], list[list[str]]]:
    measured = real(result)
    summary = {point["method"]: point for point in points(result["rows"])}
    base = by_case(measured, GAUSSIAN, "excess")
    rows = []
    for method, point in summary.items():
        if point["setting"] in ("default", "auto"):
            continue
        own = by_case(measured, method, "excess")
        ratio = geometric(max(own[name], FLOOR) / max(base[name], FLOOR) for name in own)
        rows.append([method, f"{point['passes']:.2f}", number(point["excess"]), f"{ratio:.3f}", f"{point['time']:.2f}"])
    return ["", "passes, with rows read", "excess", "over Gaussian's", "time over Gaussian's"], rows


def _defaults(result: dict) -> tuple[list[str], list[list[str]]]:
    chosen = [point for point in points(result["rows"]) if point["setting"] in ("default", "auto")]
    if not chosen:
        return [""], []
    scikit = next(point for point in chosen if point["method"] == "scikit-learn randomized_svd")
    rows = [
        [
            point["method"],
            f"{point['passes']:.1f}",
            number(point["excess"]),
            f"{point['time']:.2f}",
            f"{point['time'] / scikit['time']:.2f}",
        ]
        for point in chosen
    ]
    return [
        "",
        "passes, with rows read",
        "excess",
        "time over Gaussian's of two passes",
        "time over scikit-learn's",
    ], rows


def _matrices(result: dict) -> tuple[list[str], list[list[str]]]:
    columns = [OURS, UNTRAINED, RIVAL, GAUSSIAN, "sparse-sign", named(OURS, FEW)]
    everything = [row for row in result["rows"] if row["fraction"] == 1]
    tables = [by_case(everything, column, "excess") for column in columns]
    rows = [
        [
            f"{case['name']}, {case['shape'][0]:,} x {case['shape'][1]:,}",
            *(number(table[case["name"]]) for table in tables),
        ]
        for case in result["cases"]
    ]
    return ["", "ours", "untrained", "sampled rows", "Gaussian", "sparse sign", "ours, 24 rows"], rows


def _ranks(result: dict) -> tuple[list[str], list[list[str]]]:
    names = {case["name"] for case in result["cases"] if not case["is_control"]}
    fractions = sorted({row["fraction"] for row in result["rows"]})
    rows = []
    for method in SKETCHES:
        cells = []
        for fraction in fractions:
            own = [row for row in result["rows"] if row["fraction"] == fraction and row["case"] in names]
            cells.append(number(geometric(by_case(own, method, "excess").values())))
        rows.append([method, *cells])
    return ["", *(f"{fraction:g} of the full rank" for fraction in fractions)], rows
