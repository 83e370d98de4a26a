"""Whether an answer of `rangeformer` may be used, and GPyTorch's Cholesky where it may not.

A call fails if a solve or a log-determinant did not reach its tolerance, if anything is not finite,
or if the matrix showed itself indefinite. Then a dense Cholesky factor answers instead: in float64
without jitter where the matrix allows it, else GPyTorch's own `psd_safe_cholesky`, with a warning that
says how large its jitter is. It is called directly, without GPyTorch's settings, which all threads share.
"""

import warnings
from collections.abc import Callable
from typing import TypeVar

import torch
from linear_operator.operators import AddedDiagLinearOperator, LinearOperator
from linear_operator.utils.cholesky import psd_safe_cholesky
from linear_operator.utils.errors import NotPSDError
from torch import Tensor

import rangeformer as rf
from gp_integration import structure_cache
from gp_integration.report import Call
from gp_integration.request import SolveRequest
from rangeformer.deprecation import callers_level
from rangeformer.results import Status

Answer = TypeVar("Answer")

# A tolerance may be missed by this factor if the backward error is at most so many units of rounding.
_MISS = 100
_ROUNDING = 4
_GRADIENT_ERROR = 0.1
_NO_JITTER = 1e-12  # of the largest diagonal entry: the factor's own rounding


def answer_or_cholesky(
    request: SolveRequest,
    matrix: LinearOperator,
    iterate: Callable[[], tuple[Answer, str | None]],
    by_cholesky: Callable[[Tensor], Answer],
) -> Answer:
    """The answer of `iterate` if it may be used, else that of `by_cholesky`, recorded and with a warning.

    Args:
        request: The call.
        matrix: A, `(*batch, n, n)`.
        iterate: Calls `rangeformer`; returns the answer and None, or the reason why it may not be used.
        by_cholesky: Computes the same from a dense Cholesky factor, float64.

    Raises:
        RuntimeError: If `iterate` failed and the block's `fallback` is "raise".
    """
    request.block.options.preconditioner()  # a bad checkpoint is an error of its own, not a failed call
    try:
        answer, reason = iterate()
    except Exception as error:
        answer, reason = None, f"{type(error).__name__}: {error}"
    if answer is not None and reason is None:
        return answer
    if request.kernel is not None:
        structure_cache.drop(request.kernel, request.structure_key(matrix))
    recorder = request.block.recorder
    recorder.fallback(request.purpose, reason)
    if request.block.options.fallback == "raise":
        raise RuntimeError(f"use_rangeformer failed ({request.purpose}): {reason}")
    warnings.warn(
        f"use_rangeformer fell back to Cholesky ({request.purpose}): {reason}",
        rf.ConvergenceWarning,
        stacklevel=callers_level(),
    )
    factor, jitter = dense_factor(matrix)
    recorder.call(Call(request.purpose, matrix.shape[-1], "cholesky (fallback)", jitter=jitter))
    return by_cholesky(factor)


def dense_factor(matrix: LinearOperator) -> tuple[Tensor, float | None]:
    """The Cholesky factor of A in float64, differentiable, and the jitter that had to be added, if any.

    A float32 matrix whose smallest eigenvalues rounding has buried is often positive definite as it is stored. Where it
    is not, the answers are those of a noisier model, which a warning says.

    Args:
        matrix: A, `(*batch, n, n)`.

    Raises:
        NotPSDError: If no jitter that GPyTorch allows makes it positive definite.
        NanError: If it is not finite.
    """
    dense = matrix.to_dense()
    try:
        factor = psd_safe_cholesky(dense.to(torch.float64))
    except NotPSDError:
        # In its own type GPyTorch allows more jitter.
        factor = psd_safe_cholesky(dense).to(torch.float64)
    with torch.no_grad():
        diagonal = dense.diagonal(dim1=-2, dim2=-1)
        added = float((factor.square().sum(-1) - diagonal).amax())
        if added <= _NO_JITTER * float(diagonal.abs().amax()):
            return factor, None
        relative = ""
        if isinstance(matrix, AddedDiagLinearOperator):
            noise = float(matrix._diag_tensor._diagonal().amin())
            relative = f", {added / noise:.1g} times the smallest noise"
    warnings.warn(
        f"use_rangeformer: the covariance is not positive definite in {matrix.dtype}. Cholesky added {added:.1e} to "
        f"its diagonal{relative}: losses, gradients and variances are those of a model with that much more noise. "
        "Raise the noise, or pass the data in float64.",
        rf.ConvergenceWarning,
        stacklevel=callers_level(),
    )
    return factor, added


def warn_of_gradient(purpose: str, error: float) -> None:
    """Say that a gradient may be inaccurate, because the solutions that it is made of are.

    Args:
        purpose: Of the call.
        error: Sum of the bounds of their relative errors.
    """
    if error > _GRADIENT_ERROR:
        warnings.warn(
            f"use_rangeformer: the solutions behind the gradient of {purpose!r} have relative errors of up to "
            f"{error:.1e}, the limit of their precision for this noise. Pass the data in float64, or subtract the mean "
            "of the targets.",
            rf.ConvergenceWarning,
            stacklevel=callers_level(),
        )


def failure(result: rf.Solution | rf.LogDeterminant) -> str | None:
    """Why a result may not be used, or None if it may."""
    if not bool(torch.isfinite(result.value.detach()).all()):
        return f"not finite. {result.message}"
    return None if bool(result.converged.all()) else result.message


def solve_failure(
    matrix: LinearOperator,  # shape: (*batch, n, n)
    rhs: Tensor,  # shape: (*batch, n, k)
    solution: rf.Solution,
    rtol: float,
) -> str | None:
    """`failure`, but a solution as accurate as its type can hold has not failed.

    In float32 the tolerance may be out of reach for any method. A backward error of a few units of
    rounding means that the solution is exact for a matrix that rounds to this one: Cholesky in the same
    precision has nothing better to offer. It stands in the report, under `missed`, with the residual it reached.
    """
    reason = failure(solution)
    if reason is None or not bool(torch.isfinite(solution.value).all()) or solution.status is Status.INDEFINITE:
        return reason
    missed = solution.residual_norms[~solution.converged]
    if bool((missed > _MISS * rtol).any()) or bool((missed <= rtol).any()):
        return reason
    limit = _ROUNDING * torch.finfo(rhs.dtype).eps
    return None if bool((_backward_error(matrix, rhs, solution) <= limit).all()) else reason


def _backward_error(matrix: LinearOperator, rhs: Tensor, solution: rf.Solution) -> Tensor:
    """`(*batch, k)` ||rhs - A x|| / (||A|| ||x|| + ||rhs||), with ||A|| from three power iterations."""
    with torch.no_grad():
        vector = torch.ones_like(rhs[..., :1])
        for _ in range(3):
            vector = vector / torch.linalg.vector_norm(vector, dim=-2, keepdim=True)
            vector = matrix @ vector
        norm_of_matrix = torch.linalg.vector_norm(vector, dim=-2)
        norms = torch.linalg.vector_norm(rhs, dim=-2)
        scale = norm_of_matrix * torch.linalg.vector_norm(solution.value, dim=-2) + norms
        return solution.residual_norms * norms / scale.clamp_min(torch.finfo(rhs.dtype).tiny)
