"""`linear_solve`: A X = rhs for symmetric positive definite A, with the residual as certificate.

The inner solver (CG per column, or one block Krylov space for all columns) works in A's precision on the whole
problem; around it, iterative refinement recomputes the residual from the solution itself, in float64 where A's storage
allows, and solves again for what is left. That is residual replacement taken to its end: float32 solves reach
the accuracy that float32 storage of A and of the solution permits.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from rangeformer.dense_factorisation import may_solve_directly
from rangeformer.krylov.block_lanczos import BlockKrylov
from rangeformer.krylov.certificate import (
    Adjoint,
    directly_where_better,
    needs_precision,
    powers_of_two,
    relative_residuals,
)
from rangeformer.krylov.conjugate_gradients import Iterate, conjugate_gradients
from rangeformer.models.looped_model import LoopedModel
from rangeformer.operators import MatrixOperator, as_operator
from rangeformer.preconditioners.base import Preconditioner
from rangeformer.preconditioners.build import Options, build_preconditioner, check_preconditioner
from rangeformer.results import Solution, costs, warn_unconverged
from rangeformer.shapes import Float, Tensor
from rangeformer.solvers.learned_krylov import METHOD as DIRECT
from rangeformer.solvers.learned_krylov import check_loops, check_model, solve_by_model
from rangeformer.validation import (
    check_count,
    check_rhs,
    check_square,
    check_symmetric,
    check_tolerance,
)

_METHODS = ("auto", "cg", "block-cg", DIRECT)
_FALLBACKS = ("direct", None)
# One shared space pays from a few columns on and as long as a block is thin beside the matrix.
_BLOCK_FROM = 4
_MAX_BLOCK = 64
_BASIS_BYTES = 1 << 30
# Beyond this many basis vectors re-orthogonalising costs more than the passes a shared space saves.
_MAX_BASIS = 1024
# Looks at the true residual that may fail to halve it before the working precision is taken to be exhausted.
_PATIENCE = 4
# A shared space that is full before it gained this much would restart for ever; separate recurrences go on instead.
_RESTART_GAIN = 0.1


def linear_solve(
    A: Any,
    rhs: Float[Tensor, "..."],
    *,
    rtol: float = 1e-6,
    preconditioner: str | Options | Preconditioner | None = "rangeformer",
    max_iterations: int = 1000,
    method: str = "auto",
    fallback: str | None = "direct",
    generator: torch.Generator | None = None,
    model: LoopedModel | None = None,
    num_loops: int | None = None,
) -> Solution:
    """Solve A X = rhs, A symmetric positive definite, every column to relative residual `rtol`.

    With `method="rangeformer-direct"` a looped model answers instead of an iteration with a preconditioner, and A may be
    indefinite or unsymmetric.

    Args:
        A: `(*batch, n, n)`, anything `as_operator` accepts.
        rhs: `(n,)` or `(*batch, n, k)`, in A's dtype and on its device.
        rtol: Largest ||rhs - A x|| / ||rhs|| accepted, for the worst column.
        preconditioner: A name, an options object, a finished `Preconditioner`, or None; see `build_preconditioner`.
        max_iterations: Iterations at most, all refinements together; each is one pass over A for up to 64 columns.
        method: "cg" (own Krylov space per column), "block-cg" (one space shared by all columns), "auto" (one of the
            two), or "rangeformer-direct" (neither `preconditioner` nor `max_iterations` matters then).
        fallback: "direct" solves by dense factorisation in float64 when the iteration fails and A is a dense matrix of
            moderate size; None returns the best iterate. Both say so in the result.
        generator: Source of randomness (pivots, order of rows); a fixed one if None.
        model: For "rangeformer-direct": who answers. Default: the Galerkin member, exact once num_loops x 64 >= n.
        num_loops: For "rangeformer-direct": passes of the model. Default: the model's own, 16.

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
    check_tolerance("rtol", rtol)
    check_count("max_iterations", max_iterations, least=1)
    check_preconditioner(preconditioner)
    _check_choice("method", method, _METHODS)
    _check_choice("fallback", fallback, _FALLBACKS)
    member = check_model(model)
    loops = check_loops(num_loops, member)
    if method == DIRECT:
        solution = solve_by_model(
            operator, columns, member, num_loops=loops, rtol=rtol, fallback=fallback, generator=generator
        )
        return drop_column(solution) if rhs.dim() == 1 else solution
    before = operator.reads.snapshot()
    check_symmetric(operator)
    with torch.no_grad():
        P = build_preconditioner(operator, preconditioner, num_rhs=columns.shape[-1], generator=generator)
        solution = solve_checked(
            operator,
            columns.detach(),
            P,
            rtol=rtol,
            max_iterations=max_iterations,
            method=method,
            fallback=fallback,
        )
    value = solution.value
    if torch.is_grad_enabled() and (operator.requires_grad or columns.requires_grad):

        def adjoint(gradient: Tensor) -> Tensor:
            return solve_checked(
                operator,
                gradient,
                P,
                rtol=rtol,
                max_iterations=max_iterations,
                method=method,
                fallback=fallback,
            ).value

        residual = columns - operator.matmul(value)
        value = Adjoint.apply(residual, value, adjoint)
    solution = replace(solution, value=value, **costs(operator.reads.since(before)))
    return drop_column(solution) if rhs.dim() == 1 else solution


