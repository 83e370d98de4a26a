"""Validation on other distributions and sizes: what a model's neighbours miss, against none and against the oracle."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rangeformer.pretrain.features.objectives import (
    conditional_log_variance,
    missed_energy,
    proposed_neighbors,
    strongest_earlier,
)
from rangeformer.pretrain.features.problems import Problem, make_problem

FIGURES_MEAN = (
    "missed: share of the oracle's gain in mean log D_i not reached with 2k candidates (0 oracle, 1 no neighbours; "
    "over "
    "matrices the geometric mean of share + 0.01, less 0.01, so that no distribution outweighs the others); recall: "
    "share of "
    "the "
    "oracle's neighbours found; range: log share of |K|_F^2 outside c range directions"
)
_FLOOR = 0.01  # of the share missed: differences below it do not matter
_NO_ROOM = 0.02  # nats per row; below this no choice of neighbours matters and the ratio is noise


@dataclass(frozen=True)
class ValidationCase:
    """A matrix to validate on.

    Attributes:
        problem: One matrix.
        nothing: Its mean log D_i without neighbours.
        oracle: The same with the oracle's neighbours.
    """

    problem: Problem
    nothing: float
    oracle: float

    @property
    def room(self) -> float:
        """What neighbours can gain."""
        return self.nothing - self.oracle


def make_case(
    law: str, n: int, num_columns: int, *, num_neighbors: int, noisy_diagonal: bool, generator: torch.Generator
) -> ValidationCase:
    """Draw a matrix and measure its two ends."""
    problem = make_problem([law], n, num_columns, noisy_diagonal=noisy_diagonal, generator=generator)
    nothing = problem.residual.diagonal(dim1=-2, dim2=-1).log().mean().item()
    oracle = conditional_log_variance(problem, strongest_earlier(problem, num_neighbors)).item()
    return ValidationCase(problem, nothing, oracle)


@torch.no_grad()
def measure(
    model: nn.Module, cases: Sequence[ValidationCase], num_neighbors: int
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Measure a model; returns the figures of `FIGURES_MEAN` and one row per case.

    Args:
        model: A RangeFormer, on any device.
        cases: On the CPU.
        num_neighbors: k; the candidates are 2 k.
    """
    device = next(model.parameters()).device
    rows = [_row(model, case, _on(case.problem, device), num_neighbors) for case in cases]
    logs = [math.log(max(row["missed"], 0.0) + _FLOOR) for row in rows if row["room"] > _NO_ROOM]
    figures = {"missed": math.exp(sum(logs) / max(len(logs), 1)) - _FLOOR}
    figures |= {key: sum(row[key] for row in rows) / len(rows) for key in ("recall", "range")}
    return figures, rows


def _row(model: nn.Module, case: ValidationCase, problem: Problem, num_neighbors: int) -> dict[str, Any]:
    """The figures of one case."""
    num_candidates = 2 * num_neighbors
    features = model(problem.factor, problem.residual_diagonal, problem.diagonal)
    neighbors = proposed_neighbors(problem, features.neighbors, num_candidates, num_neighbors)
    value = conditional_log_variance(problem, neighbors).item()
    best = strongest_earlier(problem, num_neighbors)[:, num_candidates:]
    hits = (best[..., :, None] == neighbors[:, num_candidates:, None, :]).any(-1)
    return {
        "law": problem.laws[0],
        "num_columns": problem.factor.shape[-1],
        "room": case.room,
        "missed": (value - case.oracle) / case.room if case.room > _NO_ROOM else 0.0,
        "recall": hits.to(torch.float64).mean().item(),
        "range": missed_energy(_leading_directions(features.range, problem), problem.kernel).log().item(),
    }


def _on(problem: Problem, device: torch.device) -> Problem:
    """The problem with its tensors on a device."""
    names = [field.name for field in dataclasses.fields(problem) if field.name != "laws"]
    return dataclasses.replace(problem, **{name: getattr(problem, name).to(device) for name in names})


def _leading_directions(features: torch.Tensor, problem: Problem) -> torch.Tensor:
    """The c leading principal components of the range features."""
    _, vectors = torch.linalg.eigh(features.mT @ features)
    return (features @ vectors[..., -problem.factor.shape[-1] :]).to(torch.float32)
