"""`lstsq`: least squares for a rectangular or singular matrix by a looped model."""

from typing import Any

import torch

from rangeformer.arrays import numpy_in_numpy_out
from rangeformer.krylov.certificate import ScaledColumns, column_norms
from rangeformer.models.learned_krylov import LearnedKrylovModel
from rangeformer.models.scaled_operator import ColumnsInUnits, ScaledOperator, solution_beyond_range
from rangeformer.operators import as_operator
from rangeformer.results import LeastSquares, costs, warn_unconverged
from rangeformer.shapes import Float, Tensor
from rangeformer.solvers.learned_krylov import METHOD, check_learned_krylov, check_loops
from rangeformer.validation import check_rhs, check_tolerance, like


@numpy_in_numpy_out
def lstsq(
    A: Any,
    rhs: Float[Tensor, "..."],
    *,
    rtol: float = 1e-6,
    model: LearnedKrylovModel | None = None,
    num_loops: int | None = None,
    generator: torch.Generator | None = None,
) -> LeastSquares:
    """X that minimises ||rhs - A X||, the shortest one where it is not unique.

    The space is the block Krylov space of A^T A started at A^T rhs, which holds the iterates of LSQR (Paige & Saunders
    1982); two passes a loop. Once `num_loops` x 64 >= min(m, n) the answer is exact up to rounding.

    Args:
        A: `(*batch, m, n)`, anything `as_operator` accepts that can be multiplied from both sides; any shape and rank.
        rhs: `(m,)` or `(*batch, m, k)`, in A's dtype and on its device.
        rtol: Largest ||A^T r|| / (||A|| ||r||) accepted, r = rhs - A x, or ||r|| / ||rhs|| if that is smaller.
        model: A `LearnedKrylovModel`. Default: the shipped one.
        num_loops: Loops of the model. Default: the model's own, 16.
        generator: Source of randomness; a fixed one if None.

    Returns:
        The solution with its recomputed residuals; not differentiable.

    Raises:
        TypeError: Wrong type or dtype of an argument.
        ValueError: Wrong shape, device or value of an argument.
        NotImplementedError: A cannot be multiplied from the left.

    Warns:
        ConvergenceWarning: If a column misses `rtol`, or its solution lies beyond its type's range (it is zero then).

    Example:
        >>> import torch, rangeformer as rf
        >>> A = torch.tensor([[1.0], [1.0]], dtype=torch.float64)
        >>> round(rf.lstsq(A, torch.tensor([1.0, 3.0], dtype=torch.float64)).value.item(), 6)
        2.0
    """
    operator = as_operator(A, **like(rhs))
    columns = check_rhs(operator, rhs).detach()
    check_tolerance("rtol", rtol)
    answering = check_learned_krylov(model)
    loops = check_loops(num_loops, answering)
    before = operator.reads.snapshot()
    columns_scaled, scaled = ScaledColumns.of(columns), ScaledOperator(operator)
    with torch.no_grad():
        unit = columns_scaled.units(operator.dtype)
        space = answering.least_squares_space(scaled, unit, num_loops=loops, generator=generator)
        rank_rtol = max(operator.shape[-2:]) * torch.finfo(operator.dtype).eps
        coefficients = space.minimal_residual(unit, rank_rtol=rank_rtol)
        solution = ColumnsInUnits.of(columns_scaled, scaled)
        value, holds = solution.restored(space.combine(coefficients), operator.dtype)
        residual = columns_scaled.vectors - scaled.matmul_precise(solution.in_units(value))
        residual = residual / columns_scaled.norms.unsqueeze(-2)
        residual_norms = torch.linalg.vector_norm(residual, dim=-2)
        gradient = column_norms(scaled.rmatmul(residual.to(operator.dtype)))
        largest = torch.linalg.matrix_norm(space.images.to(torch.float64), ord=2).unsqueeze(-1)
        gradient_norms = gradient / torch.where(largest > 0, largest, torch.ones_like(largest))
    # The two stopping rules of LSQR: a stationary point, or no residual.
    converged = (gradient_norms <= rtol * residual_norms) | (residual_norms <= rtol)
    message = "Converged."
    if not bool(converged.all()):
        message = solution_beyond_range(operator.dtype)
        if bool((holds | converged).all()):
            worst = float((gradient_norms / residual_norms)[~converged].max())
            message = (
                f"Not converged: ||A^T r|| / (||A|| ||r||) is {worst:.1e} > rtol={rtol:.1e} after {loops} loops. Allow "
                "more loops, or a looser rtol if A is very ill-conditioned."
            )
        warn_unconverged(message)
    vector = rhs.dim() == 1
    return LeastSquares(
        value=value.squeeze(-1) if vector else value,
        residual_norms=(residual_norms.squeeze(-1) if vector else residual_norms).to(operator.dtype),
        gradient_norms=(gradient_norms.squeeze(-1) if vector else gradient_norms).to(operator.dtype),
        converged=converged.squeeze(-1) if vector else converged,
        num_loops=loops,
        method=METHOD,
        message=message,
        **costs(operator.reads.since(before)),
    )
