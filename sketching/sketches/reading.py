"""Which rows of a matrix to read when only a few may be read.

Rows that stand next to each other are often alike (images, time series, sorted tables), so a sample takes one row from
each of c equal strata of the index: never more variance than c uniform rows, and without any order the same. Where a
few rows carry most of the energy uniform samples miss them; then one or two columns of A, a few per cent of the budget,
tell the others' sizes and rows are drawn with unequal probability (stratified all the same) and weighted by the inverse
probability of being read in either stage, so that sum_i w_i a_i a_i^T estimates A^T A in every case.
"""

from dataclasses import dataclass

import torch

from rangeformer.operators import MatrixOperator
from rangeformer.randomness import draw_order, draw_uniform
from rangeformer.shapes import Float, Int, Tensor

_FIRST = 24  # rows read before anything is decided
_HEAVY = 0.35  # effective share of the rows that carry the energy, below which their sizes are worth a column
_UNIFORM_SHARE = 0.5  # of the unequal draw; keeps every weight bounded


@dataclass(frozen=True)
class SampledRows:
    """Rows that were read, with what each stands for.

    Attributes:
        index: `(c,)` which rows, distinct.
        rows: `(c, n)` in A's dtype, each times the square root of its weight over a common scale: R^T R ~ A^T A /
            scale^2.
        num_columns_read: Whole columns that were read to find the sizes of rows.
    """

    index: Int[Tensor, " c"]
    rows: Float[Tensor, "c n"]
    num_columns_read: int = 0


def uniform_rows(operator: MatrixOperator, count: int, generator: torch.Generator) -> SampledRows:
    """Read `count` distinct rows, all equally likely: the plain sample of the textbooks.

    Args:
        operator: A, `(m, n)`.
        count: c, at most m.
        generator: Source.
    """
    index = draw_order(operator.num_rows, generator, device=operator.device)[:count]
    return SampledRows(index, scaled(operator.rows(index), torch.ones_like(index, dtype=torch.float64)))


def stratified_rows(operator: MatrixOperator, max_rows: int, generator: torch.Generator) -> SampledRows:
    """Read at most `max_rows` rows' worth of entries: a few rows first, then what they call for.

    Args:
        operator: A, `(m, n)`.
        max_rows: Budget, in rows; columns read count m / n each.
        generator: Source.

    Returns:
        The sample; fewer rows than allowed if the first ones span all that the next ones could show.
    """
    m, n = operator.num_rows, operator.num_columns
    if max_rows >= m:  # of strata narrower than a row some would be drawn twice, and others not at all
        index = torch.arange(m, device=operator.device)
        return SampledRows(index, scaled(operator.rows(index), torch.ones_like(index, dtype=torch.float64)))
    first_count = min(_FIRST, max_rows)
    uniform = torch.full((m,), 1.0 / m, dtype=torch.float64, device=operator.device)
    index = _strata(uniform * first_count, generator)
    rows = operator.rows(index)
    if max_rows <= _FIRST or _low_rank(rows, operator.dtype):
        return SampledRows(index, scaled(rows, torch.ones(len(index), dtype=torch.float64, device=rows.device)))
    distribution, num_read = uniform, 0
    energies = _energies(rows)
    columns_allowed = int((max_rows - first_count) / 4 * n / m)
    if columns_allowed >= 1 and _effective_number(energies) < _HEAVY * len(index):
        num_read = min(2, columns_allowed)
        loudest = _energies(rows.mT).topk(min(num_read, n)).indices
        sizes = _energies(operator.columns(loudest))
        if bool(sizes.sum() > 0):
            distribution = _UNIFORM_SHARE * uniform + (1 - _UNIFORM_SHARE) * sizes / sizes.sum()
    more_count = max_rows - first_count - -(-num_read * m // n)
    unread = torch.ones(m, dtype=torch.bool, device=operator.device)
    unread[index] = False
    expected = _expected_numbers(distribution, unread, more_count)
    more = _strata(expected * unread, generator)
    index = torch.cat([index, more])
    read_first = first_count / m
    chance = read_first + (1 - read_first) * expected[index]
    return SampledRows(index, scaled(torch.cat([rows, operator.rows(more)]), 1 / chance), num_read)


def scaled(rows: Float[Tensor, "c n"], weights: Float[Tensor, " c"]) -> Float[Tensor, "c n"]:
    """Rows times the square roots of their weights, in units in which squares are safe.

    Args:
        rows: As read.
        weights: Inverse expected numbers, float64.
    """
    least, most = rows.aminmax()
    peak = torch.maximum(most, -least)
    if not bool(peak > 0):
        return rows
    # one division a number, of a quotient that cannot overflow
    return rows / (peak / (weights / weights.max()).sqrt().to(rows.dtype).unsqueeze(-1))


def _expected_numbers(distribution: Float[Tensor, " m"], unread: Tensor, count: int) -> Tensor:
    """Probabilities proportional to the distribution that sum to `count` over the unread rows.

    Those that would pass one are one.
    """
    expected = distribution * (count / distribution[unread].sum())
    for _ in range(3):  # capping some rows raises the others, which may cap a few more
        certain = expected >= 1
        if not bool(certain.any()):
            break
        room = count - int((certain & unread).sum())
        rest = distribution[unread & ~certain].sum()
        if room <= 0 or not bool(rest > 0):
            break
        expected = torch.where(certain, torch.ones_like(distribution), distribution * (room / rest))
    return expected.clamp_max(1.0)


def _strata(expected: Float[Tensor, " m"], generator: torch.Generator) -> Tensor:
    """The certain rows, and of the others one from each stratum of unit expected number; an index never comes twice."""
    certain = (expected >= 1).nonzero().squeeze(-1)
    ends = torch.where(expected >= 1, torch.zeros_like(expected), expected).cumsum(0)
    count = round(float(ends[-1]))
    if count == 0:
        return certain
    jitter = draw_uniform((count,), generator, dtype=torch.float64, device=expected.device)
    targets = (torch.arange(count, dtype=torch.float64, device=expected.device) + jitter) * (ends[-1] / count)
    drawn = torch.searchsorted(ends, targets, right=True).clamp_max(len(expected) - 1)
    return torch.cat([certain, drawn]).unique()


def _energies(rows: Float[Tensor, "c n"]) -> Tensor:
    rows = rows.to(torch.float64)
    peak = rows.abs().amax()
    return (rows / peak).square().sum(-1) if bool(peak > 0) else rows.square().sum(-1)


def _effective_number(energies: Float[Tensor, " c"]) -> float:
    """(sum e)^2 / sum e^2: how many rows share the energy; c if there is none."""
    square = energies.square().sum()
    return float(energies.sum().square() / square) if bool(square > 0) else float(len(energies))


def _low_rank(rows: Float[Tensor, "c n"], dtype: torch.dtype) -> bool:
    """Whether the rows are so dependent that more of them would most likely bring nothing."""
    unit = scaled(rows, torch.ones(len(rows), dtype=torch.float64, device=rows.device)).to(torch.float64)
    values = torch.linalg.eigvalsh(unit @ unit.mT)
    floor = (10 * torch.finfo(dtype).eps) ** 2 * len(rows) if dtype == torch.float32 else 1e-14
    return int((values > floor * values[-1]).sum()) <= len(rows) // 2 and bool(values[-1] > 0)
