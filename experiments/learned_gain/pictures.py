"""One picture for every learned part: the share of the headroom captured, with its interval."""

from pathlib import Path

from experiments.common.pictures import GRID, STYLE, plt

_SHOWN = (-1.0, 1.5)  # beyond, the mark stands on the edge
_COLORS = ("#1b7f79", "#c9803a", "#8a6bb1", "#4c566a", "#b0413e")


def draw(path: Path, gains: dict[str, dict[str, dict | None]]) -> None:
    """A line for every group (table, matrices and loops) and way to start; zero is no gain, one is the oracle."""
    names = [*next(iter(gains.values()))]
    path.parent.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(9, 1.6 + 0.28 * len(gains) * len(names)), layout="constrained")
        for i, shares in enumerate(gains.values()):
            for k, name in enumerate(names):
                found, y = shares[name], i + 0.8 * (k + 0.5) / len(names) - 0.4
                if found is None:
                    axes.plot(0, y, "x", color=_COLORS[k % len(_COLORS)])
                    continue
                low, high = (_inside(found.get(end, found["share"])) for end in ("low", "high"))
                axes.plot([low, high], [y, y], color=_COLORS[k % len(_COLORS)], lw=2)
                axes.plot(
                    _inside(found["share"]), y, "o", color=_COLORS[k % len(_COLORS)], label=name if i == 0 else None
                )
        axes.axvline(0, color="#2b2b2b", lw=1)
        axes.axvline(1, color=GRID, lw=1)
        axes.set(xlim=_SHOWN, xlabel="share of the headroom captured (cross: no headroom), 95 % interval")
        axes.set_yticks(range(len(gains)), [*gains])
        axes.invert_yaxis()
        if axes.get_legend_handles_labels()[0]:
            figure.legend(loc="outside upper left", frameon=False)
        figure.savefig(path, dpi=110)
        plt.close(figure)


def _inside(share: float) -> float:
    return min(max(share, _SHOWN[0]), _SHOWN[1])
