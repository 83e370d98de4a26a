"""`inverse_matmul`, `inverse_trace` and `trace`: what the inverse does and the two traces, by a looped model."""

from typing import Any

import torch

from rangeformer.arrays import numpy_in_numpy_out
from rangeformer.krylov.certificate import powers_of_two
from rangeformer.models.learned_krylov import LearnedKrylovModel
from rangeformer.models.looped_model import LoopedModel
from rangeformer.models.scaled_operator import ScaledOperator, beyond_range
from rangeformer.operators import MatrixOperator, as_operator
from rangeformer.results import CostCounts, Estimate, Solution, costs, drop_column, warn_unconverged
from rangeformer.shapes import Float, Tensor
from rangeformer.solvers.base import Stopping
from rangeformer.solvers.choice import LearnedKrylov, canonical_fallback
from rangeformer.solvers.learned_krylov import METHOD, check_learned_krylov, check_loops
from rangeformer.validation import check_rhs, check_square, check_symmetric, check_tolerance, like


@numpy_in_numpy_out
def inverse_matmul(
    A: Any,
    B: Float[Tensor, "..."],
    *,
    rtol: float = 1e-6,
    model: LoopedModel | None = None,
    num_loops: int | None = None,
    fallback: str | None = "dense",
    generator: torch.Generator | None = None,
) -> Solution:
    """A^-1 B of a square A: `linear_solve` by a looped model.

    Args:
        A: `(*batch, n, n)`, anything `as_operator` accepts; symmetric, or any
            square matrix for the learned Krylov model.
        B: `(n,)` or `(*batch, n, k)`; the identity gives the inverse itself, in one pass.
        rtol: Largest ||B - A x|| / ||B|| accepted, for the worst column.
        model: Default: the shipped learned Krylov model.
        num_loops: Passes of the model. Default: the model's own, 16.
        fallback: "dense" or None, as in `linear_solve`.
        generator: Source of randomness; a fixed one if None.

    Returns:
        The product with its recomputed residuals; gradients flow as in `linear_solve`.

    Raises:
        TypeError: Wrong type or dtype of an argument.
        ValueError: Wrong shape, device or value of an argument.

    Warns:
        ConvergenceWarning: If a column misses `rtol`, or the fallback was used.

    Example:
        >>> import torch, rangeformer as rf
        >>> A = torch.tensor([[0.0, 2.0], [4.0, 0.0]], dtype=torch.float64)
        >>> inverse = rf.inverse_matmul(A, torch.eye(2, dtype=torch.float64)).value
        >>> [[round(x, 6) + 0.0 for x in row] for row in inverse.tolist()]
        [[0.0, 0.25], [0.5, 0.0]]
    """
    operator = as_operator(A, **like(B))
    check_square(operator)
    columns = check_rhs(operator, B)
    stopping = Stopping(rtol, fallback=canonical_fallback(fallback))
    solution = LearnedKrylov(model, num_loops).solve(operator, columns, stopping, generator)
    return drop_column(solution) if B.dim() == 1 else solution


@numpy_in_numpy_out
def inverse_trace(
    A: Any,
    *,
    rtol: float = 1e-3,
    model: LearnedKrylovModel | None = None,
    num_loops: int | None = None,
    generator: torch.Generator | None = None,
) -> Estimate:
    """Tr A^-1 of a symmetric A: the sum of the inverse Ritz values, by Gauss quadrature where there are fewer than n.

    Args:
        A: `(*batch, n, n)` symmetric, anything `as_operator` accepts.
        rtol: Estimated error accepted, relative to the value.
        model: A `LearnedKrylovModel`. Default: the shipped one.
        num_loops: Passes of the model. Default: the model's own, 16.
        generator: Source of randomness; a fixed one if None.

    Returns:
        The trace with an error estimate, infinite where A is singular; not differentiable.

    Raises:
        TypeError: Wrong type of an argument.
        ValueError: Wrong shape or value of an argument; A not symmetric or not finite.

    Warns:
        ConvergenceWarning: If the estimated error is above `rtol` or A is singular.

    Example:
        >>> import torch, rangeformer as rf
        >>> round(rf.inverse_trace(torch.diag(torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64))).value.item(), 6)
        1.75
    """
    operator, answering, loops = _checked(A, rtol, model, num_loops)
    before = operator.reads.snapshot()
    scaled = ScaledOperator(operator)
    check_symmetric(scaled)
    with torch.no_grad():
        value, error = answering.inverse_trace(scaled, num_loops=loops, generator=generator)
    singular = "`A` is singular: its inverse does not exist and its trace is infinite. Add a multiple of the identity."
    spent = costs(operator.reads.since(before))
    return _estimate(scaled, value, error, rtol, loops, METHOD, singular, spent, power=-1)


