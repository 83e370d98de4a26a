"""`logdet` and `inv_quad_logdet`: what a Gaussian log-likelihood needs, from one Krylov space.

With P^-1 = M^T M and B = M A M^T close to I,

    log det A = log det P + beta (tr B - n) + tr(log B - beta (B - I)).

The first two terms are exact (tr B costs r matvecs, see `Preconditioner.deflated_directions`); only the last is estimated,
with Rademacher probes and block Gauss quadrature, and it is of second order in B - I. The control variate's beta is
the regression coefficient of log B on B, read off the same quadrature. The gradient uses the same idea one order
down: d log det A = beta tr(P^-1 dA) + tr((A^-1 - beta P^-1) dA), the first exact through the rows of S, the second stochastic,
with P held fixed. Both are unbiased whatever P is.

Compare Gardner et al. 2018 (arXiv:1809.11165), which samples probes from P and has no control variate, and Wenger et al. 2022
(arXiv:2107.00243), which introduced the exact log det P as a control variate.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch

from rangeformer.autograd import differentiable_no_further
from rangeformer.dense_factorisation import direct_logdet, may_solve_directly
from rangeformer.drivers.solve import basis_capacity, drop_column, galerkin_solve, like, solve_checked, split_product
from rangeformer.krylov.block_lanczos import BlockKrylov
from rangeformer.krylov.certificate import powers_of_two
from rangeformer.models.looped_model import LoopedModel
from rangeformer.operators import MatrixOperator, as_operator
from rangeformer.preconditioners.base import Preconditioner
from rangeformer.preconditioners.build import Options, build_preconditioner, check_preconditioner
from rangeformer.preconditioners.local import LocalFactor
from rangeformer.randomness import PROBES, generator_or_default
from rangeformer.results import InvQuadLogdet, LogDeterminant, Solution, costs, warn_unconverged
from rangeformer.shapes import Float, Tensor
from rangeformer.solvers.learned_krylov import METHOD as DIRECT
from rangeformer.solvers.learned_krylov import check_loops, check_model
from rangeformer.solvers.learned_logdet import logdet_by_model
from rangeformer.validation import (
    check_count,
    check_rhs,
    check_square,
    check_symmetric,
    check_tolerance,
)

DEFAULT_NUM_PROBES = 15
# Up to this size unit vectors instead of random probes make the result exact for less than an estimate would cost.
_EXACT_UP_TO = 256
_FALLBACKS = ("direct", None)
_METHODS = ("krylov", DIRECT)


def logdet(
    A: Any,
    *,
    preconditioner: str | Options | Preconditioner | None = "rangeformer",
    num_probes: int | None = None,
    rtol: float = 1e-3,
    max_iterations: int = 200,
    fallback: str | None = "direct",
    generator: torch.Generator | None = None,
    method: str = "krylov",
    model: LoopedModel | None = None,
    num_loops: int | None = None,
) -> LogDeterminant:
    """Log det A of a symmetric positive definite A, with its standard error.

    Args:
        A: `(*batch, n, n)`, anything `as_operator` accepts.
        preconditioner: See `build_preconditioner`; the closer P is to A, the smaller the standard error.
        num_probes: Random probes; default 15, and unit vectors (an exact result) for n <= 256.
        rtol: Relative residual of the probe solves, which decides the gradient; the value converges twice as fast.
        max_iterations: Passes at most.
        fallback: "direct" (dense Cholesky in float64 when the iteration fails and A is of moderate size) or None.
        generator: Source of randomness; a fixed one if None, so that the same call gives the same estimate.
        method: "krylov" (preconditioner and probes), or "rangeformer-direct": a looped model answers, without gradient, and
            `rtol` bounds the estimated error relative to max(1, |log det A|).
        model: For "rangeformer-direct": who answers. Default: the Galerkin member, exact once num_loops x 64 >= n.
        num_loops: For "rangeformer-direct": passes of the model. Default: the model's own, 16.

    Returns:
        The log-determinant with its evidence. Gradients flow through `value` to whatever A is built from ("krylov").

    Raises:
        TypeError: Wrong type or dtype of an argument.
        ValueError: Wrong shape or value of an argument; A not symmetric or not finite.

    Warns:
        ConvergenceWarning: If the probe solves miss `rtol` or A is not positive definite (then `value` is NaN).

    Example:
        >>> import torch, rangeformer as rf
        >>> A = torch.diag(torch.arange(1.0, 101.0, dtype=torch.float64))
        >>> result = rf.logdet(A)
        >>> round(float(result.value), 3), float(result.standard_error)
        (363.739, 0.0)
    """
    operator = as_operator(A)
    if method not in _METHODS:
        raise ValueError(f"`method` must be one of {_METHODS}. Got {method!r}.")
    member = check_model(model)
    loops = check_loops(num_loops, member)
    if method == DIRECT:
        check_square(operator)
        check_tolerance("rtol", rtol)
        return logdet_by_model(operator, member, num_loops=loops, rtol=rtol, generator=generator)
    empty = torch.empty(*operator.shape[:-1], 0, dtype=operator.dtype, device=operator.device)
    return _inv_quad_logdet(
        operator,
        empty,
        preconditioner=preconditioner,
        num_probes=num_probes,
        rtol=rtol,
        probe_rtol=rtol,
        max_iterations=max_iterations,
        fallback=fallback,
        generator=generator,
    ).log_determinant


def inv_quad_logdet(
    A: Any,
    rhs: Float[Tensor, "..."],
    *,
    preconditioner: str | Options | Preconditioner | None = "rangeformer",
    num_probes: int | None = None,
    rtol: float = 1e-4,
    probe_rtol: float = 1e-2,
    max_iterations: int = 200,
    fallback: str | None = "direct",
    generator: torch.Generator | None = None,
) -> InvQuadLogdet:
    """rhs^T A^-1 rhs and log det A together, both differentiable: the two halves of a Gaussian log-likelihood.

    Args:
        A: `(*batch, n, n)` symmetric positive definite, anything `as_operator` accepts.
        rhs: `(n,)` or `(*batch, n, k)`.
        preconditioner: See `build_preconditioner`.
        num_probes: Random probes for the log-determinant; default 15 (n <= 256: exact).
        rtol: Relative residual of A x = rhs. `inv_quad` is 2 rhs^T x - x^T A x, whose error is of its square.
        probe_rtol: Relative residual of the probe solves.
        max_iterations: Passes at most.
        fallback: "direct" or None, as in `linear_solve`.
        generator: Source of randomness; a fixed one if None, so that the same call gives the same estimate.

    Returns:
        Both values with their evidence.

    Raises:
        TypeError: Wrong type or dtype of an argument.
        ValueError: Wrong shape, device or value of an argument; A not symmetric or not finite.

    Warns:
        ConvergenceWarning: As `linear_solve` and `logdet`.

    Example:
        >>> import torch, rangeformer as rf
        >>> A = torch.diag(torch.arange(1.0, 101.0, dtype=torch.float64))
        >>> result = rf.inv_quad_logdet(A, torch.ones(100, dtype=torch.float64))
        >>> round(float(result.inv_quad), 3), round(float(result.logdet), 3)
        (5.187, 363.739)
    """
    operator = as_operator(A, **like(rhs))
    check_square(operator)
    result = _inv_quad_logdet(
        operator,
        check_rhs(operator, rhs),
        preconditioner=preconditioner,
        num_probes=num_probes,
        rtol=rtol,
        probe_rtol=probe_rtol,
        max_iterations=max_iterations,
        fallback=fallback,
        generator=generator,
    )
    return replace(result, solution=drop_column(result.solution)) if rhs.dim() == 1 else result


@dataclass(frozen=True)
class _Estimate:
    """What the no-grad phase leaves for the surrogate: probe pairs and the control variate's weight."""

    logdet: Float[Tensor, "*batch"]
    standard_error: Float[Tensor, "*batch"]
    left: Float[Tensor, "*batch n m"]  # M^T (B^-1 - beta) z / m
    right: Float[Tensor, "*batch n m"]  # M^T z
    beta: Float[Tensor, "*batch"]
    deflated: Float[Tensor, "*batch n r"]  # t_j of the preconditioner
    converged: bool
    positive_definite: bool
    num_probes: int
    num_iterations: int


