"""Validation on other laws and sizes: what a model's neighbours miss, against none and against the oracle."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rangeformer.model import RangeFormer
from rangeformer.pretrain.config import PretrainConfig
from rangeformer.pretrain.objectives import (
    conditional_log_variance,
    missed_energy,
    proposed_neighbors,
    strongest_earlier,
)
from rangeformer.pretrain.problems import Problem, make_problem

_FLOOR = 0.01  # of the share missed: differences below it do not matter
_NO_ROOM = 0.02  # nats per row; below this no choice of neighbours matters and the ratio is noise


@dataclass(frozen=True)
class Validation:
    """Figures of merit over the validation matrices; smaller is better but for recall.

    Attributes:
        missed: Share of the oracle's gain in mean log D_i that is not reached (0 = oracle, 1 = no neighbours);
            geometric mean of (share + 0.01), less 0.01, so that no law outweighs the others.
        recall: Mean share of the oracle's neighbours that are found.
        range: Mean log share of |K|_F^2 outside the c leading directions of the range features.
    """

    missed: float
    recall: float
    range: float


def validation_problems(config: PretrainConfig) -> list[tuple[Problem, float, float]]:
    """The fixed validation set: problem, its mean log D_i without neighbours, and with the oracle's."""
    generator = torch.Generator().manual_seed(1_000_003 + config.seed)
    found = []
    for law in config.validation_laws * 2:
        for i, num_columns in enumerate(config.validation_columns):
            problem = make_problem(
                [law], config.validation_size, num_columns, noisy_diagonal=i % 2 == 0, generator=generator
            )
            nothing = problem.residual.diagonal(dim1=-2, dim2=-1).log().mean().item()
            oracle = conditional_log_variance(problem, strongest_earlier(problem, config.validation_neighbors)).item()
            found.append((problem, nothing, oracle))
    return found


@torch.no_grad()
def validate(
    model: RangeFormer, problems: Sequence[tuple[Problem, float, float]], config: PretrainConfig
) -> tuple[Validation, list[dict[str, float | str | int]]]:
    """Measure a model; returns the means and one row per problem."""
    rows = []
    num_candidates = 2 * config.validation_neighbors
    for problem, nothing, oracle in problems:
        features = model(problem.factor, problem.residual_diagonal, problem.diagonal)
        neighbors = proposed_neighbors(problem, features.neighbors, num_candidates, config.validation_neighbors)
        value = conditional_log_variance(problem, neighbors).item()
        best = strongest_earlier(problem, config.validation_neighbors)[:, num_candidates:]
        hits = (best[..., :, None] == neighbors[:, num_candidates:, None, :]).any(-1)
        rows.append(
            {
                "law": problem.laws[0],
                "num_columns": problem.factor.shape[-1],
                "room": nothing - oracle,
                "missed": (value - oracle) / (nothing - oracle) if nothing - oracle > _NO_ROOM else 0.0,
                "recall": hits.to(torch.float64).mean().item(),
                "range": missed_energy(_leading_directions(features.range, problem), problem.kernel).log().item(),
            }
        )
    mean = {key: sum(float(row[key]) for row in rows) / len(rows) for key in ("recall", "range")}
    logs = [math.log(max(float(row["missed"]), 0.0) + _FLOOR) for row in rows if row["room"] > _NO_ROOM]
    missed = math.exp(sum(logs) / max(len(logs), 1)) - _FLOOR
    return Validation(missed, **mean), rows


def _leading_directions(features: torch.Tensor, problem: Problem) -> torch.Tensor:
    """The c leading principal components of the range features."""
    _, vectors = torch.linalg.eigh(features.mT @ features)
    return (features @ vectors[..., -problem.factor.shape[-1] :]).to(torch.float32)
