"""Tables of the low-rank benchmark: summary, by matrix, promises, and where ours loses."""

from collections.abc import Callable, Iterable

import numpy as np

from experiments.sketching_contenders import FEW, named

VIEWS = ("losses", "passes", "defaults", "matrices", "ranks", "promises")
_FLOOR = 1e-6  # excess below is the optimum to all purposes, and has no logarithm worth averaging
_OURS = "rangeformer"
_RIVAL = "sampled-rows"
_GAUSSIAN = "gaussian"


def caption(result: dict, view: str = "") -> str:
    """What the numbers of a view are."""
    num = sum(not case["is_control"] for case in result["cases"])
    state = "trained" if result["trained"] else "the weights untrained: no trained ones are shipped"
    settings = f"{num} real matrices, rank min(40, n/3), {result['config']['num_seeds']} seeds, float64, {state}"
    titles = {
        "losses": "Where ours loses: pairs of a matrix and a setting in which the best of Gaussian and sampled rows is more than 1.05 times better",
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
        "losses": _losses,
        "passes": _passes,
        "defaults": _defaults,
        "matrices": _matrices,
        "ranks": _ranks,
        "promises": _promises,
    }[view or "passes"]
    return table(result)


def points(rows: list[dict]) -> list[dict]:
    """For pictures: every method's mean passes, excess and seconds over Gaussian's, on the real matrices at full rank."""
    real = [row for row in rows if row["fraction"] == 1 and row["case"] != "haar"]
    base = _by_case(real, _GAUSSIAN, "seconds")
    found = []
    for method in dict.fromkeys(row["method"] for row in real):
        own = [row for row in real if row["method"] == method]
        times = _by_case(real, method, "seconds")
        found.append(
            {
                "method": method,
                "family": own[0]["family"],
                "setting": own[0]["setting"],
                "passes": float(np.mean([row["passes"] + row["entries"] for row in own])),
                "excess": _geometric(_by_case(real, method, "excess").values()),
                "time": _geometric(times[name] / base[name] for name in times),
            }
        )
    return found


def _losses(result: dict) -> tuple[list[str], list[list[str]]]:
    rows = []
    real = _real(result)
    for setting in (FEW, "0", "1", "2"):
        ours, rival = (_by_case(real, named(family, setting), "excess") for family in (_OURS, _RIVAL))
        gaussian = _by_case(real, named(_GAUSSIAN, "0" if setting == FEW else setting), "excess")
        for name in ours:
            best = max(min(rival[name], gaussian[name]), _FLOOR)
            if ours[name] > 1.05 * best:
                ratio = ours[name] / best
                rows.append(
                    [
                        f"{name}, {_said(setting)}",
                        *map(_number, (ours[name], rival[name], gaussian[name])),
                        f"{ratio:.2f}",
                    ]
                )
    rows.sort(key=lambda row: -float(row[-1]))
    return ["", "ours", "sampled rows", "Gaussian", "ours over the best"], rows


def _passes(result: dict) -> tuple[list[str], list[list[str]]]:
    real = _real(result)
    summary = {point["method"]: point for point in points(result["rows"])}
    base = _by_case(real, _GAUSSIAN, "excess")
    rows = []
    for method, point in summary.items():
        if point["setting"] in ("default", "auto"):
            continue
        own = _by_case(real, method, "excess")
        ratio = _geometric(max(own[name], _FLOOR) / max(base[name], _FLOOR) for name in own)
        rows.append(
            [method, f"{point['passes']:.2f}", _number(point["excess"]), f"{ratio:.3f}", f"{point['time']:.2f}"]
        )
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
            _number(point["excess"]),
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
    columns = [_OURS, "rangeformer-untrained", _RIVAL, _GAUSSIAN, "sparse-sign", named(_OURS, FEW)]
    everything = [row for row in result["rows"] if row["fraction"] == 1]
    tables = [_by_case(everything, column, "excess") for column in columns]
    rows = [
        [
            f"{case['name']}, {case['shape'][0]:,} x {case['shape'][1]:,}",
            *(_number(table[case["name"]]) for table in tables),
        ]
        for case in result["cases"]
    ]
    return ["", "ours", "untrained", "sampled rows", "Gaussian", "sparse sign", "ours, 24 rows"], rows


def _ranks(result: dict) -> tuple[list[str], list[list[str]]]:
    names = {case["name"] for case in result["cases"] if not case["is_control"]}
    fractions = sorted({row["fraction"] for row in result["rows"]})
    rows = []
    for method in (_OURS, "rangeformer-untrained", _RIVAL, _GAUSSIAN, "sparse-sign"):
        cells = []
        for fraction in fractions:
            own = [row for row in result["rows"] if row["fraction"] == fraction and row["case"] in names]
            cells.append(_number(_geometric(_by_case(own, method, "excess").values())))
        rows.append([method, *cells])
    return ["", *(f"{fraction:g} of the full rank" for fraction in fractions)], rows


def _promises(result: dict) -> tuple[list[str], list[list[str]]]:
    real = [row for row in result["rows"] if row["case"] != "haar" and row["family"] == _OURS]
    ratios = np.array([row["estimate"] / row["error"] for row in real if row["error"] > 1e-12])
    inside = np.mean(np.maximum(ratios, 1 / ratios) <= 1.5)
    asked = result["tolerances"]
    true = np.mean([row["met"] or not row["said"] for row in asked])
    reachable = [row for row in asked if row["factor"] > 1]
    control = [row for row in result["rows"] if row["case"] == "haar" and row["fraction"] == 1]
    ours, rival, gaussian = (_by_case(control, name, "excess").get("haar", 0.0) for name in (_OURS, _RIVAL, _GAUSSIAN))
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
    large = _time_on_large(result)
    return ["", "measured"], rows + large


def _time_on_large(result: dict) -> list[list[str]]:
    rows = []
    for case in result["cases"]:
        if min(case["shape"]) < 2000:
            continue
        own = [row for row in result["rows"] if row["case"] == case["name"] and row["fraction"] == 1]
        size = " x ".join(map(str, case["shape"]))
        for count in (0, 1):
            ours, gaussian = (_by_case(own, named(x, str(count)), "seconds")[case["name"]] for x in (_OURS, _GAUSSIAN))
            rows.append(
                [f"{case['name']}, {size}, {2 + 2 * count} passes: time over Gaussian's", f"{ours / gaussian:.2f}"]
            )
    return rows


def _real(result: dict) -> list[dict]:
    names = {case["name"] for case in result["cases"] if not case["is_control"]}
    return [row for row in result["rows"] if row["fraction"] == 1 and row["case"] in names]


def _by_case(rows: list[dict], method: str, key: str) -> dict[str, float]:
    """Least of the times over seeds (the machine may be busy), means of the rest, by matrix."""
    values: dict[str, list[float]] = {}
    for row in rows:
        if row["method"] == method:
            values.setdefault(row["case"], []).append(row[key])
    mean = np.min if key == "seconds" else np.mean
    return {name: float(mean(found)) for name, found in values.items()}


def _geometric(values: Iterable[float]) -> float:
    return float(np.exp(np.mean(np.log(np.maximum(list(values), _FLOOR)))))


def _said(setting: str) -> str:
    return f"{FEW}, 2 passes" if setting == FEW else f"{2 + 2 * int(setting)} passes"


def _number(value: float) -> str:
    return f"{value:.4f}" if value >= 1e-4 else f"{value:.0e}"
