"""Tables of the comparison: who reached what at which price.

The best of ours over the best of the others, and where ours loses.
"""

from collections.abc import Callable, Sequence

from experiments.common.environment import CLOCKS
from experiments.common.measures import error_text
from experiments.common.reporting import duration

VIEWS = ("losses", "solve-1", "solve-16", "eigenpairs", "logdet", "ratios")
TARGET = 1e-6  # of solves and eigenpairs
LOGDET_TARGET = 1e-3  # nats a row
SLACK = 2.0  # a recursive residual may fall a little further than the true one
_PROBLEMS = {
    "solve-1": "one right-hand side",
    "solve-16": "16 right-hand sides",
    "eigenpairs": "10 leading eigenpairs",
    "logdet": "log-determinant",
}
Rows = tuple[list[str], list[list[str]]]


def caption(result: dict, view: str = "") -> str:
    """What the numbers of a view are."""
    reached = f"passes and, in brackets, seconds with set-up to a relative residual of {TARGET:g}, recomputed"
    titles = {
        "losses": "Where the best of ours takes longer than the best other iteration, or than Cholesky",
        "solve-1": f"One right-hand side: {reached}",
        "solve-16": f"16 right-hand sides: {reached}",
        "eigenpairs": f"10 leading eigenpairs: matvecs and, in brackets, seconds to {TARGET:g} of the largest "
        "eigenvalue",
        "logdet": "Log-determinant: error in nats a row, root mean square over seeds, and, in brackets, matvecs and "
        "seconds",
        "ratios": f"Seconds to {TARGET:g} (log-determinant: {LOGDET_TARGET:g} nats a row), set-up included",
    }
    config = result["config"]
    clock = CLOCKS[result["clock"]]
    return f"{titles[view or 'ratios']}; {config['dtype']}, {config['device']}, seed {config['seed']}, {clock}"


def comparison(result: dict, view: str = "") -> Rows:
    """Header and rows of a view."""
    table: Callable[[dict], Rows] = {
        "losses": lambda found: _ratios(found, lost=True),
        "solve-1": lambda found: _reached(found, "solve-1", "passes"),
        "solve-16": lambda found: _reached(found, "solve-16", "passes"),
        "eigenpairs": lambda found: _reached(found, "eigenpairs", "matvecs"),
        "logdet": _logdets,
        "ratios": _ratios,
    }[view or "ratios"]
    return table(result)


def cheapest(points: Sequence[dict], problem: str, currency: str = "seconds") -> dict | None:
    """The point of least cost among those that reach the problem's target, None if none does."""
    target = LOGDET_TARGET if problem == "logdet" else SLACK * TARGET
    reached = [point for point in points if point["error"] is not None and point["error"] <= target]
    return min(reached, key=lambda point: point[currency], default=None)


def _rows_of(result: dict, problem: str) -> list[dict]:
    return [row for row in result["rows"] if row["problem"] == problem]


def _reached(result: dict, problem: str, currency: str) -> Rows:
    rows = _rows_of(result, problem)
    cases, labels = ([*dict.fromkeys(row[key] for row in rows)] for key in ("case", "method"))
    found = {(row["case"], row["method"]): row for row in rows}

    def cell(case: str, label: str) -> str:
        if (case, label) not in found:
            return ""
        row = found[case, label]
        point = cheapest(row["points"], problem)
        if point is None:
            return "not reached"
        count = "-" if row["is_exact"] else f"{point[currency]:,}"
        return f"{count} ({duration(point['seconds'])})"

    return ["", *cases], [[label, *(cell(case, label) for case in cases)] for label in labels]


def _logdets(result: dict) -> Rows:
    rows = _rows_of(result, "logdet")
    cases = [*dict.fromkeys(row["case"] for row in rows)]
    found = {(row["case"], row["method"], str(point["setting"])): point for row in rows for point in row["points"]}
    lines = {(row["method"], str(point["setting"])): row["is_exact"] for row in rows for point in row["points"]}

    def cell(case: str, line: tuple[str, str]) -> str:
        point = found.get((case, *line))
        if point is None:
            return ""
        count = "" if lines[line] else f"{point['matvecs']:,}, "
        return f"{error_text(point['error'])} ({count}{duration(point['seconds'])})"

    named = [[label if lines[label, setting] else f"{label}: {setting.strip('[]()')}" for label, setting in lines]]
    return ["", *cases], [
        [name, *(cell(case, line) for case in cases)] for name, line in zip(named[0], lines, strict=True)
    ]


def duels(result: dict) -> list[dict]:
    """For every problem and case the quickest of ours, of the other iterations, and Cholesky: (point, method) each.

    None where nobody of a side reaches the target.
    """
    found = []
    for problem in _PROBLEMS:
        rows = _rows_of(result, problem)
        for case in dict.fromkeys(row["case"] for row in rows):
            own = [row for row in rows if row["case"] == case]
            sides = {
                "ours": [row for row in own if row["family"] == "ours"],
                "iterations": [row for row in own if row["family"] != "ours" and not row["is_exact"]],
                "dense": [row for row in own if row["is_exact"]],
            }
            found.append(
                {"problem": problem, "case": case, **{side: _quickest(s, problem) for side, s in sides.items()}}
            )
    return found


def ratio(duel: dict, rival: str) -> float | None:
    """Seconds of ours over the rival's; infinite where ours does not arrive, None where the rival does not."""
    if duel[rival] is None:
        return None
    return float("inf") if duel["ours"] is None else duel["ours"][0]["seconds"] / duel[rival][0]["seconds"]


def _quickest(rows: list[dict], problem: str) -> tuple[dict, str] | None:
    best = [(point, row["method"]) for row in rows if (point := cheapest(row["points"], problem))]
    return min(best, key=lambda pair: pair[0]["seconds"], default=None)


def _ratios(result: dict, *, lost: bool = False) -> Rows:
    rows = []
    for duel in duels(result):
        values = [ratio(duel, rival) for rival in ("iterations", "dense")]
        if lost and not any(value is not None and value > 1 for value in values):
            continue
        ours, others, dense = (_side(duel[side]) for side in ("ours", "iterations", "dense"))
        share = "-" if duel["ours"] is None else f"{duel['ours'][0]['setup_seconds'] / duel['ours'][0]['seconds']:.0%}"
        line = [
            f"{_PROBLEMS[duel['problem']]}: {duel['case']}",
            ours,
            share,
            others,
            _number(values[0]),
            dense,
            _number(values[1]),
        ]
        rows.append((values[0] or 0.0, line))
    if lost:
        rows.sort(key=lambda item: -item[0])
    header = ["", "best of ours", "set-up in it", "best other iteration", "ours over it", "Cholesky", "ours over it"]
    return header, [row for _, row in rows]


def _side(best: tuple[dict, str] | None) -> str:
    if best is None:
        return "-"
    return duration(best[0]["seconds"]) if best[1] == "Cholesky" else f"{best[1]}, {duration(best[0]['seconds'])}"


def _number(value: float | None) -> str:
    return "-" if value is None or value == float("inf") else f"{value:.2f}"
