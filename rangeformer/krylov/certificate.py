"""The certificate of a solve: its residual, recomputed from the value, and a dense answer where that is better."""

import math
from dataclasses import dataclass

import torch

from rangeformer.dense_factorisation import dense, direct_solve, may_solve_directly
from rangeformer.krylov.compensated import compensated_residual
from rangeformer.operators import MatrixOperator
from rangeformer.shapes import Bool, Float, Tensor

_UNCERTAIN = 0.1  # rounding below this share of what decides cannot change the verdict


def powers_of_two(rhs: Tensor) -> Float[Tensor, "*batch 1 k"]:
    """A power of two near the largest entry of every column: dividing by it changes no digit."""
    peak = rhs.abs().to(torch.float64).amax(-2, keepdim=True)
    return torch.exp2(torch.frexp(peak).exponent.to(torch.float64) - 1)


@dataclass(frozen=True)
class ScaledColumns:
    """Right-hand sides of size one: squares of tiny and huge ones would leave the range of floating point.

    Attributes:
        size: `(*batch, 1, k)` powers of two near the largest entry of every column.
        vectors: `(*batch, n, k)` the columns over `size`, float64.
        norms: `(*batch, k)` of `vectors`; one for zero columns.
        is_zero: `(*batch, k)` columns that are zero.
    """

    size: Float[Tensor, "*batch 1 k"]
    vectors: Float[Tensor, "*batch n k"]
    norms: Float[Tensor, "*batch k"]
    is_zero: Bool[Tensor, "*batch k"]

    @classmethod
    def of(cls, rhs: Float[Tensor, "*batch n k"]) -> "ScaledColumns":
        """Scale these."""
        size = powers_of_two(rhs)
        vectors = rhs.to(torch.float64) / size
        norms = torch.linalg.vector_norm(vectors, dim=-2)
        is_zero = ~(norms > 0)
        return cls(size, vectors, torch.where(is_zero, torch.ones_like(norms), norms), is_zero)

    def units(self, dtype: torch.dtype) -> Float[Tensor, "*batch n k"]:
        """The columns at norm one (or zero)."""
        return (self.vectors / self.norms.unsqueeze(-2)).to(dtype)

    def restored(self, units: Float[Tensor, "*batch m k"]) -> Float[Tensor, "*batch m k"]:
        """What belongs to the columns themselves, of what belongs to `units`; float64."""
        return units.to(torch.float64) * self.norms.unsqueeze(-2) * self.size


def column_norms(vectors: Float[Tensor, "*batch n k"]) -> Float[Tensor, "*batch k"]:
    """Norms of columns of any size, float64: squares of tiny and huge entries would leave the range of the type."""
    size = powers_of_two(vectors)
    return torch.linalg.vector_norm(vectors.to(torch.float64) / size, dim=-2) * size.squeeze(-2)


def relative_residuals(
    operator: MatrixOperator, rhs: Tensor, value: Tensor, scale: Tensor, rtol: float
) -> tuple[Tensor, Tensor]:
    """Norms of rhs - A value over `scale`, infinite where not finite, and the residual itself; both float64.

    Args:
        operator: A, read in one pass (in none where the value is zero).
        rhs: `(*batch, m, k)`, float64.
        value: `(*batch, n, k)`, float64.
        scale: `(*batch, k)`.
        rtol: Decides whether a product in A's own precision is precise enough.
    """
    if not bool(value.any()):
        residual = rhs
    elif needs_precision(operator, value, scale, rtol):
        residual = rhs - operator.matmul_precise(value)
    else:
        residual = rhs - operator.matmul(value.to(operator.dtype)).to(torch.float64)
    relative = torch.linalg.vector_norm(residual, dim=-2) / scale
    return torch.where(relative.isfinite(), relative, torch.full_like(relative, torch.inf)), residual