def solve_checked(
    operator: MatrixOperator,
    rhs: Float[Tensor, "*batch n k"],
    P: Preconditioner,
    *,
    rtol: float,
    max_iterations: int,
    method: str,
    fallback: str | None,
    start: Float[Tensor, "*batch n k"] | None = None,
) -> Solution:
    """The solve itself, on checked arguments and without autograd.

    Args:
        operator: A.
        rhs: `(*batch, n, k)`.
        P: The preconditioner.
        rtol: Worst column's relative residual.
        max_iterations: Passes at most.
        method: "auto", "cg" or "block-cg".
        fallback: "direct" or None.
        start: A first guess to refine; zero if None.
    """
    before = operator.reads.snapshot()
    if method == "auto":
        method = "block-cg" if rhs.shape[-1] >= _BLOCK_FROM or P.is_exact else "cg"
    # Columns of size one, or squares of tiny and huge ones would leave the range of floating point.
    size = powers_of_two(rhs)
    wide = rhs.to(torch.float64) / size
    norms = torch.linalg.vector_norm(wide, dim=-2)
    scale = torch.where(norms > 0, norms, torch.ones_like(norms))
    value = torch.zeros_like(wide) if start is None else start.to(torch.float64) / size
    relative, residual = relative_residuals(operator, wide, value, scale, rtol)
    if start is not None:
        useful = (relative < 1).unsqueeze(-2)
        value, residual = torch.where(useful, value, torch.zeros_like(value)), torch.where(useful, residual, wide)
        relative = relative.clamp_max(1.0)
    # One refinement cannot gain more than the working precision holds, and float32 images of a kernel's large
    # eigenvalues hold little: several short refinements reach further than a long one.
    eps = torch.finfo(operator.dtype).eps
    reach = 50 * eps if operator.dtype == torch.float64 else eps**0.5
    num_iterations, message, inner_method = 0, "Converged.", method
    indefinite = torch.zeros_like(relative, dtype=torch.bool)
    given_up = torch.zeros_like(indefinite)
    while bool((unsolved := (relative > rtol) & ~given_up).any()) and num_iterations < max_iterations:
        targets = torch.maximum(0.5 * rtol / relative.clamp_min(1e-300), torch.full_like(relative, reach))
        targets = torch.where(unsolved, targets, torch.full_like(targets, torch.inf))
        unit = residual / (relative * scale).clamp_min(1e-300).unsqueeze(-2)
        inner = _inner(operator, unit.to(operator.dtype), P, targets, max_iterations - num_iterations, inner_method)
        num_iterations += inner.num_iterations
        indefinite = indefinite | inner.indefinite
        correction = inner.value.to(torch.float64) * (relative * scale).unsqueeze(-2)
        trial = value + correction
        trial_relative, trial_residual = relative_residuals(operator, wide, trial, scale, rtol)
        better = trial_relative < relative
        value = torch.where(better.unsqueeze(-2), trial, value)
        residual = torch.where(better.unsqueeze(-2), trial_residual, residual)
        stalled = (trial_relative > 0.5 * relative) & unsolved
        relative = torch.where(better, trial_relative, relative)
        if inner.num_iterations == 0:
            break
        given_up = given_up | indefinite | (stalled & (inner_method == "cg"))
        # One member of a batch that breaks down ends the shared space of all: separate recurrences finish the others.
        if bool((stalled | inner.indefinite | (relative > _RESTART_GAIN)).any()):
            inner_method = "cg"
    solved = bool((relative <= rtol).all())
    rounded = (value * size).to(operator.dtype)
    back = rounded.to(torch.float64) / size
    # Beyond rounding, the value may leave the range of its type altogether.
    out_of_range = bool(((back - value).abs() > eps * value.abs()).any())
    if out_of_range or (operator.dtype != torch.float64 and needs_precision(operator, rtol)):
        relative, _ = relative_residuals(operator, wide, back, scale, rtol)
    value = rounded
    converged = (relative <= rtol) & ~indefinite
    used_fallback = None
    if solved and not bool(converged.all()):
        message = (
            f"The solution meets rtol={rtol:.1e} in float64, but rounded to {operator.dtype} its relative residual is "
            f"{float(relative.max()):.1e}: ask for a looser rtol, or pass A and rhs in float64."
        )
        warn_unconverged(message)
    elif not bool(converged.all()):
        message = _explain(relative, rtol, bool(indefinite.any()), num_iterations, max_iterations, operator)
        if fallback == "direct" and may_solve_directly(operator):
            value, relative, used_fallback = directly_where_better(
                operator, wide, value, relative, ~converged, size=size, scale=scale, rtol=rtol
            )
            if used_fallback is not None:
                message += f" The values come from a dense {used_fallback} factorisation instead."
        warn_unconverged(message)
    return Solution(
        value=value,
        converged=converged,
        residual_norms=relative.to(rhs.dtype),
        num_iterations=num_iterations,
        method=method,
        preconditioner=P.name,
        fallback=used_fallback,
        message=message,
        **costs(operator.reads.since(before)),
    )


