"""Models conditioned on further observations (`get_fantasy_model`), by block elimination with certified solves.

With A = K_train + noise, U = K(train, fantasies) and S = K(fantasies, fantasies) + noise,

    [A U; U^T S] [a; b] = [y; t]:    C b = t - U^T A^-1 y,    a = A^-1 y - A^-1 U b,    C = S - U^T A^-1 U,

so that the solves are with A, whose preconditioner is there already, and what is factorised is as large as the number
of fantasies. GPyTorch takes A^-1 U from a Lanczos root above `max_cholesky_size`: variances can be off by factors.
"""

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from gpytorch import settings as gpytorch_settings
from gpytorch.distributions import MultivariateNormal
from gpytorch.models.exact_prediction_strategies import DefaultPredictionStrategy
from linear_operator import to_dense
from linear_operator.operators import BatchRepeatLinearOperator, LinearOperator
from linear_operator.utils.cholesky import psd_safe_cholesky
from torch import Tensor

from gp_integration import calls, prediction
from gp_integration.covariance import PredictiveCovariance
from gp_integration.left_alone import is_small, leave_alone
from gp_integration.state import SettingsBlock, suspended
from gp_integration.training_system import TrainingSystem, is_current, system_of, with_graph


@dataclass
class Fantasies:
    """What a strategy knows of the observations that it was conditioned on.

    Attributes:
        base: The strategy of the training data alone.
        cross: `(*any, n, m)` U.
        solved: `(*any, n, m)` A^-1 U.
        noise: `(*any, m, m)` of the fantasies' observations.
        observed: `(*any, m, m)` S.
        factor: `(*any, m, m)` Cholesky factor of C.
        mean_cache: `(*any, n + m)` [a; b].
        system: A, with the values that it was built from.
    """

    base: DefaultPredictionStrategy
    cross: Tensor
    solved: Tensor
    noise: Tensor
    observed: Tensor
    factor: Tensor
    mean_cache: Tensor
    system: TrainingSystem


_fantasies: "weakref.WeakKeyDictionary[DefaultPredictionStrategy, Fantasies]" = weakref.WeakKeyDictionary()


def fantasy_strategy(
    block: SettingsBlock,
    strategy: DefaultPredictionStrategy,
    inputs: list[Tensor],
    targets: Tensor,
    full_inputs: list[Tensor],
    full_targets: Tensor,
    full_output: MultivariateNormal,
    **kwargs: Any,
) -> DefaultPredictionStrategy:
    """`DefaultPredictionStrategy.get_fantasy_strategy` by solves with the training matrix; see there for the arguments.

    Returns:
        The strategy of the model conditioned on `targets`; GPyTorch's own where this one is left alone.
    """
    known = _fantasies.get(strategy)
    base = strategy if known is None else known.base
    plain = type(full_output) is MultivariateNormal and gpytorch_settings.observation_nan_policy.value() == "ignore"
    system = system_of(block, base, None) if plain and prediction.is_supported(block, base) else None
    if system is None:
        if not is_small(block, base.num_train):
            leave_alone(block, "fantasy models")
        with suspended():
            made = strategy.get_fantasy_strategy(inputs, targets, full_inputs, full_targets, full_output, **kwargs)
        prediction.remember_fantasy(made)
        return made
    likelihood = strategy.likelihood.get_fantasy_likelihood(**kwargs)
    mean, covariance = full_output.mean, full_output.lazy_covariance_matrix
    last = slice(strategy.num_train, None)
    new = MultivariateNormal(mean[..., last], covariance[..., last, last])
    noise = likelihood(new, inputs, **kwargs).covariance_matrix - new.covariance_matrix
    if known is not None:
        noise = _block_diagonal(known.noise, noise)
    made = _strategy_like(strategy, full_inputs, full_targets, mean, covariance, likelihood)
    _fantasies[made] = _conditioned(block, base, system, mean, covariance, full_targets, noise)
    return made


