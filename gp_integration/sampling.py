"""Samples from dense covariances: exact while a factorisation is affordable, Krylov beyond.

GPyTorch draws above `max_cholesky_size` from a Lanczos root of rank 100 at most, which loses most
of the noise; a Cholesky factor of a few thousand rows takes a second or two.
"""

import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator.operators import LinearOperator
from torch import Tensor

from gp_integration import calls
from gp_integration.covariance import samplable
from gp_integration.report import Call
from gp_integration.request import SolveRequest
from gp_integration.state import SettingsBlock

OTHERS = "samples of other distributions"

# Up to this order samples come from a Cholesky factor: exact, and differentiable.
CHOLESKY_SIZE = 4096
# Jitter, relative to the mean variance: rounding leaves smooth kernels slightly indefinite.
_FIRST_JITTER = 10
_LAST_JITTER = 1e-2


def draw(block: SettingsBlock, covariance: LinearOperator, num_samples: int) -> Tensor:
    """Samples of N(0, covariance), reparameterised while they come from a Cholesky factor.

    Args:
        block: The active block.
        covariance: `(*batch, n, n)`.
        num_samples: How many.

    Returns:
        `(num_samples, *batch, n)`, drawn from torch's global generator.
    """
    if covariance.shape[-1] <= CHOLESKY_SIZE or _differentiable(covariance):
        base = torch.randn(*covariance.shape[:-1], num_samples, dtype=covariance.dtype, device=covariance.device)
        return (root(block, covariance, num_samples) @ base).movedim(-1, 0)
    request = SolveRequest(block, "samples", block.options.eval_rtol)
    return calls.sample(request, covariance.evaluate_kernel(), num_samples)


def rsample(
    block: SettingsBlock,
    distribution: MultivariateNormal,
    sample_shape: torch.Size = torch.Size(),  # noqa: B008 - as upstream
    base_samples: Tensor | None = None,
) -> Tensor:
    """`MultivariateNormal.rsample` for the covariances of `covariance.samplable`.

    Args:
        block: The active block.
        distribution: Mean `(*batch, n)`.
        sample_shape: Leading shape of the result, if there are no base samples.
        base_samples: `(*sample_shape, *batch, n)` standard normal draws, or None.

    Returns:
        `(*sample_shape, *batch, n)`; the same base samples give the same samples. NotImplemented
        if the covariance is left alone.

    Raises:
        RuntimeError: If the base samples do not fit the distribution, or the covariance is indefinite.
    """
    covariance, mean = distribution.lazy_covariance_matrix, distribution.loc
    if not samplable(covariance):
        block.recorder.left_alone(OTHERS)
        return NotImplemented
    if base_samples is None:
        draws = draw(block, covariance, torch.Size(sample_shape).numel())
        return draws.reshape(*sample_shape, *draws.shape[1:]) + mean
    if base_samples.shape[base_samples.dim() - mean.dim() :] != mean.shape:
        raise RuntimeError(
            f"`base_samples` must have shape (*sample_shape, {', '.join(map(str, mean.shape))}). "
            f"Got {tuple(base_samples.shape)}."
        )
    num_samples = base_samples.shape[: base_samples.dim() - mean.dim()].numel()
    factor = root(block, covariance, num_samples)
    return (factor @ base_samples.unsqueeze(-1)).squeeze(-1) + mean


def root(block: SettingsBlock, covariance: LinearOperator, num_samples: int) -> Tensor:
    """The lower Cholesky factor, computed in float64, with the smallest jitter that succeeds, in steps of ten.

    Raises:
        RuntimeError: If the covariance stays indefinite with a hundredth of its mean variance added.
    """
    dense = covariance.to_dense().to(torch.float64)
    scale = dense.detach().diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(torch.finfo(torch.float64).tiny)
    relative = 0.0
    eye = torch.eye(dense.shape[-1], dtype=dense.dtype, device=dense.device)
    while True:
        jitter = (relative * scale)[..., None, None] * eye
        factor, info = torch.linalg.cholesky_ex(dense + jitter)
        if not bool(info.any()):
            break
        relative = 10 * relative if relative else _FIRST_JITTER * torch.finfo(covariance.dtype).eps
        if relative > _LAST_JITTER:
            raise RuntimeError(
                "use_rangeformer cannot sample: the covariance is not positive semi-definite even with "
                f"{_LAST_JITTER:.0%} of its mean variance added to the diagonal."
            )
    method = "cholesky (exact)" if not relative else f"cholesky (+{relative:.0e})"
    block.recorder.call(Call("samples", covariance.shape[-1], method, num_columns=num_samples))
    return factor.to(covariance.dtype)


def _differentiable(covariance: LinearOperator) -> bool:
    return torch.is_grad_enabled() and any(t.requires_grad for t in covariance.representation())