def needs_precision(operator: MatrixOperator, value: Tensor, scale: Tensor, rtol: float) -> bool:
    """Whether rounding to A's own precision, of products or of the value, could hide a residual of this size."""
    if rtol < 10 * math.sqrt(operator.num_rows) * torch.finfo(operator.dtype).eps:
        return True
    if operator.dtype == torch.float64:
        return False  # there is no higher one; `certified_residuals` sees to the cases that matter
    return bool((rounding(operator, value, scale, operator.dtype) > _UNCERTAIN * rtol).any())


def rounding(operator: MatrixOperator, value: Tensor, scale: Tensor, dtype: torch.dtype) -> Float[Tensor, "*batch k"]:
    """What rounding a product in `dtype` may do to the relative residual of `value`; zero where it cannot be known.

    Rounding errors of sums of n terms add up at random: sqrt(n) eps |A| |value|, with |A| from the diagonal, which
    bounds the entries of a positive semi-definite A.
    """
    sizes = operator.sizes
    if sizes is None:
        return torch.zeros_like(scale)
    share = math.sqrt(operator.num_rows) * torch.finfo(dtype).eps
    reach = (sizes.unsqueeze(-1) * value.abs()).sum(-2)
    bound = share * torch.linalg.vector_norm(sizes, dim=-1).unsqueeze(-1) * reach / scale
    return torch.where(bound.isfinite(), bound, torch.full_like(bound, torch.inf))


def certified_residuals(
    operator: MatrixOperator,
    rhs: Float[Tensor, "*batch n k"],
    value: Float[Tensor, "*batch n k"],
    scale: Float[Tensor, "*batch k"],
    relative: Float[Tensor, "*batch k"],
    rtol: float,
) -> Float[Tensor, "*batch k"]:
    """Relative residuals, recomputed in twice the precision where rounding could hide that rtol is missed.

    Args:
        operator: A, square.
        rhs: As in `relative_residuals`.
        value: As it is returned, divided as `rhs` is, float64.
        scale: As in `relative_residuals`.
        relative: What float64 products say of `value`.
        rtol: What decides.
    """
    if not may_solve_directly(operator):
        return relative
    error = rounding(operator, value, scale, torch.float64)
    doubtful = (error > _UNCERTAIN * relative) & (relative + error > rtol) & relative.isfinite()
    if not bool(doubtful.any()):
        return relative
    sizes = operator.sizes
    assert sizes is not None
    # In units of the diagonal no entry is beyond one: slices of rows lose nothing. Powers of two are exact.
    units = powers_of_two(torch.where(sizes > 0, sizes, torch.ones_like(sizes)).unsqueeze(-2)).mT
    matrix = dense(operator) / units / units.mT
    residual = units * compensated_residual(matrix, rhs / units, value * units)
    exact = torch.linalg.vector_norm(residual, dim=-2) / scale
    return torch.where(doubtful & exact.isfinite(), exact, relative)


def directly_where_better(
    operator: MatrixOperator,
    rhs: Float[Tensor, "*batch n k"],
    value: Float[Tensor, "*batch n k"],
    relative: Float[Tensor, "*batch k"],
    missed: Bool[Tensor, "*batch k"],
    *,
    size: Tensor,
    scale: Tensor,
    rtol: float,
) -> tuple[Tensor, Tensor, str | None]:
    """Put a dense factorisation's answer where it leaves a smaller residual in a column that missed its tolerance.

    Args:
        operator: A, small enough for `may_solve_directly`.
        rhs: Divided by `size`, float64.
        value: The answer so far, in A's dtype.
        relative: Its relative residuals.
        missed: Columns that may change.
        size: `(*batch, 1, k)` powers of two that rhs was divided by.
        scale: `(*batch, k)` norms of rhs.
        rtol: As in `relative_residuals`.

    Returns:
        Value, its relative residuals, and the factorisation's name or None where nothing was better.
    """
    direct = direct_solve(operator, rhs)
    trial = (direct.value * size).to(operator.dtype)
    trial_relative, _ = relative_residuals(operator, rhs, trial.to(torch.float64) / size, scale, rtol)
    better = (trial_relative < relative) & missed
    value, relative = torch.where(better.unsqueeze(-2), trial, value), torch.where(better, trial_relative, relative)
    return value, relative, direct.method if bool(better.any()) else None
