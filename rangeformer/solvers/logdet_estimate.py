"""An estimate of log det A from a preconditioner and one block Krylov space.

With P^-1 = M^T M and B = M A M^T close to I,

    log det A = log det P + beta (tr B - n) + tr(log B - beta (B - I)).

The first two terms are exact (tr B costs r matvecs, see `Preconditioner.deflated_directions`); only the last is
estimated, with Rademacher probes and block Gauss quadrature, and it is of second order in B - I. The control variate's
beta is the regression coefficient of log B on B, read off the same quadrature.

Compare Gardner et al. 2018 (arXiv:1809.11165), which samples probes from P and has no control variate, and Wenger et
al. 2022 (arXiv:2107.00243), which introduced the exact log det P as a control variate.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from rangeformer.dense_factorisation import direct_logdet, may_solve_directly
from rangeformer.krylov.block_lanczos import BlockKrylov
from rangeformer.krylov.certificate import ScaledColumns, column_norms
from rangeformer.krylov.expansion import GalerkinSolution, expand_until, krylov_space
from rangeformer.operators import MatrixOperator
from rangeformer.preconditioners.base import Preconditioner
from rangeformer.randomness import draw_signs
from rangeformer.results import Status
from rangeformer.shapes import Float, Tensor

DEFAULT_NUM_PROBES = 15
# Up to this size unit vectors instead of random probes make the result exact for less than an estimate would cost.
_EXACT_UP_TO = 256


@dataclass(frozen=True)
class LogdetEstimate:
    """The estimate, and what its gradient is made of: probe pairs and the control variate's weight.

    Attributes:
        logdet: `(*batch)` float64.
        standard_error: `(*batch)`; zero where the probes are all unit vectors.
        rounding: `(*batch)` estimated error that rounding leaves in `logdet`.
        left: `(*batch, n, m)` M^T (B^-1 - beta) z / m.
        right: `(*batch, n, m)` M^T z.
        beta: `(*batch)` of the gradient: one, or zero where there is no control variate.
        deflated: `(*batch, n, r)` directions t_j of the preconditioner.
        status: `CONVERGED`, `MAX_ITERATIONS` or `INDEFINITE`.
        num_probes: Random probes; 0 for unit vectors.
        num_iterations: Passes of the iteration.
    """

    logdet: Float[Tensor, "*batch"]
    standard_error: Float[Tensor, "*batch"]
    rounding: Float[Tensor, "*batch"]
    left: Float[Tensor, "*batch n m"]
    right: Float[Tensor, "*batch n m"]
    beta: Float[Tensor, "*batch"]
    deflated: Float[Tensor, "*batch n r"]
    status: Status
    num_probes: int
    num_iterations: int


def draw_probes(
    operator: MatrixOperator, num_probes: int | None, generator: torch.Generator | None
) -> Float[Tensor, "*batch n m"]:
    """Rademacher probes, or all unit vectors where those cost less."""
    n = operator.num_rows
    if n <= (num_probes if num_probes is not None else _EXACT_UP_TO):
        eye = torch.eye(n, dtype=operator.dtype, device=operator.device)
        return eye.expand(*operator.batch_shape, n, n)
    shape = (*operator.batch_shape, n, num_probes or DEFAULT_NUM_PROBES)
    return draw_signs(shape, generator, dtype=operator.dtype, device=operator.device)


def estimate_logdet(
    operator: MatrixOperator,
    P: Preconditioner,
    probes: Float[Tensor, "*batch n m"],
    *,
    probe_rtol: float,
    max_iterations: int,
) -> LogdetEstimate:
    """The log-determinant alone.

    Args:
        operator: A.
        P: The preconditioner.
        probes: From `draw_probes`.
        probe_rtol: Relative residual of the probe solves.
        max_iterations: Passes at most.
    """
    krylov = krylov_space(operator, P, probes)
    converged = expand_until(krylov, _probes_converged(krylov, probes, 0, probe_rtol), max_iterations)
    return _estimate(operator, P, krylov, probes, 0, converged)


def estimate_logdet_and_solve(
    operator: MatrixOperator,
    rhs: Float[Tensor, "*batch n k"],
    P: Preconditioner,
    probes: Float[Tensor, "*batch n m"],
    *,
    rtol: float,
    probe_rtol: float,
    max_iterations: int,
) -> tuple[LogdetEstimate, Float[Tensor, "*batch n k"]]:
    """The log-determinant and a first solution of A X = rhs from the same space.

    The space is started at [M rhs, probes], expanded until the probes have converged, and then, with the estimate still
    to be read off it, until the solution has.

    Args:
        operator: A.
        rhs: `(*batch, n, k)`.
        P: The preconditioner.
        probes: From `draw_probes`.
        rtol: Relative residual of the solution; half of it is aimed at.
        probe_rtol: Relative residual of the probe solves.
        max_iterations: Passes at most.

    Returns:
        The estimate, and the solution (zero where the space has none), to be verified.
    """
    k = rhs.shape[-1]
    scaled = ScaledColumns.of(rhs)
    unit = scaled.units(rhs.dtype)
    krylov = krylov_space(operator, P, torch.cat([P.whiten(unit), probes], -1))
    converged = expand_until(krylov, _probes_converged(krylov, probes, k, probe_rtol), max_iterations)
    if not krylov.has_solution:
        return _failed(P, probes, krylov), torch.zeros_like(rhs)
    targets = torch.full((*rhs.shape[:-2], k), 0.5 * rtol, dtype=rhs.dtype, device=rhs.device)
    solution = GalerkinSolution(krylov, P, unit, targets)
    expand_until(krylov, solution.finished, max_iterations)
    return _estimate(operator, P, krylov, probes, k, converged), scaled.restored(solution.value())


def estimate_by_cholesky(operator: MatrixOperator, failed: LogdetEstimate, *, differentiable: bool) -> LogdetEstimate:
    """Value and gradient by dense factorisation, NaN for matrices of a batch that are not positive definite."""
    direct = direct_logdet(operator, with_inverse=differentiable)
    value, inverse = direct.value, direct.inverse
    right = torch.eye(operator.num_rows, dtype=operator.dtype, device=operator.device).expand(operator.shape)
    return replace(
        failed,
        logdet=value,
        standard_error=torch.where(value.isnan(), value, torch.zeros_like(value)),
        rounding=direct.rounding,
        left=right if inverse is None else inverse.to(operator.dtype),
        right=right,
        beta=torch.zeros_like(value),
        deflated=right[..., :0],
    )


def _probes_converged(krylov: BlockKrylov, probes: Tensor, k: int, probe_rtol: float) -> Callable[[bool], bool]:
    """Whether every probe's residual is small; at once where the probes are the unit vectors, which span the space."""
    if probes.shape[-1] == probes.shape[-2]:
        return lambda last: True
    norms = torch.linalg.vector_norm(probes, dim=-2).to(torch.float64)
    return lambda last: bool((krylov.residual_norms()[..., k:] <= probe_rtol * norms).all())


