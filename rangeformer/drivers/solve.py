"""`linear_solve`: A X = rhs with the residual as certificate."""

from typing import Any

import torch

from rangeformer.arrays import numpy_in_numpy_out
from rangeformer.autograd import Adjoint
from rangeformer.models.looped_model import LoopedModel
from rangeformer.operators import as_operator
from rangeformer.preconditioners.base import Preconditioner
from rangeformer.preconditioners.build import build_preconditioner, check_preconditioner
from rangeformer.preconditioners.options import PreconditionerOptions
from rangeformer.results import Solution, costs, drop_column
from rangeformer.shapes import Float, Tensor
from rangeformer.solvers.base import Solver, Stopping
from rangeformer.solvers.choice import LearnedKrylov, canonical_fallback, canonical_method, resolve_solver
from rangeformer.solvers.iterative import automatic
from rangeformer.solvers.refinement import refine
from rangeformer.validation import check_rhs, check_square, check_symmetric, like


@numpy_in_numpy_out
def linear_solve(
    A: Any,
    rhs: Float[Tensor, "..."],
    *,
    rtol: float = 1e-6,
    preconditioner: str | PreconditionerOptions | Preconditioner | None = "rangeformer",
    max_iterations: int = 1000,
    method: str | Solver | LearnedKrylov = "auto",
    fallback: str | None = "dense",
    error_rtol: float | None = None,
    generator: torch.Generator | None = None,
    model: LoopedModel | None = None,
    num_loops: int | None = None,
) -> Solution:
    """Solve A X = rhs, A symmetric positive definite, every column to relative residual `rtol`.

    With `method="learned-krylov"` a looped model answers instead of an iteration with a preconditioner, and A may be
    indefinite or unsymmetric.

    Args:
        A: `(*batch, n, n)`, anything `as_operator` accepts.
        rhs: `(n,)` or `(*batch, n, k)`, in A's dtype and on its device.
        rtol: Largest ||rhs - A x|| / ||rhs|| accepted, for the worst column.
        preconditioner: A name, an options object, a finished `Preconditioner`, or None; see `build_preconditioner`.
        max_iterations: Iterations at most, all refinements together; each is one pass over A for up to 64 columns.
        method: "cg" (`rf.CG()`, own Krylov space per column), "block-cg" (`rf.BlockLanczos()`, one space shared by all
            columns), "auto" (one of the two), "learned-krylov" (`rf.LearnedKrylov()`; neither `preconditioner` nor
            `max_iterations` matters then), or a `Solver` of your own.
        fallback: "dense" solves by dense factorisation in float64 when the iteration fails and A is of moderate size;
            None returns the best iterate. Both say so in the result.
        error_rtol: Relative error of x to aim at beyond rtol, as far as A's precision goes, where A states its noise: a
            right-hand side whose bulk A^-1 damps, such as targets far from zero, otherwise leaves x itself inaccurate.
            `error_bounds` says what was reached.
        generator: Source of randomness (pivots, order of rows); a fixed one if None.
        model: For "learned-krylov": the model. Default: the shipped one, exact once num_loops x 64 >= n.
        num_loops: For "learned-krylov": passes of the model. Default: the model's own, 16.

    Returns:
        The solution with its recomputed residuals, iterations and reads. Gradients flow through `value` to rhs and to
        whatever A is built from (by one adjoint solve with the same preconditioner).

    Raises:
        TypeError: Wrong type or dtype of an argument.
        ValueError: Wrong shape, device or value of an argument; A not symmetric or not finite.

    Warns:
        ConvergenceWarning: If a column misses `rtol`, or the fallback was used.

    Example:
        >>> import torch, rangeformer as rf
        >>> A = torch.diag(torch.arange(1.0, 101.0))
        >>> solution = rf.linear_solve(A, torch.ones(100))
        >>> bool(solution.converged.all()), bool(solution.residual_norms.max() <= 1e-6)
        (True, True)
    """
    operator = as_operator(A, **like(rhs))
    check_square(operator)
    columns = check_rhs(operator, rhs)
    stopping = Stopping(rtol, max_iterations, canonical_fallback(fallback), error_rtol)
    check_preconditioner(preconditioner)
    solver = resolve_solver(canonical_method(method), model, num_loops)
    if isinstance(solver, LearnedKrylov):
        solution = solver.solve(operator, columns, stopping, generator)
        return drop_column(solution) if rhs.dim() == 1 else solution
    before = operator.reads.snapshot()
    check_symmetric(operator)
    with torch.no_grad():
        P = build_preconditioner(operator, preconditioner, num_rhs=columns.shape[-1], generator=generator)
        chosen = solver or automatic(columns.shape[-1], is_exact=P.is_exact)
        refined = refine(operator, columns.detach(), P, chosen, stopping)
    value = refined.value
    if torch.is_grad_enabled() and (operator.requires_grad or columns.requires_grad):

        def adjoint(gradient: Tensor) -> Tensor:
            return refine(operator, gradient, P, chosen, stopping).value

        value = Adjoint.apply(columns - operator.matmul(value), value, adjoint, operator.requires_grad)
    solution = Solution(
        value=value,
        converged=refined.converged,
        residual_norms=refined.relative.to(rhs.dtype),
        num_iterations=refined.num_iterations,
        method=chosen.name,
        preconditioner=P.name,
        status=refined.status,
        cause=refined.cause,
        fallback=refined.fallback,
        message=refined.message,
        error_bounds=None if refined.error_bounds is None else refined.error_bounds.to(rhs.dtype),
        **costs(operator.reads.since(before)),
    )
    return drop_column(solution) if rhs.dim() == 1 else solution