def _inner(
    operator: MatrixOperator,
    rhs: Tensor,
    P: Preconditioner,
    targets: Tensor,
    max_iterations: int,
    method: str,
) -> Iterate:
    """Solve A x = rhs (unit columns) to absolute residual `targets`."""
    if P.is_exact and method != "cg":
        return Iterate(P.solve(rhs), 1, torch.zeros_like(targets, dtype=torch.bool))
    if method == "cg":
        targets = targets.to(rhs.dtype)
        return conjugate_gradients(operator.matmul, rhs, P.solve, target_norms=targets, max_iterations=max_iterations)
    values, indefinite, num_iterations = [], [], 0
    for block, goal in zip(rhs.split(_MAX_BLOCK, -1), targets.split(_MAX_BLOCK, -1), strict=True):
        krylov = BlockKrylov(split_product(operator, P), P.whiten(block), capacity=basis_capacity(operator))
        iterate = galerkin_solve(krylov, P, block, goal, max_iterations)
        num_iterations = max(num_iterations, iterate.num_iterations)
        values.append(iterate.value)
        indefinite.append(iterate.indefinite)
    return Iterate(torch.cat(values, -1), num_iterations, torch.cat(indefinite, -1))


def split_product(operator: MatrixOperator, P: Preconditioner) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """V -> (A M^T v, M A M^T v)."""

    def product(vectors: Tensor) -> tuple[Tensor, Tensor]:
        image = operator.matmul(P.whiten_transpose(vectors))
        return image, P.whiten(image)

    return product


