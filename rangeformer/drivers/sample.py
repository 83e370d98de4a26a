"""Samples from N(0, A) without a factor of A.

With B = M A M^T, the vector A M^T B^(-1/2) z has covariance A M^T B^-1 M A = A: one more product with A replaces
the square root of P, and B^(-1/2) z comes from the Krylov space started at z, which is short because B is close
to I (compare contour quadrature, Pleiss et al. 2020).
"""

from typing import Any

import torch

from rangeformer.arrays import numpy_in_numpy_out
from rangeformer.dense_factorisation import dense, may_solve_directly
from rangeformer.krylov.expansion import MAX_BLOCK, expand_until, krylov_space
from rangeformer.operators import MatrixOperator, as_operator
from rangeformer.preconditioners.base import Preconditioner
from rangeformer.preconditioners.build import build_preconditioner, check_preconditioner
from rangeformer.preconditioners.options import PreconditionerOptions
from rangeformer.randomness import draw_normal, fresh_generator
from rangeformer.results import warn_unconverged
from rangeformer.shapes import Float, Tensor
from rangeformer.validation import check_count, check_square, check_symmetric, check_tolerance


@numpy_in_numpy_out
def sample_gaussian(
    A: Any,
    num_samples: int,
    *,
    rtol: float = 1e-4,
    preconditioner: str | PreconditionerOptions | Preconditioner | None = "rangeformer",
    max_iterations: int = 200,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "s *batch n"]:
    """Draw from N(0, A), A symmetric positive definite.

    Args:
        A: `(*batch, n, n)`, anything `as_operator` accepts.
        num_samples: Number of draws.
        rtol: Relative residual of B^-1 z in the Krylov space, an upper bound of that of B^(-1/2) z up to the condition
            of B.
        preconditioner: See `build_preconditioner`.
        max_iterations: Passes at most for each block of 64 draws.
        generator: Source of randomness; None takes a new stream, reproducible by `torch.manual_seed`.

    Returns:
        `(num_samples, *batch, n)` in A's dtype.

    Raises:
        TypeError: Wrong type or dtype of an argument.
        ValueError: Wrong value of an argument; A not symmetric, not finite or not positive definite.

    Warns:
        ConvergenceWarning: If the Krylov space missed `rtol` and the samples come from a dense Cholesky factor, or from
            the unconverged space if A is too large for that.

    Example:
        >>> import torch, rangeformer as rf
        >>> draws = rf.sample_gaussian(torch.eye(50), 3, generator=torch.Generator().manual_seed(0))
        >>> tuple(draws.shape)
        (3, 50)
    """
    check_count("num_samples", num_samples, least=1)
    check_tolerance("rtol", rtol)
    check_count("max_iterations", max_iterations, least=1)
    check_preconditioner(preconditioner)
    operator = as_operator(A)
    check_square(operator)
    check_symmetric(operator)
    generator = fresh_generator() if generator is None else generator
    with torch.no_grad():
        P = build_preconditioner(operator, preconditioner, num_rhs=num_samples, generator=generator)
        shape = (*operator.shape[:-1], num_samples)
        z = draw_normal(shape, generator, dtype=operator.dtype, device=operator.device)
        draws = [_correlate(operator, P, part, rtol, max_iterations) for part in z.split(MAX_BLOCK, -1)]
    return torch.cat(draws, -1).movedim(-1, 0)


def _correlate(operator: MatrixOperator, P: Preconditioner, z: Tensor, rtol: float, max_iterations: int) -> Tensor:
    krylov = krylov_space(operator, P, z)

    def finished(last: bool) -> bool:
        return bool((krylov.residual_norms() <= rtol * krylov.start_norms()).all())

    converged = expand_until(krylov, finished, max_iterations)
    if converged:
        coefficients, _ = krylov.function_of_start(torch.rsqrt)
        # A M^T V c is held already: the space keeps A's images of its basis.
        return krylov.combine_images(coefficients)
    if may_solve_directly(operator):
        cholesky, info = torch.linalg.cholesky_ex(dense(operator))
        if bool((info > 0).any()):
            raise ValueError("`A` must be positive definite. Got an indefinite matrix; add a multiple of the identity.")
        warn_unconverged("The samples' Krylov space did not converge; they come from a dense Cholesky factor.")
        return (cholesky @ z.to(torch.float64)).to(z.dtype)
    if not krylov.positive_definite:
        raise ValueError("`A` must be positive definite. Got an indefinite matrix; add a multiple of the identity.")
    warn_unconverged("The samples' Krylov space did not reach rtol; allow more iterations.")
    return krylov.combine_images(krylov.function_of_start(torch.rsqrt)[0])