def _conditioned(
    block: SettingsBlock,
    base: DefaultPredictionStrategy,
    system: TrainingSystem,
    mean: Tensor,
    covariance: LinearOperator,
    full_targets: Tensor,
    noise: Tensor,
) -> Fantasies:
    n = base.num_train
    cross = to_dense(covariance[..., n:, :n]).mT
    observed = to_dense(covariance[..., n:, n:]) + noise
    detached = gpytorch_settings.detach_test_caches.on()
    matrix = system.matrix if detached else with_graph(base, None)[0]
    request = system.request(block, "fantasies")
    solved = calls.solve(request, matrix, cross)
    alpha = prediction.mean_cache(block, base, "ignore")
    complement = observed - to_dense(prediction.correction(matrix, cross, solved.detach(), request))
    factor = psd_safe_cholesky(complement)
    offset = full_targets[..., n:] - mean[..., n:]
    misfit = (offset - (cross.mT @ alpha.unsqueeze(-1)).squeeze(-1)).unsqueeze(-1)
    lower = torch.cholesky_solve(misfit, factor)
    upper = alpha.unsqueeze(-1) - solved @ lower
    shape = torch.broadcast_shapes(upper.shape[:-2], lower.shape[:-2])
    parts = [part.squeeze(-1).expand(*shape, part.shape[-2]) for part in (upper, lower)]
    return Fantasies(base, cross, solved, noise, observed, factor, torch.cat(parts, -1), system)


def _strategy_like(
    strategy: DefaultPredictionStrategy,
    full_inputs: list[Tensor],
    full_targets: Tensor,
    mean: Tensor,
    covariance: LinearOperator,
    likelihood: torch.nn.Module,
) -> DefaultPredictionStrategy:
    """A plain strategy of all the data; fantasies that share their inputs are expanded as GPyTorch does it."""
    if full_inputs[0].dim() <= full_targets.dim():
        shared = full_targets.shape[:1]
        repeat = shared + torch.Size([1] * (mean.dim() - 1))
        full_inputs = [one.expand(shared + one.shape) for one in full_inputs]
        mean, covariance = mean.expand(shared + mean.shape), BatchRepeatLinearOperator(covariance, repeat)
    prior = MultivariateNormal(mean, covariance)
    return type(strategy)(full_inputs, prior, full_targets, likelihood)


def mean_cache(block: SettingsBlock, strategy: DefaultPredictionStrategy, nan_policy: str) -> Tensor:
    """`prediction.mean_cache`, or the one of a model conditioned on fantasies, `(*any, n + m)`."""
    known = _current(strategy)
    return prediction.mean_cache(block, strategy, nan_policy) if known is None else known.mean_cache


def predictive_covariance(
    block: SettingsBlock,
    strategy: DefaultPredictionStrategy,
    test_test_covar: Tensor | LinearOperator,  # shape: (*any, t, t)
    test_train_covar: Tensor | LinearOperator,  # shape: (*any, t, n + m)
) -> LinearOperator:  # shape: (*any, t, t)
    """`prediction.predictive_covariance`, or the posterior covariance conditioned on the fantasies."""
    known = _current(strategy)
    if known is None:
        return prediction.predictive_covariance(block, strategy, test_test_covar, test_train_covar)
    if gpytorch_settings.skip_posterior_variances.on():
        return NotImplemented
    n = known.cross.shape[-2]
    every = to_dense(test_train_covar).mT
    cross, between = every[..., :n, :], every[..., n:, :]
    matrix = known.system.matrix if gpytorch_settings.detach_test_caches.on() else with_graph(known.base, None)[0]
    solved = prediction.solve_blocks(block, known.system, cross.detach())
    shape = torch.broadcast_shapes(cross.shape[:-2], known.cross.shape[:-2])
    U, B, Q, X = (one.expand(*shape, *one.shape[-2:]) for one in (known.cross, cross, known.solved.detach(), solved))
    request = known.system.request(block, "covariance")
    correction = to_dense(prediction.correction(matrix, torch.cat([U, B], -1), torch.cat([Q, X], -1), request))
    m = U.shape[-1]
    posterior = between - correction[..., :m, m:]
    whitened = torch.linalg.solve_triangular(known.factor, posterior, upper=False)
    reduction = correction[..., m:, m:] + whitened.mT @ whitened
    return PredictiveCovariance(to_dense(test_test_covar) - reduction)


def _current(strategy: DefaultPredictionStrategy) -> Fantasies | None:
    """The fantasies of a strategy, unless hyperparameters or data have changed since."""
    known = _fantasies.get(strategy)
    return known if known is not None and is_current(known.system, known.base) else None


def _block_diagonal(first: Tensor, second: Tensor) -> Tensor:
    shape = torch.broadcast_shapes(first.shape[:-2], second.shape[:-2])
    first, second = (one.expand(*shape, *one.shape[-2:]) for one in (first, second))
    k, m = first.shape[-1], second.shape[-1]
    whole = first.new_zeros(*shape, k + m, k + m)
    whole[..., :k, :k], whole[..., k:, k:] = first, second
    return whole