def basis_capacity(operator: MatrixOperator) -> int:
    """Basis vectors (with their images) that fit the memory set aside for one Krylov space."""
    vector_bytes = 2 * operator.shape[:-1].numel() * torch.finfo(operator.dtype).bits // 8
    return min(_MAX_BASIS, max(4 * _MAX_BLOCK, _BASIS_BYTES // vector_bytes))


def galerkin_solve(
    krylov: BlockKrylov,
    P: Preconditioner,
    rhs: Float[Tensor, "*batch n k"],
    targets: Float[Tensor, "*batch k"],
    max_iterations: int,
) -> Iterate:
    """Expand a block Krylov space until the first k starting columns' own residuals meet their targets.

    Args:
        krylov: Started at [M rhs, anything else].
        P: The preconditioner behind it.
        rhs: The k columns in the original space.
        targets: Absolute residual norms in the original space.
        max_iterations: Passes at most.
    """
    k = rhs.shape[-1]
    live = targets.isfinite()
    # The whitened residual is free and tells when it is worth forming the true one.
    whitened_scale = krylov.start_norms()[..., :k] / torch.linalg.vector_norm(rhs, dim=-2).clamp_min(1e-300)
    exhausted, best, checks_without_gain = False, torch.inf, 0
    while krylov.has_solution:
        whitened = krylov.residual_norms()[..., :k]
        plausible = (whitened <= 4 * targets * whitened_scale) | ~live
        full = krylov.num_blocks >= max_iterations or exhausted
        if bool(plausible.all()) or full:
            coefficients = krylov.coefficients()[..., :k]
            residual = rhs - krylov.combine_images(coefficients)
            worst = float((torch.linalg.vector_norm(residual, dim=-2) / targets).max())
            # Rounding of the images keeps the true residual up once the whitened one has passed it by.
            checks_without_gain = 0 if worst < 0.5 * best else checks_without_gain + 1
            best = min(best, worst)
            if worst <= 1 or full or checks_without_gain == _PATIENCE:
                break
        exhausted = not krylov.expand()
    if not krylov.has_solution:
        nothing = torch.zeros_like(rhs)
        return Iterate(nothing, krylov.num_blocks, krylov.indefinite.unsqueeze(-1).expand_as(targets))
    value = P.whiten_transpose(krylov.combine(coefficients))
    indefinite = krylov.indefinite.unsqueeze(-1).expand_as(targets)
    return Iterate(value, krylov.num_blocks, indefinite)


def _explain(
    relative: Tensor,
    rtol: float,
    indefinite: bool,
    num_iterations: int,
    max_iterations: int,
    operator: MatrixOperator,
) -> str:
    worst = float(relative.max())
    if indefinite:
        return (
            f"`A` is not positive definite: negative curvature after {num_iterations} iterations (worst relative residual "
            f"{worst:.1e}). Add a larger multiple of the identity, or solve A.mT @ A with A.mT @ rhs."
        )
    if num_iterations >= max_iterations:
        return (
            f"The solve stopped at max_iterations={max_iterations} with relative residual {worst:.1e} > rtol={rtol:.1e}. "
            "Allow more iterations, or give the preconditioner more columns and neighbours."
        )
    return (
        f"The solve stalled at relative residual {worst:.1e} > rtol={rtol:.1e} after {num_iterations} iterations: the limit "
        f"of {operator.dtype} for this matrix. Ask for a looser rtol, or pass A in float64."
    )


def like(rhs: object) -> dict[str, Any]:
    """What a pair (matmul, shape) does not say: dtype and device of the right-hand side it will meet."""
    if not isinstance(rhs, Tensor) or rhs.dtype not in (torch.float32, torch.float64):
        return {}
    return {"dtype": rhs.dtype, "device": rhs.device}


def _check_choice(name: str, value: object, known: tuple) -> None:
    if value not in known:
        raise ValueError(f"`{name}` must be one of {known}. Got {value!r}.")


def drop_column(solution: Solution) -> Solution:
    """The solution of a vector right-hand side, without the column that carried it."""
    return replace(
        solution,
        value=solution.value.squeeze(-1),
        converged=solution.converged.squeeze(-1),
        residual_norms=solution.residual_norms.squeeze(-1),
    )
