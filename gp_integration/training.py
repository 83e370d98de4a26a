"""The log-density of a noisy exact GP: what the marginal likelihood trains on."""

from gpytorch.distributions import MultivariateNormal
from torch import Tensor

from gp_integration import calls as certified
from gp_integration.covariance import kernels_of, kind_of, noisy_system
from gp_integration.dispatch import stays_with_cholesky
from gp_integration.notices import leave_alone
from gp_integration.request import Task
from gp_integration.state import Block


def log_prob(block: Block, distribution: MultivariateNormal, value: Tensor) -> Tensor | None:
    """Log N(value; mean, K + noise), batched, differentiable; the backward pass needs no block.

    Args:
        block: The active block.
        distribution: The marginal of an exact GP, mean `(*batch, n)`.
        value: Targets, `(*any, n)`; targets that share a matrix are solved together.

    Returns:
        `(*broadcast)` log-densities, or None if this distribution is not ours.
    """
    covariance = distribution.lazy_covariance_matrix
    system = noisy_system(covariance)
    if system is None:
        leave_alone(block, kind_of(covariance))
        return None
    if stays_with_cholesky(block, system):
        return None
    if distribution._validate_args:
        distribution._validate_sample(value)
    offset = (value - distribution.loc).unsqueeze(-1)
    kernels = kernels_of(covariance) if block.options.reuse_structure else []
    task = Task(block, "log_prob", block.options.tolerance, kernel=kernels[0] if kernels else None)
    inv_quad, logdet = certified.inv_quad_logdet(task, system, offset)
    return -0.5 * (inv_quad.squeeze(-1) + logdet + certified.gaussian_constant(system.shape[-1]))
