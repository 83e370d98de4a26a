"""The log-density of a noisy exact GP: what the marginal likelihood trains on."""

import math

from gpytorch.distributions import MultivariateNormal
from torch import Tensor

from gp_integration import calls
from gp_integration.covariance import kernels_of, kind_of, noisy_system
from gp_integration.data_checks import check_finite
from gp_integration.left_alone import leave_alone, stays_with_cholesky
from gp_integration.request import ERROR_FACTOR, SolveRequest
from gp_integration.state import SettingsBlock


def log_prob(block: SettingsBlock, distribution: MultivariateNormal, value: Tensor) -> Tensor:
    """Log N(value; mean, K + noise), batched, differentiable; the backward pass needs no block.

    Args:
        block: The active block.
        distribution: The marginal of an exact GP, mean `(*batch, n)`.
        value: Targets, `(*any, n)`; targets that share a matrix are solved together.

    Returns:
        `(*broadcast)` log-densities, or NotImplemented if this distribution is left alone.
    """
    covariance = distribution.lazy_covariance_matrix
    system = noisy_system(covariance)
    if system is None:
        leave_alone(block, kind_of(covariance))
        return NotImplemented
    if stays_with_cholesky(block, system):
        return NotImplemented
    if distribution._validate_args:
        distribution._validate_sample(value)
    check_finite("targets", value)
    check_finite("prior mean", distribution.loc)
    offset = (value - distribution.loc).unsqueeze(-1)
    kernels = kernels_of(covariance) if block.options.reuse_structure else []
    kernel = kernels[0] if kernels else None
    # Targets far from the prior mean would hide, in their norm, the part that the gradient is made of.
    error_rtol = ERROR_FACTOR * block.options.rtol
    request = SolveRequest(block, "log_prob", block.options.rtol, kernel=kernel, error_rtol=error_rtol)
    inv_quad, logdet = calls.inv_quad_logdet(request, system, offset)
    return -0.5 * (inv_quad.squeeze(-1) + logdet + system.shape[-1] * math.log(2 * math.pi))
