"""Pictures of LAWT's tables: learning curves of what was trained, and every view of shares as a map."""

from pathlib import Path

from experiments.common.pictures import GRID, STYLE, plt

_NO_SHARE = ("minutes", "passed", "failed")


def draw(path: Path, result: dict) -> None:
    """Learning curves above, views below."""
    views = {name: _shares(view) for name, view in result["views"].items()}
    views = {name: view for name, view in views.items() if view["columns"] and view["rows"]}
    curves = {label: run["curve"] for label, run in result["runs"].items()}
    heights = [*([3.2] if curves else []), *(0.9 + 0.32 * len(view["rows"]) for view in views.values())]
    with plt.rc_context({**STYLE, "font.size": 9}):
        figure, panels = plt.subplots(
            len(heights),
            1,
            figsize=(11, sum(heights) + 0.6 * len(heights)),
            height_ratios=heights,
            squeeze=False,
            layout="constrained",
        )
        axes = list(panels[:, 0])
        if curves:
            _draw_curves(axes.pop(0), curves)
        for panel, view in zip(axes, views.values(), strict=True):
            _draw_map(panel, view)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)


def _shares(view: dict) -> dict:
    """The columns of a view that are shares."""

    def is_share(key: str) -> bool:
        values = [row.get(key) for row in view["rows"]]
        return key not in _NO_SHARE and all(value is None or isinstance(value, float) for value in values)

    return {**view, "columns": {key: title for key, title in view["columns"].items() if is_share(key)}}


def _draw_curves(axes, curves: dict[str, list]) -> None:
    for label, curve in curves.items():
        axes.plot([examples for examples, _ in curve], [100 * right for _, right in curve], label=label)
    axes.set(xlabel="examples", ylabel="right at 5 %, in %", ylim=(-3, 103), title="Learning curves, validation")
    axes.grid(color=GRID, lw=0.6)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))


def _draw_map(axes, view: dict) -> None:
    keys, rows = list(view["columns"]), view["rows"]
    numbers = [[float("nan") if row.get(key) is None else 100 * row[key] for key in keys] for row in rows]
    axes.imshow(numbers, cmap="YlGn", vmin=0, vmax=130, aspect="auto")
    for i, line in enumerate(numbers):
        for j, number in enumerate(line):
            axes.text(j, i, "-" if number != number else f"{number:.1f}", ha="center", va="center")
    axes.set_xticks(range(len(keys)), view["columns"].values(), rotation=20, ha="right")
    axes.set_yticks(range(len(rows)), [row["label"] for row in rows])
    axes.set_title(view["caption"], fontsize=9)