def _inv_quad_logdet(
    operator: MatrixOperator,
    rhs: Tensor,
    *,
    preconditioner: Any,
    num_probes: int | None,
    rtol: float,
    probe_rtol: float,
    max_iterations: int,
    fallback: str | None,
    generator: torch.Generator | None,
) -> InvQuadLogdet:
    check_square(operator)
    check_tolerance("rtol", rtol)
    check_tolerance("probe_rtol", probe_rtol)
    check_count("num_probes", num_probes, least=1, optional=True)
    check_count("max_iterations", max_iterations, least=1)
    check_preconditioner(preconditioner)
    if fallback not in _FALLBACKS:
        raise ValueError(f"`fallback` must be one of {_FALLBACKS}. Got {fallback!r}.")
    generator = generator_or_default(generator, PROBES)
    before = operator.reads.snapshot()
    check_symmetric(operator)
    differentiable = torch.is_grad_enabled() and (operator.requires_grad or rhs.requires_grad)
    with torch.no_grad():
        num_rhs = rhs.shape[-1] + (num_probes or DEFAULT_NUM_PROBES)
        P = build_preconditioner(operator, preconditioner, num_rhs=num_rhs, generator=generator)
        probes = _probes(operator, num_probes, generator)
        estimate, start = _estimate(operator, rhs.detach(), P, probes, rtol, probe_rtol, max_iterations)
        used = None
        if not estimate.converged and fallback == "direct" and may_solve_directly(operator):
            estimate, used = _by_cholesky(operator, estimate, differentiable=differentiable), "Cholesky"
        solution = solve_checked(
            operator,
            rhs.detach(),
            P,
            rtol=rtol,
            max_iterations=max_iterations,
            method="auto",
            fallback=fallback,
            start=start,
        )
        # The shared space already did most of the iterating; the certificate above rarely adds any.
        shared = estimate.num_iterations + solution.num_iterations
        solution = replace(solution, num_iterations=shared, method="block-cg")
        inv_quad, log_determinant = _values(operator, rhs.detach(), solution, estimate, P, used)
    if differentiable:
        quadratic, surrogate = _surrogates(operator, rhs, solution.value, estimate, P)
        inv_quad = _WithGradient.apply(inv_quad, quadratic)
        log_determinant = replace(log_determinant, value=_WithGradient.apply(log_determinant.value, surrogate))
    spent = costs(operator.reads.since(before))
    log_determinant = replace(log_determinant, **spent)
    return InvQuadLogdet(
        inv_quad=inv_quad,
        logdet=log_determinant.value,
        standard_error=log_determinant.standard_error,
        solution=replace(solution, **spent),
        log_determinant=log_determinant,
    )


