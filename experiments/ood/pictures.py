"""Pictures of the out-of-distribution comparison: errors by family and size, and errors against loops and reads."""

from pathlib import Path

import numpy as np
from matplotlib.ticker import LogLocator

from experiments.common.pictures import GRID, STYLE, plt

TINY = 1e-16  # where exact answers are drawn
HUGE = 1e4  # where answers are drawn that do not exist
_PALETTE = (
    "#b0413e",
    "#c9803a",
    "#9bc4bf",
    "#1b7f79",
    "#a9b8d6",
    "#3b5b92",
    "#8a6bb1",
    "#b9a3cf",
    "#6b8e4e",
    "#b3c99c",
    "#4c566a",
)


def draw_families(path: Path, result: dict) -> None:
    """One panel for every operation and size: median error of every column in every family."""
    cells = result["cells"]
    operations, sizes = ([*dict.fromkeys(cell[key] for cell in cells)] for key in ("operation", "n"))
    families, labels = ([*dict.fromkeys(cell[key] for cell in cells)] for key in ("family", "column"))
    with plt.rc_context({**STYLE, "font.size": 9}):
        figure, panels = plt.subplots(
            len(operations),
            len(sizes),
            figsize=(4.2 * len(sizes) + 2, 2.8 * len(operations)),
            sharex=True,
            sharey=True,
            squeeze=False,
            layout="constrained",
        )
        for (i, operation), (j, n) in ((a, b) for a in enumerate(operations) for b in enumerate(sizes)):
            axes = panels[i][j]
            for k, label in enumerate(labels):
                chosen = {
                    cell["family"]: cell
                    for cell in cells
                    if (cell["operation"], cell["n"], cell["column"]) == (operation, n, label) and cell["errors"]
                }
                x = [families.index(name) + 0.06 * (k - len(labels) / 2) for name in chosen]
                y = [_drawn(cell["median"]) for cell in chosen.values()]
                axes.plot(x, y, "o", ms=4, color=_PALETTE[k % len(_PALETTE)], label=label)
            axes.set(yscale="log", ylim=(TINY / 3, 3 * HUGE), title=f"{operation}, n = {n}")
            axes.set_xticks(range(len(families)), families, rotation=60, ha="right")
            axes.grid(color=GRID, lw=0.6)
            axes.set_axisbelow(True)
        for row in panels:
            row[0].set_ylabel("median relative error")
        figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
        _save(figure, path)


def draw_loops(path: Path, result: dict) -> None:
    """One panel for every operation and size: median and quartiles of the error of each model against its loops."""
    items = result["summary"]
    operations, sizes, models = ([*dict.fromkeys(item[key] for item in items)] for key in ("operation", "n", "model"))
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(
            len(operations),
            len(sizes),
            figsize=(4.6 * len(sizes) + 1, 3.4 * len(operations)),
            sharex=True,
            squeeze=False,
            layout="constrained",
        )
        for item in items:
            axes = panels[operations.index(item["operation"])][sizes.index(item["n"])]
            color = _PALETTE[(2 + models.index(item["model"])) % len(_PALETTE)]
            curves = {name: [_drawn(q[name]) for q in item["quartiles"]] for name in ("lower", "median", "upper")}
            axes.fill_between(item["loops"], curves["lower"], curves["upper"], color=color, alpha=0.15, lw=0)
            axes.plot(item["loops"], curves["median"], "o-", ms=3, color=color, label=item["model"])
            axes.axvline(item["trained"], color=GRID, lw=1, zorder=0)
            axes.set(xscale="log", yscale="log", title=f"{item['operation']}, n = {item['n']}")
            axes.set_xticks(item["loops"], [str(x) for x in item["loops"]])
            axes.minorticks_off()
        for axes in panels[-1]:
            axes.set_xlabel("loops (line: the trained number)")
        for row in panels:
            row[0].set_ylabel("relative error")
        figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
        _save(figure, path)


def draw_matrices(path: Path, result: dict) -> None:
    """Left: geometric mean residual against reads. Right: every matrix after the most reads."""
    summary = result["summary"]
    reads = [int(key) for key in summary]
    labels = [*next(iter(summary.values()))["geometric_means"]]
    last = [row for row in result["rows"] if row["reads"] == reads[-1]]
    names = [*dict.fromkeys(row["matrix"] for row in last)]
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(14, 5.4), layout="constrained")
        for k, label in enumerate(labels):
            color = _PALETTE[(2 + k) % len(_PALETTE)]
            left.plot(reads, [summary[str(r)]["geometric_means"][label] for r in reads], "o-", color=color, label=label)
            values = [
                float(
                    np.exp(
                        np.mean([np.log(max(row["residuals"][label], TINY)) for row in last if row["matrix"] == name])
                    )
                )
                for name in names
            ]
            right.plot(range(len(names)), values, "o", color=color)
        left.set(xscale="log", yscale="log", xlabel="loops", ylabel="relative residual, geometric mean")
        left.set_xticks(reads, [str(r) for r in reads])
        left.minorticks_off()
        right.set(yscale="log", title=f"after {reads[-1]} loops")
        right.set_xticks(range(len(names)), names, rotation=60, ha="right")
        for axes in (left, right):
            axes.grid(color=GRID, lw=0.6)
            axes.set_axisbelow(True)
        figure.legend(*left.get_legend_handles_labels(), loc="outside right upper", frameon=False)
        _save(figure, path)


def draw_ablation(path: Path, result: dict) -> None:
    """Median and quartiles out of distribution, and the median on the training distributions, for every step."""
    rows = result["rows"]
    y = np.arange(len(rows))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(9, 1.6 + 0.5 * len(rows)), layout="constrained")
        outside = [row["out_of_distribution"] for row in rows]
        middle, low, high = ([_drawn(q[name]) for q in outside] for name in ("median", "lower", "upper"))
        axes.hlines(y, low, high, color=_PALETTE[0], lw=4, alpha=0.3)
        axes.plot(middle, y, "o", ms=9, color=_PALETTE[0], label="ten families (zero left out), quartiles")
        known = [_drawn(row["training_laws"]["median"]) for row in rows]
        axes.plot(known, y, "o", ms=9, mfc="white", color=_PALETTE[3], label="training distributions")
        axes.set(xscale="log", xlabel=f"relative error, {rows[0]['operation']}")
        axes.set_yticks(y, [row["rung"] for row in rows])
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        axes.invert_yaxis()
        axes.grid(color=GRID, lw=0.6, axis="x")
        figure.legend(frameon=False, loc="outside upper right", ncols=2)
        _save(figure, path)


DRAW = {
    "families": draw_families,
    "lawt": draw_families,
    "loops": draw_loops,
    "matrices": draw_matrices,
    "ladder": draw_ablation,
}
"""The picture of each part."""


def _drawn(value: float | None) -> float:
    return HUGE if value is None else min(max(value, TINY), HUGE)


def _save(figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
