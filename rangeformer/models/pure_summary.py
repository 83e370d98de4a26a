"""Summary statistics of a matrix that the pure model's read-outs are made from."""

import math
from dataclasses import dataclass
from typing import Any

import torch

from rangeformer.models.moments import Moments
from rangeformer.models.pure_step import FEATURE_SCALE, MAX_LOG
from rangeformer.operators import MatrixOperator
from rangeformer.shapes import Float, Tensor

NUM_CONTEXT = 8
NUM_LEFT = 8  # moments of what the largest eigenvalue leaves


@dataclass(frozen=True)
class Summary:
    """Summary statistics of a matrix, from the loop on probes.

    Attributes:
        features: `(*batch, f)`, scale-free.
        n: Size.
        level: `(*batch)`, mean of the diagonal.
        spread: `(*batch)`, see `Moments.spread`, of A.
        scaled_spread: `(*batch)`, of D^-1/2 A D^-1/2.
        log_diagonal: `(*batch)`, sum of log A_ii.
        largest: `(*batch, 2)`, see `Moments.largest`, of A.
    """

    features: Float[Tensor, "*batch f"]
    n: int
    level: Float[Tensor, "*batch"]
    spread: Float[Tensor, "*batch"]
    scaled_spread: Float[Tensor, "*batch"]
    log_diagonal: Float[Tensor, "*batch"]
    largest: Float[Tensor, "*batch 2"]


@torch.no_grad()
def summarise(model: Any, operator: MatrixOperator, num_loops: int, generator: torch.Generator | None) -> Summary:
    """Run the loop on probes, beside plain powers of A and of D^-1/2 A D^-1/2, all in one read a loop.

    Args:
        model: A `PureRangeFormer`.
        operator: A.
        num_loops: Loops; the configuration's at most.
        generator: Source of the probes; a fixed one if None.
    """
    T, n = model.config.num_loops, operator.num_rows
    probes = model.probes(operator, generator)
    s = probes.shape[-1]
    diagonal = positive_diagonal(operator, probes)
    root = diagonal.rsqrt().unsqueeze(-1)
    scaling = model.scaling(operator, probes).unsqueeze(-1)
    plain, scaled, state = Moments(probes), Moments(probes), model.start(probes)
    alphas, betas = [], []
    for _ in range(min(T, num_loops)):
        images = operator.matmul(torch.cat([plain.block, root * scaled.block, scaling * state.p], dim=-1))
        plain.update(images[..., :s])
        scaled.update(root * images[..., s : 2 * s])
        state = model.step(state, scaling * images[..., 2 * s :], probes)
        alphas.append(state.log_alpha)
        betas.append(state.log_beta)
    level, logs, largest = plain.level(), diagonal.log(), plain.largest()
    context = [
        torch.full_like(level, math.log(n) / 3),
        torch.full_like(level, s / n),
        logs.mean(-1) - level.log(),
        logs.std(-1, correction=0),
        plain.spread(),
        scaled.spread(),
        *largest.unbind(-1),
    ]
    parts = [
        plain.log_ratios(2 * T - 1),
        scaled.log_ratios(2 * T - 1),
        _means_over_probes(alphas, T),
        _scatter_over_probes(alphas, T),
        _means_over_probes(betas, T),
        plain.without(largest[..., 0], NUM_LEFT),
        torch.stack(context, dim=-1),
    ]
    features = FEATURE_SCALE * torch.cat(parts, dim=-1).clamp(-MAX_LOG, MAX_LOG)
    return Summary(features, n, level, plain.spread(), scaled.spread(), logs.sum(-1), largest)


def positive_diagonal(operator: MatrixOperator, probes: Float[Tensor, "*batch n s"]) -> Float[Tensor, "*batch n"]:
    """The diagonal, or where entries cannot be read its mean, from the probes."""
    if operator.has_entries:
        diagonal = operator.diagonal()
    else:
        mean = (probes * operator.matmul(probes)).sum((-1, -2)) / operator.num_rows
        diagonal = mean.unsqueeze(-1).expand(probes.shape[:-1])
    if not bool((diagonal > 0).all()):
        raise ValueError(
            "`A` must be positive definite for a PureRangeFormer. Got a diagonal entry (or mean) of "
            f"{float(diagonal.min()):.3g}; "
            "use the learned Krylov model, which takes any symmetric matrix."
        )
    return diagonal


def _means_over_probes(logs: list[Tensor], count: int) -> Float[Tensor, "*batch t"]:
    """Mean over the probes that still move, loop by loop; the last one known is repeated."""
    return _held([value.nanmean(-1) for value in logs], count)


def _scatter_over_probes(logs: list[Tensor], count: int) -> Float[Tensor, "*batch t"]:
    """Standard deviation over the probes that still move."""
    return _held([(v - v.nanmean(-1, keepdim=True)).square().nanmean(-1).sqrt() for v in logs], count)


def _held(values: list[Tensor], count: int) -> Tensor:
    held, last = [], torch.zeros_like(values[0])
    for value in [*values, *[torch.full_like(last, torch.nan)] * (count - len(values))]:
        last = torch.where(value.isnan(), last, value)
        held.append(last)
    return torch.stack(held[:count], dim=-1)
