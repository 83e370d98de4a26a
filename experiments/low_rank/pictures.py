"""Pictures of the low-rank benchmark.

Error against passes and time, and the distribution from which sketches are drawn.
"""

from pathlib import Path

import numpy as np
import torch
from matplotlib.lines import Line2D
from scipy.stats import gaussian_kde

import rangeformer as rf
from experiments.common.pictures import GRID, STYLE, plt
from experiments.low_rank.contenders import FEW_ROWS
from experiments.low_rank.matrices import Case
from sketching.arguments import as_sketch

_COLORS = {
    "rangeformer-untrained": "#9bc4bf",
    "rangeformer": "#1b7f79",
    "sampled-rows": "#c9803a",
    "gaussian": "#4c566a",
    "sparse-sign": "#a9b8d6",
    "block Krylov": "#8a6bb1",
    "scikit-learn": "#b0413e",
    "torch": "#6b8e4e",
    "scipy": "#b9a3cf",
    "dask": "#d3b25c",
}
_MARKS = {"24 rows": "v", "auto": "*", "default": "D"}
_LAWS = ("gaussian", "sampled-rows", "rangeformer")
_VECTORS = 40  # vectors of the span of every sketch drawn
_EDGE = 0.5  # of the pictures of distributions
_TICKS = {"passes": (2, 5, 10, 20, 50, 100, 200), "time": (0.5, 1, 2, 5, 10)}


def draw_pareto(path: Path, points: list[dict]) -> None:
    """Excess error against passes (rows read included) and against time."""
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, 2, figsize=(13, 5.6), sharey=True, layout="constrained")
        for axes, key in zip(panels, ("passes", "time"), strict=True):
            for family, color in _COLORS.items():
                own = [point for point in points if point["family"] == family]
                line = sorted((p[key], p["excess"]) for p in own if p["setting"].isdigit())
                if line:
                    axes.plot(*zip(*line, strict=True), color=color, lw=1.5)
                for point in own:
                    mark = _MARKS.get(point["setting"], "o")
                    size = 12 if mark == "*" else 6
                    axes.plot(point[key], point["excess"], mark, ms=size, mec="white", mew=0.6, color=color)
            axes.set(xscale="log", yscale="log")
            axes.set_xticks(_TICKS[key], [f"{tick:g}" for tick in _TICKS[key]])
            axes.minorticks_off()
            axes.grid(color=GRID, lw=0.6)
            axes.set_axisbelow(True)
        panels[0].set(xlabel="passes over A, rows read included", ylabel="excess error over the best rank-r")
        panels[1].set(xlabel="time over that of a Gaussian sketch with two passes")
        shown = [family for family in _COLORS if any(point["family"] == family for point in points)]
        handles = [Line2D([], [], color=_COLORS[family], marker="o", label=family) for family in shown]
        labels = {"v": "24 rows read", "*": "auto", "D": "its defaults"}
        handles += [Line2D([], [], color="#888888", ls="", marker=mark, label=text) for mark, text in labels.items()]
        figure.legend(handles=handles, loc="outside right upper", frameon=False)
        _save(figure, path)


def draw_distribution(path: Path, case: Case, *, num_draws: int, seed: int = 0) -> None:
    """Contours of unit vectors from the span of sampled sketches, on two pairs of right singular vectors of A."""
    directions = np.linalg.svd(case.A, full_matrices=False)[2]
    rank = min(case.rank, len(directions) - 1)
    pairs = ((0, min(1, rank)), (0, rank), (rank, min(rank + rank // 2, len(directions) - 1)))
    vectors = {law: _vectors(case, law, num_draws, seed) for law in _LAWS}
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, len(pairs), figsize=(4.4 * len(pairs), 4.8), layout="constrained")
        for axes, (i, j) in zip(panels, pairs, strict=True):
            for law, found in vectors.items():
                _contours(axes, found @ directions[[i, j]].T, _COLORS[law])
            axes.set(
                xlabel=f"component on v{i + 1}",
                ylabel=f"component on v{j + 1}",
                xlim=(-_EDGE, _EDGE),
                ylim=(-_EDGE, _EDGE),
            )
            axes.set_aspect("equal")
        handles = [Line2D([], [], color=_COLORS[law], label=law) for law in _LAWS]
        shape = f"{case.A.shape[0]} x {case.A.shape[1]}"
        title = f"{case.name}, {shape}, rank {case.rank}: unit vectors of sketches that have read {_rows(case)} rows"
        figure.legend(handles=handles, loc="outside lower center", ncols=len(_LAWS), frameon=False)
        figure.suptitle(title, x=0.01, ha="left")
        _save(figure, path)


def _vectors(case: Case, law: str, num_draws: int, seed: int) -> np.ndarray:
    """Unit vectors Omega z, z standard normal, of independent draws of Omega."""
    operator, generator = rf.as_operator(case.A), torch.Generator().manual_seed(seed)
    found = []
    for _ in range(num_draws):
        omega = as_sketch(law).draw(operator, case.rank, max_rows=_rows(case), generator=generator)
        vectors = (omega @ torch.randn(case.rank, _VECTORS, generator=generator, dtype=omega.dtype)).mT
        found.append(vectors / torch.linalg.vector_norm(vectors, dim=-1, keepdim=True))
    return torch.cat(found).numpy()


def _rows(case: Case) -> int:
    return min(FEW_ROWS, len(case.A) // 2)


def _contours(axes, points: np.ndarray, color: str) -> None:
    grid = np.linspace(-_EDGE, _EDGE, 80)
    x, y = np.meshgrid(grid, grid)
    spread = points + 1e-3 * np.random.default_rng(0).standard_normal(points.shape)  # a distribution may be a line
    density = gaussian_kde(spread.T)(np.stack([x.ravel(), y.ravel()])).reshape(x.shape)
    levels = np.quantile(gaussian_kde(spread.T)(spread[:: max(1, len(spread) // 400)].T), (0.1, 0.5))
    if levels[0] < levels[1]:
        axes.contour(x, y, density, levels=levels, colors=color, linewidths=(1.0, 2.0))


def _save(figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
