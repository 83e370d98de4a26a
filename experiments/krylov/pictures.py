"""Error against passes, products and seconds: a row of panels for every matrix."""

from pathlib import Path

from experiments.common.pictures import GRID, STYLE, plt, ticker

CURRENCIES = {"passes": "passes over A", "matvecs": "matrix-vector products", "seconds": "seconds, set-up included"}
_OURS = ("#1b7f79", "#5fb3a8", "#0b4f6c", "#c2571a", "#d9a05b")
_OTHERS = (
    "#4c566a",
    "#c9803a",
    "#8a6bb1",
    "#b0413e",
    "#6b8e4e",
    "#3b5b92",
    "#b3a369",
    "#999999",
    "#c58fb0",
    "#77aadd",
    "#222222",
    "#d4b200",
    "#7fbf3f",
)
_TINY = 1e-16


def draw(path: Path, result: dict, problem: str) -> None:
    """The curves of one problem; ours with full lines, dense factorisations as a cross at their time."""
    rows = [row for row in result["rows"] if row["problem"] == problem]
    cases = [*dict.fromkeys(row["case"] for row in rows)]
    colors = _colors(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with plt.rc_context({**STYLE, "font.size": 9}):
        figure, panels = plt.subplots(
            len(cases), len(CURRENCIES), figsize=(14, 1 + 2.7 * len(cases)), squeeze=False, layout="constrained"
        )
        for row in rows:
            for axes, currency in zip(panels[cases.index(row["case"])], CURRENCIES, strict=True):
                _curve(axes, row, currency, colors[row["method"]])
        for case, line in zip(cases, panels, strict=True):
            line[0].set_ylabel("error")
            for axes in line:
                axes.set(xscale="log", yscale="log")
                axes.grid(color=GRID, lw=0.6)
                axes.set_axisbelow(True)
                axes.xaxis.set_minor_formatter(ticker.NullFormatter())
            line[0].set_title(case)
        for axes, label in zip(panels[-1], CURRENCIES.values(), strict=True):
            axes.set_xlabel(label)
        handles = {}
        for axes in panels.flat:
            handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        figure.legend(handles.values(), handles.keys(), loc="outside right upper", frameon=False)
        figure.savefig(path, dpi=80)
        plt.close(figure)


def _colors(rows: list[dict]) -> dict[str, str]:
    found = {}
    for family, palette in (("ours", _OURS), ("classical", _OTHERS)):
        labels = dict.fromkeys(row["method"] for row in rows if row["family"] == family)
        found |= {label: palette[i % len(palette)] for i, label in enumerate(labels)}
    return found


def _curve(axes, row: dict, currency: str, color: str) -> None:
    points = [point for point in row["points"] if point["error"] is not None]
    if not points or (row["is_exact"] and currency != "seconds"):
        return
    x, y = [max(point[currency], _TINY) for point in points], [max(point["error"], _TINY) for point in points]
    ours = row["family"] == "ours"
    marker = "x" if row["is_exact"] else "o"
    axes.plot(x, y, marker=marker, ms=6 if row["is_exact"] else 3, lw=2 if ours else 1, ls="-" if ours else "--",
              color=color, label=row["method"])  # fmt: skip