def _probes(operator: MatrixOperator, num_probes: int | None, generator: torch.Generator | None) -> Tensor:
    """Rademacher probes, or all unit vectors where that is the cheaper truth."""
    n = operator.num_rows
    if n <= (num_probes if num_probes is not None else _EXACT_UP_TO):
        eye = torch.eye(n, dtype=operator.dtype, device=operator.device)
        return eye.expand(*operator.batch_shape, n, n)
    shape = (*operator.batch_shape, n, num_probes or DEFAULT_NUM_PROBES)
    device = generator.device if generator is not None else torch.device("cpu")
    signs = torch.randint(0, 2, shape, generator=generator, device=device)
    return (2 * signs - 1).to(operator.dtype).to(operator.device)


def _estimate(
    operator: MatrixOperator,
    rhs: Tensor,
    P: Preconditioner,
    probes: Tensor,
    rtol: float,
    probe_rtol: float,
    max_iterations: int,
) -> tuple[_Estimate, Tensor]:
    """Expand the space of [M rhs, probes]; return the log-det estimate and a first solution for rhs."""
    k, m, n = rhs.shape[-1], probes.shape[-1], operator.num_rows
    exact = m == n
    size = powers_of_two(rhs)
    unit = rhs.to(torch.float64) / size
    scale = torch.linalg.vector_norm(unit, dim=-2, keepdim=True)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    unit, scale = (unit / scale).to(rhs.dtype), scale * size
    krylov = BlockKrylov(
        split_product(operator, P),
        torch.cat([P.whiten(unit), probes], -1),
        capacity=basis_capacity(operator),
    )
    targets = torch.full((*rhs.shape[:-2], k), 0.5 * rtol, dtype=rhs.dtype, device=rhs.device)
    probe_scale = torch.linalg.vector_norm(probes, dim=-2).to(torch.float64)
    converged, exhausted = False, False
    while krylov.has_solution:
        converged = exact or bool((krylov.residual_norms()[..., k:] <= probe_rtol * probe_scale).all())
        if converged or exhausted or krylov.num_blocks >= max_iterations:
            break
        exhausted = not krylov.expand()
    if not krylov.has_solution:
        return _failed(probes, P, krylov.num_blocks), torch.zeros_like(rhs)
    start = galerkin_solve(krylov, P, unit, targets, max_iterations).value if k else unit
    start = start.to(torch.float64) * scale
    ritz = torch.linalg.eigvalsh(krylov.projection())
    sound = krylov.positive_definite and bool((ritz > 0).all())
    if not sound:
        return _failed(probes, P, krylov.num_blocks), start
    # With P = A nothing is left for a control variate to explain.
    trace_local = None if exact or P.is_exact else _trace_local(operator, P)
    deflated = P.deflated_directions()
    if trace_local is None:
        beta_value, excess = torch.zeros_like(P.logdet), torch.zeros_like(P.logdet)
        gradient_beta = torch.zeros_like(P.logdet)
    else:
        gradient_beta = torch.ones_like(P.logdet)
        removed = torch.zeros_like(P.logdet)
        if deflated.shape[-1]:
            removed = (deflated * operator.matmul(deflated)).to(torch.float64).sum((-1, -2))
        beta_value, excess = _regression(krylov, k), trace_local - removed - n

    def remainder(values: Tensor) -> Tensor:
        return values.log() - beta_value.unsqueeze(-1) * (values - 1)

    _, quadratic = krylov.function_of_start(remainder)
    samples = quadratic.diagonal(dim1=-2, dim2=-1)[..., k:]
    if exact:
        rest, error = samples.sum(-1), torch.zeros_like(P.logdet)
    else:
        # Rademacher probes all have squared norm n: the sample mean is the trace estimate itself.
        rest = samples.mean(-1)
        error = samples.std(-1) / m**0.5 if m > 1 else torch.full_like(rest, torch.inf)
    coefficients = krylov.coefficients()[..., k:]
    weight = 1.0 if exact else 1.0 / m
    subtracted = gradient_beta.to(rhs.dtype).unsqueeze(-1).unsqueeze(-1) * probes
    whitened = krylov.combine(coefficients) - subtracted
    value = P.logdet + beta_value * excess + rest
    if exact and operator.dtype != torch.float64 and may_solve_directly(operator):
        # Rounded products blur small eigenvalues by more than a standard error of zero admits; at this size float64 is cheap.
        precise, _ = direct_logdet(operator)
        value = torch.where(precise.isfinite(), precise, value)
    return (
        _Estimate(
            logdet=value,
            standard_error=error,
            left=weight * P.whiten_transpose(whitened),
            right=P.whiten_transpose(probes),
            beta=gradient_beta,
            deflated=deflated,
            converged=converged,
            positive_definite=True,
            num_probes=0 if exact else m,
            num_iterations=krylov.num_blocks,
        ),
        start,
    )


