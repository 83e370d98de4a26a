"""One training step at given hyperparameters: its time, its error, and its bias over several seeds."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from experiments.common import environment
from experiments.common.reporting import progress, say, seconds, show_table
from experiments.gp import model as gp
from experiments.gp.methods import Method


def compare(model: gp.ExactGP, methods: dict[str, Method], seeds: Sequence[int]) -> dict[str, dict]:
    """Every method at the model's hyperparameters, against float64 Cholesky."""
    device = model.train_targets.device
    with progress("Float64 truth", 1) as advance:
        truth = gp.truth(model)
        advance("")
    results = {name: _measure(model, method, seeds, truth) for name, method in methods.items()}
    # The fairest rival: autograd through the factorisation costs GPyTorch more than the factorisation itself.
    with progress("Cholesky by hand", 1) as advance:
        with environment.stopwatch(device) as elapsed:
            loss = float(gp.training_step_by_hand(model))
        advance("")
    results["cholesky-by-hand"] = {
        "label": "By hand",
        "seconds": elapsed,
        "iterations": [],
        "warnings": [],
        **_errors([loss], [gp.gradient(model)], truth),
    }
    return results


def _measure(model: gp.ExactGP, method: Method, seeds: Sequence[int], truth: gp.Truth) -> dict:
    losses, gradients, times, iterations, reported = [], [], [], [], []
    with progress(method.label, len(seeds)) as advance:
        for seed in seeds:
            with method.active(seed) as record, environment.stopwatch(model.train_targets.device) as elapsed:
                loss = gp.training_step(model)
            losses.append(float(loss))
            gradients.append(gp.gradient(model))
            times += elapsed
            iterations.append(record.num_iterations)
            reported += record.warnings
            advance(seconds(times[-1]))
    errors = _errors(losses, gradients, truth)
    return {"label": method.label, "seconds": times, "iterations": iterations, "warnings": reported, **errors}


def _errors(losses: list[float], gradients: list[Tensor], truth: gp.Truth) -> dict:
    """Worst single seed, and the mean over seeds with its standard error: what is left of the mean's error is bias."""
    stacked = torch.stack(gradients).double()
    spread = (stacked - stacked.mean(dim=0)).norm(dim=-1).square().sum() / max(len(stacked) - 1, 1) / len(stacked)
    return {
        "loss_relative_errors": [abs(loss - truth.loss) / abs(truth.loss) for loss in losses],
        "gradient_errors": [truth.gradient_error(gradient) for gradient in gradients],
        "mean_gradient_error": truth.gradient_error(stacked.mean(dim=0)),
        "mean_gradient_standard_error": math.sqrt(float(spread)) / truth.scale,
    }


def comparison(result: dict) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the one table: a column for every method."""
    methods = result["methods"].values()

    def row(name: str, text: Callable[[dict], str]) -> list[str]:
        return [name, *(text(method) for method in methods)]

    return ["", *(method["label"] for method in methods)], [
        row("first run, set-up included", lambda m: seconds(m["seconds"][0])),
        row("fastest run", lambda m: seconds(min(m["seconds"]))),
        row("CG iterations", lambda m: f"{max(m['iterations'])}" if any(m["iterations"]) else "-"),
        row("loss error, relative", lambda m: f"{max(m['loss_relative_errors']):.1e}"),
        row("gradient error", lambda m: f"{max(m['gradient_errors']):.1e}"),
        row("gradient error, mean of seeds", lambda m: f"{m['mean_gradient_error']:.1e}"),
        row("its standard error", lambda m: f"{m['mean_gradient_standard_error']:.1e}"),
        row("failures it reported", lambda m: f"{len(m['warnings'])}"),
    ]


def show(result: dict) -> None:
    """Print the table, and how long RangeFormer takes relative to the others."""
    methods = result["methods"].values()
    show_table(
        f"One training step on {result['dataset']['name']}, n = {result['dataset']['n']}, {result['config']['dtype']}",
        *comparison(result),
        (
            "Worst seed against float64 Cholesky; the loss relative to itself, the gradient",
            "to the sum of the norms of its two parts. By hand: Cholesky without GPyTorch,",
            "the derivative from the explicit inverse. Reported: failures, by the method.",
        ),
    )
    if "rangeformer" in result["methods"]:
        ours = result["methods"]["rangeformer"]["seconds"][0]
        ratios = [f"{ours / m['seconds'][0]:.2f} x {m['label']}" for m in methods if m["label"] != "RangeFormer"]
        say("RangeFormer's first run, set-up included, takes " + ", ".join(ratios))
