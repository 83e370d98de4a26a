"""Iterations to a tight residual with every preconditioner on the same kernel systems, set-up and reads beside them.

    python -m experiments.gp.preconditioners --dataset elevators --data-dir DIR --hyperparameters
    experiments/hyperparameters/elevators.json

The right-hand side is the table's target, alone and together with ten Gaussian probes; the matrix is handed over twice,
as a plain tensor (its noise must be guessed) and as GPyTorch's kernel plus noise (its noise is stated).
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import rangeformer as rf
from experiments.common import datasets, environment
from experiments.common.options import option, parse
from experiments.common.reporting import progress, seconds, show_table, write_json
from experiments.gp import model as gp

PRECONDITIONERS = ("rangeformer", "rangeformer-untrained", "rpcholesky", "nystrom", "pivoted-cholesky", None)
NUM_PROBES = 10


@dataclass(frozen=True)
class Config:
    """Iterations of linear_solve with every preconditioner on one kernel matrix, float64."""

    dataset: str = option("diamonds", "diamonds (shipped with plotnine), or the name of a set in --data-dir")
    data_dir: Path | None = option(None, "a folder of npz files with arrays X, y and, if the split is fixed, test_mask")
    n: int = option(4000, "rows")
    hyperparameters: Path | None = option(None, "JSON with noise_std, signal_std, lengthscales")
    rtol: float = option(1e-6, "relative residual asked of the worst column")
    seed: int = option(0, "of the rows, the probes and the preconditioners")
    output: Path = option(Path("results"), "folder of the JSON file")
    smoke: bool = option(False, "a tiny run that shows that everything works")


def main(config: Config) -> dict:
    """Run, show, write, and return what was written."""
    if config.smoke:
        config = replace(config, n=300)
    environment.prepare()
    table = datasets.load(config.dataset, None, config.data_dir, None)
    split = datasets.split(table, config.n, 1, config.seed, torch.float64, torch.device("cpu"))
    model = gp.ExactGP(split, "matern32")
    if config.hyperparameters is not None:
        gp.set_hyperparameters(model, config.hyperparameters)
    with torch.no_grad():
        covariance = model.likelihood(model(*model.train_inputs)).lazy_covariance_matrix.evaluate_kernel()
    systems = {"tensor": covariance.to_dense(), "kernel + noise": covariance}
    generator = torch.Generator().manual_seed(config.seed)
    target = split.train_y.unsqueeze(-1)
    probes = torch.randn(len(target), NUM_PROBES, generator=generator, dtype=target.dtype)
    sides = {"y": target, "y + probes": torch.cat([target, probes], -1)}
    runs = []
    with progress("Solves", len(systems) * len(sides) * len(PRECONDITIONERS)) as advance:
        for system, A in systems.items():
            for side, rhs in sides.items():
                for name in PRECONDITIONERS:
                    runs.append({"system": system, "rhs": side, **solve(A, rhs, name, config)})
                    advance(f"{name}: {runs[-1]['num_iterations']}")
    result = {
        "config": {name: value.name if isinstance(value, Path) else value for name, value in asdict(config).items()},
        "dataset": {"name": table.name, "n": len(target), "num_features": split.train_x.shape[-1]},
        "environment": environment.describe(torch.device("cpu")),
        "runs": runs,
    }
    show_table(f"Iterations to {config.rtol:g} on {table.name}, n = {len(target)}, float64", *comparison(result))
    write_json(config.output / f"preconditioners-{table.name}-n{len(target)}.json", result)
    return result


def solve(A: Any, rhs: Tensor, preconditioner: str | None, config: Config) -> dict:
    """One solve, its set-up included, and what it cost."""
    generator = torch.Generator().manual_seed(config.seed)
    with environment.stopwatch(torch.device("cpu")) as elapsed:
        solution = rf.linear_solve(A, rhs, rtol=config.rtol, preconditioner=preconditioner, generator=generator)
    return {
        "preconditioner": str(preconditioner).lower(),
        "num_iterations": solution.num_iterations,
        "num_passes": solution.num_passes,
        "num_matvecs": solution.num_matvecs,
        "num_entries": solution.num_entries,
        "worst_residual": float(solution.residual_norms.max()),
        "converged": bool(solution.converged.all()),
        "seconds": elapsed[-1],
    }


def comparison(result: dict) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the one table: iterations and, in brackets, seconds with set-up.

    A column for every preconditioner.
    """
    cases = dict.fromkeys((run["system"], run["rhs"]) for run in result["runs"])
    header = ["", *dict.fromkeys(run["preconditioner"] for run in result["runs"])]
    rows = []
    for system, side in cases:
        runs = [run for run in result["runs"] if (run["system"], run["rhs"]) == (system, side)]
        cells = [f"{run['num_iterations']} ({seconds(run['seconds'])})" for run in runs]
        rows.append([f"{system}, {side}", *cells])
    return header, rows


if __name__ == "__main__":
    main(parse(Config))