def _trace_local(operator: MatrixOperator, P: Preconditioner) -> Tensor | None:
    """tr(S A S^T): known since P was built if that was from this very A, else read from the blocks of A."""
    if P.was_built_from(operator):
        return P.trace_local()
    return _quadratic_of_rows(operator, P).sum(-1) if operator.has_entries else None


def _quadratic_of_rows(operator: MatrixOperator, P: Preconditioner) -> Tensor:
    """s_i^T A s_i for every row s_i of S, float64, with the graph back to what A is built from."""
    assert isinstance(P.local, LocalFactor)
    index, values = P.local.rows()
    blocks = operator.blocks(index, index).to(torch.float64)
    values = values.to(torch.float64)
    return torch.einsum("...qi,...qij,...qj->...q", values, blocks, values)


def _regression(krylov: BlockKrylov, k: int) -> Tensor:
    """Beta minimising ||log B - beta B|| over the spectrum as the probes' quadrature sees it, constants projected out."""

    def trace(function: Any) -> Tensor:
        quadratic = krylov.function_of_start(function)[1]
        return quadratic.diagonal(dim1=-2, dim2=-1)[..., k:].sum(-1)

    mass = trace(torch.ones_like)
    mean_log, mean = trace(torch.log) / mass, trace(lambda v: v) / mass
    covariance = trace(lambda v: v * v.log()) / mass - mean * mean_log
    variance = trace(lambda v: v * v) / mass - mean.square()
    resolved = variance > 1e-12 * mean.square()
    return torch.where(resolved, covariance / variance, torch.ones_like(mean))