def _estimate(
    operator: MatrixOperator, P: Preconditioner, krylov: BlockKrylov, probes: Tensor, k: int, converged: bool
) -> LogdetEstimate:
    """Read the estimate off a space whose starting block is [k columns, probes]."""
    m, n = probes.shape[-1], operator.num_rows
    exact = m == n
    if not krylov.has_solution or not krylov.positive_definite or not bool(krylov.projection().isfinite().all()):
        return _failed(P, probes, krylov)
    if not bool((krylov.ritz()[0] > 0).all()):
        return _failed(P, probes, krylov)
    # With P = A nothing is left for a control variate to explain.
    trace_local = None if exact or P.is_exact else _trace_local(operator, P)
    deflated = P.deflated_directions()
    if trace_local is None:
        beta, excess = torch.zeros_like(P.logdet), torch.zeros_like(P.logdet)
        gradient_beta = torch.zeros_like(P.logdet)
    else:
        gradient_beta = torch.ones_like(P.logdet)
        removed = torch.zeros_like(P.logdet)
        if deflated.shape[-1]:
            removed = (deflated * operator.matmul(deflated)).to(torch.float64).sum((-1, -2))
        beta, excess = _regression(krylov, k), trace_local - removed - n
    rest, error = _remainder(krylov, k, beta, exact=exact)
    value, rounding = P.logdet + beta * excess + rest, _rounding(krylov, k, P, operator, probes)
    if exact and may_solve_directly(operator):
        # Rounded products blur small eigenvalues by more than a standard error of zero admits; at this size a factor
        # is cheap.
        direct = direct_logdet(operator)
        usable = direct.value.isfinite()
        value = torch.where(usable, direct.value, value)
        rounding = torch.where(usable, direct.rounding, rounding)
    subtracted = gradient_beta.to(probes.dtype).unsqueeze(-1).unsqueeze(-1) * probes
    whitened = krylov.combine(krylov.coefficients()[..., k:]) - subtracted
    return LogdetEstimate(
        logdet=value,
        standard_error=error,
        rounding=rounding,
        left=(1.0 if exact else 1.0 / m) * P.whiten_transpose(whitened),
        right=P.whiten_transpose(probes),
        beta=gradient_beta,
        deflated=deflated,
        status=Status.CONVERGED if converged else Status.MAX_ITERATIONS,
        num_probes=0 if exact else m,
        num_iterations=krylov.num_blocks,
    )


