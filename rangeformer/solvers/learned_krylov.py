"""`linear_solve(method="learned-krylov")`: the model answers, the residual of its answer is recomputed."""

import functools
from dataclasses import replace

import torch

from rangeformer.autograd import Adjoint
from rangeformer.dense_factorisation import may_solve_directly
from rangeformer.krylov.certificate import (
    ScaledColumns,
    certified_residuals,
    directly_where_better,
    relative_residuals,
)
from rangeformer.models.checkpoint import SHIPPED, load
from rangeformer.models.learned_krylov import LearnedKrylovModel
from rangeformer.models.looped_model import LoopedModel
from rangeformer.models.scaled_operator import ColumnsInUnits, ScaledOperator, solution_beyond_range
from rangeformer.operators import MatrixOperator, TransposedOperator
from rangeformer.results import Solution, Status, costs, warn_unconverged
from rangeformer.shapes import Float, Tensor
from rangeformer.validation import check_count, check_symmetric, is_symmetric

METHOD = "learned-krylov"


def check_model(model: object) -> LoopedModel:
    """The model that answers; the learned Krylov model if None, with the shipped weights if there are any.

    Raises:
        TypeError: Neither a `LoopedModel` nor None.
    """
    if model is None:
        return _default()
    if not isinstance(model, LoopedModel):
        raise TypeError(
            f"`model` must be a LoopedModel (LearnedKrylovModel, PureRangeFormer) or None. Got {type(model).__name__}."
        )
    return model


@functools.cache
def _default() -> LearnedKrylovModel:
    return load("learned-krylov") if SHIPPED["learned-krylov"].is_file() else LearnedKrylovModel.untrained()


def check_learned_krylov(model: object) -> LearnedKrylovModel:
    """The learned Krylov model, for operations that only it knows.

    Raises:
        TypeError: Neither a `LearnedKrylovModel` nor None.
    """
    member = check_model(model)
    if not isinstance(member, LearnedKrylovModel):
        raise TypeError(f"`model` must be a LearnedKrylovModel or None for this operation. Got {type(model).__name__}.")
    return member


def check_loops(num_loops: int | None, model: LoopedModel) -> int:
    """How often the model may loop."""
    check_count("num_loops", num_loops, least=1, optional=True)
    return model.config.num_loops if num_loops is None else int(num_loops)


def solve_by_model(
    operator: MatrixOperator,
    rhs: Float[Tensor, "*batch n k"],
    model: LoopedModel,
    *,
    num_loops: int,
    rtol: float,
    fallback: str | None,
    generator: torch.Generator | None,
) -> Solution:
    """Solve A X = rhs with a looped model; gradients by one adjoint solve with the same model.

    Args:
        operator: A, square; symmetric unless the model is a `LearnedKrylovModel`.
        rhs: `(*batch, n, k)`.
        model: The model.
        num_loops: Loops allowed.
        rtol: Worst column's relative residual.
        fallback: "dense" or None.
        generator: Source of randomness; a fixed one if None.
    """
    before = operator.reads.snapshot()
    scaled = ScaledOperator(operator)
    if isinstance(model, LearnedKrylovModel):
        symmetric = is_symmetric(scaled)
    else:
        check_symmetric(scaled)
        symmetric = True

    def solve(A: ScaledOperator, right: Tensor) -> Solution:
        return _solve(A, right, model, num_loops, rtol, fallback, generator)

    def adjoint(gradient: Tensor) -> Tensor:
        solution = solve(scaled if symmetric else scaled.transposed(TransposedOperator(operator)), gradient)
        if solution.cause is not Status.CONVERGED:
            warn_unconverged(f"In the gradient: {solution.message}")
        return solution.value

    with torch.no_grad():
        solution = solve(scaled, rhs.detach())
    if solution.cause is not Status.CONVERGED:
        warn_unconverged(solution.message)
    value = solution.value
    if torch.is_grad_enabled() and (operator.requires_grad or rhs.requires_grad):
        value = Adjoint.apply(rhs - operator.matmul(value), value, adjoint, operator.requires_grad)
    return replace(solution, value=value, **costs(operator.reads.since(before)))


def _solve(
    operator: ScaledOperator,
    rhs: Tensor,
    model: LoopedModel,
    num_loops: int,
    rtol: float,
    fallback: str | None,
    generator: torch.Generator | None,
) -> Solution:
    scaled = ScaledColumns.of(rhs)
    wide, scale = scaled.vectors, scaled.norms
    answer = model.solve(operator, scaled.units(operator.dtype), num_loops=num_loops, generator=generator)
    solution = ColumnsInUnits.of(scaled, operator)
    value, holds = solution.restored(answer, operator.dtype)
    back = solution.in_units(value)
    relative, _ = relative_residuals(operator, wide, back, scale, rtol)
    relative = certified_residuals(operator, wide, back, scale, relative, rtol)
    converged, used_fallback = relative <= rtol, None
    cause, message = Status.CONVERGED, Status.CONVERGED.value
    if not bool(converged.all()):
        cause = Status.MAX_ITERATIONS
        message = _explain(operator, model, num_loops, rhs.shape[-1], float(relative.max()), rtol)
        if bool((~holds & ~converged).any()):
            cause, message = Status.NOT_FINITE, solution_beyond_range(operator.dtype)
        if fallback == "dense" and may_solve_directly(operator):
            value, relative, used_fallback = directly_where_better(
                operator, wide, value, relative, ~converged, size=torch.exp2(solution.exponent), scale=scale, rtol=rtol
            )
            back = solution.in_units(value)
            relative = certified_residuals(operator, wide, back, scale, relative, rtol)
            converged = relative <= rtol
            if used_fallback is not None:
                message += f" The values come from a dense {used_fallback} factorisation instead."
    return Solution(
        value=value,
        converged=converged,
        residual_norms=relative.to(rhs.dtype),
        num_iterations=num_loops,
        method=METHOD,
        preconditioner="none",
        status=cause if used_fallback is None else Status.FALLBACK_USED,
        cause=cause,
        fallback=used_fallback,
        message=message,
        num_matvecs=0,
        num_passes=0,
        num_entries=0,
    )


def _explain(
    operator: MatrixOperator, model: LoopedModel, num_loops: int, num_rhs: int, worst: float, rtol: float
) -> str:
    missed = f"the relative residual is {worst:.1e} > rtol={rtol:.1e} after {num_loops} loops"
    if isinstance(model, LearnedKrylovModel) and model.completes(operator.num_rows, num_loops, num_rhs=num_rhs):
        return (
            f"`A` is singular or too ill-conditioned for {operator.dtype}: {missed} although the search space is "
            "complete. "
            "More loops cannot help; add a multiple of the identity, or use `lstsq` for a least-squares solution."
        )
    return (
        f"Not converged: {missed}. Allow more loops, or use method='auto', which iterates with a preconditioner until "
        "rtol."
    )