def _failed(probes: Tensor, P: Preconditioner, num_iterations: int) -> _Estimate:
    """No number, and no gradient that could be taken for one."""
    nan = torch.full_like(P.logdet, torch.nan)
    unknown = torch.full_like(probes, torch.nan)
    return _Estimate(
        nan,
        nan,
        unknown,
        unknown,
        torch.zeros_like(nan),
        unknown[..., :0],
        converged=False,
        positive_definite=False,
        num_probes=probes.shape[-1],
        num_iterations=num_iterations,
    )


def _by_cholesky(operator: MatrixOperator, failed: _Estimate, *, differentiable: bool) -> _Estimate:
    """Value and gradient by dense factorisation, NaN for members that are not positive definite."""
    value, inverse = direct_logdet(operator, with_inverse=differentiable)
    right = torch.eye(operator.num_rows, dtype=operator.dtype, device=operator.device).expand(operator.shape)
    return replace(
        failed,
        logdet=value,
        standard_error=torch.where(value.isnan(), value, torch.zeros_like(value)),
        left=right if inverse is None else inverse.to(operator.dtype),
        right=right,
        beta=torch.zeros_like(value),
        deflated=right[..., :0],
    )


def _values(
    operator: MatrixOperator,
    rhs: Tensor,
    solution: Solution,
    estimate: _Estimate,
    P: Preconditioner,
    used: str | None,
) -> tuple[Tensor, LogDeterminant]:
    wide, x = rhs.to(torch.float64), solution.value.to(torch.float64)
    # A rounded product is enough here: its error enters beside the residual's square, not beside the residual.
    image = wide if rhs.shape[-1] == 0 else operator.matmul(solution.value).to(torch.float64)
    inv_quad = (2 * wide * x - x * image).sum((-1, -2)).to(rhs.dtype)
    value, error, message = estimate.logdet, estimate.standard_error, "Converged."
    if not estimate.converged or not estimate.positive_definite:
        message = (
            "The log-determinant's probe solves did not converge: allow more iterations or a larger preconditioner."
            if estimate.positive_definite
            else f"`A` is not positive definite in {operator.dtype}: its log-determinant is not defined. Add a larger "
            "multiple of the identity."
        )
        if used is not None:
            missing = ", NaN where that failed as well" if bool(value.isnan().any()) else ""
            message += f" The value comes from a dense float64 {used} factorisation instead{missing}."
        warn_unconverged(message)
    done = torch.full(value.shape, estimate.converged and estimate.positive_definite, device=value.device)
    return inv_quad, LogDeterminant(
        value=value.to(operator.dtype),
        standard_error=error.to(operator.dtype),
        converged=done,
        num_probes=estimate.num_probes,
        num_iterations=estimate.num_iterations,
        num_matvecs=0,
        num_passes=0,
        num_entries=0,
        preconditioner=P.name,
        fallback=used,
        message=message,
    )


def _surrogates(
    operator: MatrixOperator, rhs: Tensor, solution: Tensor, estimate: _Estimate, P: Preconditioner
) -> tuple[Tensor, Tensor]:
    """Functions of A's parameters whose gradients are those of inv_quad and of the log-det estimate.

    One product carries all of it: the deflated directions and probes for the log-determinant, x for the
    quadratic form, whose surrogate 2 rhs^T x - x^T A x also carries the gradient to rhs.
    """
    r, m = estimate.deflated.shape[-1], estimate.right.shape[-1]
    use_trace = bool((estimate.beta != 0).any())
    right = torch.cat([estimate.deflated, estimate.right, solution], -1)
    images = operator.matmul(right)
    stochastic = (estimate.left * images[..., r : r + m]).sum((-1, -2))
    quadratic = (2 * rhs * solution - solution * images[..., r + m :]).sum((-1, -2))
    if not use_trace:
        return quadratic, stochastic
    deflated = (estimate.deflated * images[..., :r]).sum((-1, -2))
    local = _quadratic_of_rows(operator, P).sum(-1).to(deflated.dtype)
    return quadratic, stochastic + estimate.beta.to(local.dtype) * (local - deflated)


class _WithGradient(torch.autograd.Function):
    """The first argument's value with the second one's gradient."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, surrogate: Tensor):
        ctx.save_for_backward(surrogate)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor):
        return None, differentiable_no_further(gradient, *ctx.saved_tensors)
