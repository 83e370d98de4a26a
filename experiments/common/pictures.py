"""Pictures of the results, drawn without a display."""

from pathlib import Path

import matplotlib
import numpy as np
from scipy.stats import gaussian_kde
from torch import Tensor

from experiments.common.datasets import Split, Table

matplotlib.use("Agg")
# the backend is chosen before pyplot looks for a display
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib import ticker  # noqa: E402

INK, GRID = "#2b2b2b", "#dddddd"
COLORS = {"cholesky": "#4c566a", "cg-default": "#c9803a", "cg-tuned": "#8a6bb1", "rangeformer": "#1b7f79"}
STYLE = {
    "font.size": 11,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
}


def draw_regression(path: Path, result: dict, table: Table, split: Split, mean: Tensor, variance: Tensor) -> None:
    """Left: what the model knows about the test rows. Right: what each method pays for which accuracy."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5.8), layout="constrained")
        _draw_predictions(left, table, split, mean, variance)
        _draw_cost(right, result["methods"])
        figure.savefig(path, dpi=150)
        plt.close(figure)


def _draw_predictions(axes, table: Table, split: Split, mean: Tensor, variance: Tensor) -> None:
    predicted, truth = (_natural(values, split) for values in (mean, split.test_y))
    half_width = 1.96 * split.target_std * variance.clamp_min(0).sqrt().double().cpu().numpy()
    inside = np.abs(truth - predicted) <= half_width

    def readable(values: np.ndarray) -> np.ndarray:
        return np.exp(values) if table.log_target else values

    # the band is drawn by groups of neighbouring predictions, because each test row has its own width
    groups = np.array_split(np.argsort(predicted), min(40, len(predicted)))
    center = np.array([predicted[group].mean() for group in groups])
    width = np.array([half_width[group].mean() for group in groups])
    scale = "log" if table.log_target else "linear"
    axes.set(xscale=scale, yscale=scale, xlabel=f"predicted {table.target_name}", ylabel=f"true {table.target_name}")
    axes.fill_between(readable(center), readable(center - width), readable(center + width), color="#cfe6e3", lw=0)
    axes.plot(readable(center), readable(center), color=COLORS["rangeformer"], lw=1)
    density = gaussian_kde(np.stack([predicted, truth]))(np.stack([predicted, truth]))
    order = np.argsort(density)  # the densest last, on top
    axes.scatter(readable(predicted[order]), readable(truth[order]), c=density[order], s=14, cmap="viridis", lw=0)
    if table.log_target:
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_title(
        f"{table.name.capitalize()} the model has not seen: {inside.mean():.1%} of {len(truth):,} in their 95 % band"
    )


def _draw_cost(axes, methods: dict[str, dict]) -> None:
    for name, method in methods.items():
        color = COLORS[name]
        times = np.sort(method["step_seconds"])
        typical = float(np.median(times))
        start, end = method["start"]["gradient_error"], method["end"]["gradient_error"]
        axes.plot([typical] * 2, [start, end], color=color, lw=1.5, alpha=0.5)
        axes.plot(typical, start, "o", mfc="white", mec=color, mew=1.5, ms=8)
        axes.plot(typical, end, "o", color=color, ms=10)
        axes.annotate(
            method["label"], (typical, end), xytext=(9, 5), textcoords="offset points", color=color, weight="bold"
        )
    axes.set(
        xscale="log", yscale="log", xlabel="seconds per training step", ylabel="gradient error against float64 Cholesky"
    )
    axes.margins(x=0.35, y=0.15)
    axes.grid(color=GRID, lw=0.6)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    axes.set_title("Left is faster, down is truer (○ untrained, ● trained)")


def _natural(values: Tensor, split: Split) -> np.ndarray:
    return split.target_mean + split.target_std * values.double().cpu().numpy()