def _remainder(krylov: BlockKrylov, k: int, beta: Tensor, *, exact: bool) -> tuple[Tensor, Tensor]:
    """tr(log B - beta (B - I)) from the probes' quadrature, and its standard error."""

    def function(values: Tensor) -> Tensor:
        return values.log() - beta.unsqueeze(-1) * (values - 1)

    _, quadratic = krylov.function_of_start(function)
    samples = quadratic.diagonal(dim1=-2, dim2=-1)[..., k:]
    if exact:
        return samples.sum(-1), torch.zeros_like(beta)
    # Rademacher probes all have squared norm n: the sample mean is the trace estimate itself.
    mean, m = samples.mean(-1), samples.shape[-1]
    return mean, samples.std(-1) / m**0.5 if m > 1 else torch.full_like(mean, torch.inf)


def _rounding(krylov: BlockKrylov, k: int, P: Preconditioner, operator: MatrixOperator, probes: Tensor) -> Tensor:
    """What rounding may do to the estimate: eps size (tr B^-2)^(1/2), each eigenvalue of B being off by eps size.

    The size is the largest eigenvalue, or that of M D D M^T if it is larger: products with A are rounded at eps d_i d_j
    in every entry, D^2 the diagonal of A.
    """
    values = krylov.ritz()[0]
    size = values[..., -1]
    if operator.sizes is not None:
        spread = P.whiten((operator.sizes.unsqueeze(-1) * probes).to(operator.dtype)).to(torch.float64)
        size = torch.maximum(size, spread.square().sum((-1, -2)) / probes.square().sum((-1, -2)))
    else:
        # Of products alone: ||A|| ||M^T z||^2 / ||z||^2, with ||A|| from what it made of M^T z.
        start, _ = krylov.function_of_start(torch.ones_like)
        seen, image = (
            column_norms(vectors) for vectors in (P.whiten_transpose(probes), krylov.combine_images(start[..., k:]))
        )
        norm = (image / seen.clamp_min(torch.finfo(torch.float64).tiny)).amax(-1)
        size = torch.maximum(size, norm * (seen / column_norms(probes)).square().amax(-1))
    squares, mass = (
        krylov.function_of_start(function)[1].diagonal(dim1=-2, dim2=-1)[..., k:].sum(-1)
        for function in (lambda values: values**-2, torch.ones_like)
    )
    eps = torch.finfo(operator.dtype).eps
    rounding = eps * size * (operator.num_rows * squares / mass).sqrt()
    # A Ritz value that is all rounding may be that of a singular matrix, whose log-determinant is minus infinity.
    return torch.where(values[..., 0] > 10 * eps * size, rounding, torch.full_like(rounding, torch.inf))


def _trace_local(operator: MatrixOperator, P: Preconditioner) -> Tensor | None:
    """tr(S A S^T): known since P was built if that was from this very A, else read from the blocks of A."""
    if P.was_built_from(operator):
        return P.trace_local()
    return P.quadratic_of_rows(operator).sum(-1) if operator.has_entries else None


def _regression(krylov: BlockKrylov, k: int) -> Tensor:
    """Beta minimising ||log B - beta B|| over the spectrum of the probes' quadrature, constants projected out."""

    def trace(function: Callable[[Tensor], Tensor]) -> Tensor:
        quadratic = krylov.function_of_start(function)[1]
        return quadratic.diagonal(dim1=-2, dim2=-1)[..., k:].sum(-1)

    mass = trace(torch.ones_like)
    mean_log, mean = trace(torch.log) / mass, trace(lambda v: v) / mass
    covariance = trace(lambda v: v * v.log()) / mass - mean * mean_log
    variance = trace(lambda v: v * v) / mass - mean.square()
    resolved = variance > 1e-12 * mean.square()
    return torch.where(resolved, covariance / variance, torch.ones_like(mean))


def _failed(P: Preconditioner, probes: Tensor, krylov: BlockKrylov) -> LogdetEstimate:
    """No number, and no gradient that could be taken for one."""
    nan = torch.full_like(P.logdet, torch.nan)
    unknown = torch.full_like(probes, torch.nan)
    return LogdetEstimate(
        logdet=nan,
        standard_error=nan,
        rounding=nan,
        left=unknown,
        right=unknown,
        beta=torch.zeros_like(nan),
        deflated=unknown[..., :0],
        status=Status.INDEFINITE,
        num_probes=probes.shape[-1],
        num_iterations=krylov.num_blocks,
    )