@numpy_in_numpy_out
def trace(
    A: Any,
    *,
    rtol: float = 1e-3,
    model: LearnedKrylovModel | None = None,
    num_loops: int | None = None,
    generator: torch.Generator | None = None,
) -> Estimate:
    """Tr A: read off the diagonal where it can be read, else from the products of a symmetric A.

    Args:
        A: `(*batch, n, n)`, anything `as_operator` accepts; symmetric if it is known through products alone.
        rtol: Estimated error accepted, relative to the value.
        model: A `LearnedKrylovModel`. Default: the shipped one.
        num_loops: Passes of the model. Default: the model's own, 16.
        generator: Source of randomness; a fixed one if None.

    Returns:
        The trace with an error estimate.

    Raises:
        TypeError: Wrong type of an argument.
        ValueError: Wrong shape or value of an argument; A not symmetric or not finite.

    Warns:
        ConvergenceWarning: If the estimated error is above `rtol`.

    Example:
        >>> import torch, rangeformer as rf
        >>> result = rf.trace(torch.eye(5))
        >>> result.value.item(), result.method
        (5.0, 'diagonal')
    """
    operator, answering, loops = _checked(A, rtol, model, num_loops)
    before = operator.reads.snapshot()
    scaled = ScaledOperator(operator)
    with torch.no_grad():
        if operator.has_entries:
            method, diagonal = "diagonal", operator.diagonal().to(torch.float64)
            # Partial sums may leave the range where the sum does not.
            size = powers_of_two(diagonal.unsqueeze(-1)).squeeze(-1).squeeze(-1)
            scaled = ScaledOperator(operator, exponent=torch.log2(size).round()[..., None, None])
            value = (diagonal / size.unsqueeze(-1)).sum(-1)
            error = torch.zeros_like(value)
        else:
            check_symmetric(scaled)
            method = METHOD
            value, error = answering.trace(scaled, num_loops=loops, generator=generator)
    return _estimate(scaled, value, error, rtol, loops, method, "", costs(operator.reads.since(before)), power=1)


def _checked(A: Any, rtol: float, model: Any, num_loops: int | None) -> tuple[MatrixOperator, LearnedKrylovModel, int]:
    operator = as_operator(A)
    check_square(operator)
    check_tolerance("rtol", rtol)
    answering = check_learned_krylov(model)
    return operator, answering, check_loops(num_loops, answering)


def _estimate(
    scaled: ScaledOperator,
    value: Tensor,
    error: Tensor,
    rtol: float,
    num_loops: int,
    method: str,
    singular: str,
    spent: CostCounts,
    *,
    power: int,
) -> Estimate:
    """The result, from what belongs to A in units of its size and grows like A^power."""
    error = torch.where(value.isfinite(), error, torch.full_like(error, torch.nan))
    tolerance = rtol * value.abs()
    converged = error <= tolerance
    is_singular = bool(value.isinf().any())
    estimate, holds = scaled.restored(value.unsqueeze(-1), tolerance.unsqueeze(-1), power=power)
    holds = holds.squeeze(-1)
    errors, _ = scaled.restored(error.unsqueeze(-1), tolerance.unsqueeze(-1), power=power)
    message = "Converged."
    if is_singular:
        message = singular
    elif not bool(holds.all()):
        message = beyond_range("the trace", scaled.dtype)
    elif not bool(converged.all()):
        message = (
            f"Not converged: the estimated error is {float((error / value.abs()).nan_to_num().max()):.1e} of the "
            f"value, more than rtol={rtol:.1e}, after {num_loops} loops. Allow more loops: the answer is exact once "
            "loops x 64 reach n."
        )
    converged = converged & holds
    if not bool(converged.all()):
        warn_unconverged(message)
    return Estimate(
        value=estimate.squeeze(-1),
        error=errors.squeeze(-1),
        converged=converged,
        num_loops=num_loops,
        method=method,
        message=message,
        **spent,
    )
