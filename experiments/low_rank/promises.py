"""What the low-rank benchmark was to show beside what it shows: also error estimates, tolerances, negative control."""

import numpy as np

from experiments.low_rank.contenders import FEW, named
from experiments.low_rank.rows import FLOOR, GAUSSIAN, OURS, RIVAL, UNTRAINED, by_case, deviations, geometric, real

_OVER_GAUSSIAN = {FEW: 0.30, "0": 0.14}
_OVER_RIVAL, _OVER_UNTRAINED, _OVER_BEST = 0.85, 0.9, 1.05


def bars(result: dict) -> tuple[list[str], list[list[str]]]:
    """Ratios of excess errors with two passes, when 24 rows are read beforehand and by default."""
    columns = [_ratios(result, setting) for setting in (FEW, "0")]
    rows = [
        [label, *(cell for column in columns for cell in (column[label][0], f"{column[label][1]:g}"))]
        for label in columns[0]
    ]
    return ["ours over", f"reads {FEW}", "to be at most", "default reads", "to be at most"], rows


def _ratios(result: dict, setting: str) -> dict[str, tuple[str, float]]:
    measured = real(result)
    ours, untrained, rival = (by_case(measured, named(x, setting), "excess") for x in (OURS, UNTRAINED, RIVAL))
    gaussian = by_case(measured, GAUSSIAN, "excess")
    best = {name: min(rival[name], gaussian[name]) for name in rival}
    over_best = {name: max(ours[name], FLOOR) / max(best[name], FLOOR) for name in ours}
    worst = max(over_best, key=lambda name: over_best[name])
    found = {
        "Gaussian": (_mean_ratio(ours, gaussian), _OVER_GAUSSIAN[setting]),
        "sampled rows at equal reads": (_mean_ratio(ours, rival), _OVER_RIVAL),
    }
    if result["trained"]:
        found["itself untrained"] = (_mean_ratio(ours, untrained), _OVER_UNTRAINED)
    found["the better of Gaussian and sampled rows, worst matrix"] = (
        f"{over_best[worst]:.2f} ({worst})",
        _OVER_BEST,
    )
    above = [name for name in ours if over_best[name] > _OVER_BEST]
    over_rival, over_gaussian = (
        deviations(measured, named(OURS, setting), name) for name in (named(RIVAL, setting), GAUSSIAN)
    )
    clear = sum((over_rival if rival[name] <= gaussian[name] else over_gaussian)[name] > 2 for name in above)
    found[f"the better of both, matrices of {len(ours)} beyond 1.05"] = (
        f"{len(above)}, {clear} by 2 standard errors",
        0,
    )
    return found


def _mean_ratio(ours: dict[str, float], others: dict[str, float]) -> str:
    return f"{geometric(max(ours[name], FLOOR) / max(others[name], FLOOR) for name in ours):.3f}"


def promises(result: dict) -> tuple[list[str], list[list[str]]]:
    """Error estimates, tolerances and the control."""
    own = [row for row in result["rows"] if row["case"] != "haar" and row["family"] == OURS]
    ratios = np.array([row["estimate"] / row["error"] for row in own if row["error"] > 1e-12])
    inside = np.mean(np.maximum(ratios, 1 / ratios) <= 1.5)
    asked = result["tolerances"]
    true = np.mean([row["met"] or not row["said"] for row in asked])
    reachable = [row for row in asked if row["factor"] > 1]
    control = [row for row in result["rows"] if row["case"] == "haar" and row["fraction"] == 1]
    ours, rival, gaussian = (by_case(control, name, "excess").get("haar", 0.0) for name in (OURS, RIVAL, GAUSSIAN))
    rows = [
        ["error estimates of ours within 1.5 times the truth", f"{100 * inside:.1f} % of {len(ratios)}"],
        ["the worst of them, over the truth", f"{ratios[np.abs(np.log(ratios)).argmax()]:.2f}"],
        ["tolerances met, or said not to be", f"{100 * true:.1f} % of {len(asked)}"],
        [
            "tolerances that a rank-r can meet, met",
            f"{100 * np.mean([row['met'] for row in reachable]):.1f} % of {len(reachable)}",
        ],
        ["Haar control, two passes: excess of ours over sampled rows' at equal reads", f"{ours / rival:.3f}"],
        ["Haar control, two passes: excess of ours over Gaussian's", f"{ours / gaussian:.3f}"],
    ]
    return ["", "measured"], rows
