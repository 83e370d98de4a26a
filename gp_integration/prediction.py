"""Predictive mean and covariance of an exact GP, with one preconditioner for both."""

import weakref
from dataclasses import replace

import torch
from gpytorch import settings as gpytorch_settings
from gpytorch.models.exact_prediction_strategies import DefaultPredictionStrategy
from linear_operator import to_dense, to_linear_operator
from linear_operator.operators import (
    AddedDiagLinearOperator,
    DenseLinearOperator,
    LinearOperator,
    MatmulLinearOperator,
)
from torch import Tensor

import rangeformer as rf
from gp_integration import calls
from gp_integration.batch_folding import BatchFold
from gp_integration.covariance import PredictiveCovariance
from gp_integration.data_checks import check_finite
from gp_integration.left_alone import leave_alone, stays_with_cholesky
from gp_integration.request import ERROR_FACTOR, SolveRequest
from gp_integration.solve_derivative import QuadraticDerivative, once_differentiable
from gp_integration.state import SettingsBlock
from gp_integration.training_system import TrainingSystem, system_of, with_graph

# Test points are solved for in blocks: wide enough for fast products, narrow enough for memory.
_BLOCK_COLUMNS = 512
# Up to here the m x m correction is formed; beyond, only its factors are, as GPyTorch does.
_DENSE_TEST_POINTS = 4096

_fantasies: "weakref.WeakSet[DefaultPredictionStrategy]" = weakref.WeakSet()


def mean_cache(block: SettingsBlock, strategy: DefaultPredictionStrategy, nan_policy: str) -> Tensor:
    """(K_train + noise)^-1 (y - mean), shape `(*batch, n)`; NaN at missing observations.

    Returns:
        The cache, without a graph if `detach_test_caches` is on; NotImplemented if this strategy is
        left alone.
    """
    if not is_supported(block, strategy):
        return NotImplemented
    if nan_policy == "fill":
        leave_alone(block, "observation_nan_policy('fill')")
        return NotImplemented
    observed = None
    if nan_policy == "mask":
        settings = gpytorch_settings.observation_nan_policy
        observed = settings._get_observed(strategy.train_labels, strategy.train_labels.shape[-1:])
    system = system_of(block, strategy, observed)
    if system is None:
        return NotImplemented
    check_finite("targets", strategy.train_labels if observed is None else strategy.train_labels[..., observed])
    check_finite("prior mean", strategy.train_prior_dist.loc)
    if gpytorch_settings.detach_test_caches.on():
        if system.mean_cache is None:
            with torch.no_grad():
                system.mean_cache = _solve_mean(block, system, system.matrix, system.offset)
        solution = system.mean_cache
    else:
        matrix, offset = with_graph(strategy, observed)
        solution = _solve_mean(block, system, matrix, offset)
    if observed is None:
        return solution
    full = solution.new_full((*solution.shape[:-1], observed.shape[-1]), torch.nan)
    full[..., observed] = solution
    return full


def predictive_covariance(
    block: SettingsBlock,
    strategy: DefaultPredictionStrategy,
    test_test_covar: Tensor | LinearOperator,  # shape: (*any, m, m)
    test_train_covar: Tensor | LinearOperator,  # shape: (*any, m, n)
) -> LinearOperator:  # shape: (*any, m, m)
    """K_test,test - B^T A^-1 B with B = K_train,test and A = K_train + noise, never below the true one.

    With X ~ A^-1 B and R = B - A X, the correction B^T A^-1 B equals X^T B + B^T X - X^T A X plus
    R^T A^-1 R, which is positive semi-definite and quadratic in the residual. Leaving it out makes
    the predictive covariance too large by that much and never too small: variances stay positive.

    Returns:
        The covariance, or NotImplemented if this strategy is left alone.
    """
    if not is_supported(block, strategy) or gpytorch_settings.skip_posterior_variances.on():
        return NotImplemented
    system = system_of(block, strategy, None)
    if system is None:
        return NotImplemented
    matrix = system.matrix
    if gpytorch_settings.detach_test_caches.off():
        matrix, _ = with_graph(strategy, None)
    cross = to_dense(test_train_covar).mT
    solution = solve_blocks(block, system, cross.detach())
    reduction = correction(matrix, cross, solution, system.request(block, "covariance"))
    if torch.is_tensor(test_test_covar) and isinstance(reduction, DenseLinearOperator):
        return PredictiveCovariance(test_test_covar - reduction.tensor)
    return PredictiveCovariance(to_linear_operator(test_test_covar), reduction.mul(-1))


def is_supported(block: SettingsBlock, strategy: DefaultPredictionStrategy) -> bool:
    """Whether a strategy is the plain one for exact GPs; warns if it is not."""
    if type(strategy) is not DefaultPredictionStrategy:
        leave_alone(block, f"predictions by {type(strategy).__name__}")
        return False
    if strategy in _fantasies:
        if not stays_with_cholesky(block, strategy.lik_train_train_covar):
            leave_alone(block, "fantasy models")
        return False
    return True


def remember_fantasy(strategy: DefaultPredictionStrategy) -> None:
    """Leave a strategy that GPyTorch made of one with fantasies to it: it already holds its caches."""
    _fantasies.add(strategy)


def _solve_mean(block: SettingsBlock, system: TrainingSystem, matrix: LinearOperator, offset: Tensor) -> Tensor:
    request = replace(system.request(block, "mean"), error_rtol=ERROR_FACTOR * block.options.eval_rtol)
    return calls.solve(request, matrix, offset.unsqueeze(-1)).squeeze(-1)


def solve_blocks(block: SettingsBlock, system: TrainingSystem, cross: Tensor) -> Tensor:
    """A^-1 cross, without a graph, `_BLOCK_COLUMNS` columns at a time."""
    request = system.request(block, "covariance")
    fold = BatchFold.of(system.matrix.shape[:-2], cross)
    with torch.no_grad():
        blocks = fold.fold(cross).split(_BLOCK_COLUMNS, dim=-1)
        solution = torch.cat([calls.solve(request, system.matrix, columns) for columns in blocks], dim=-1)
    return fold.unfold(solution)


def correction(
    matrix: AddedDiagLinearOperator,  # shape: (*batch, n, n)
    cross: Tensor,  # shape: (*full, n, m), B
    solution: Tensor,  # shape: (*full, n, m), X
    request: SolveRequest,
) -> LinearOperator:  # shape: (*full, m, m)
    """X^T B + B^T X - X^T A X; products in float64, since variances are small differences.

    Differentiable; `request` says how second derivatives solve. Beyond `_DENSE_TEST_POINTS` there are none.
    """
    fold = BatchFold.of(matrix.shape[:-2], solution)
    if is_factored := solution.shape[-1] > _DENSE_TEST_POINTS:
        image = fold.unfold(matrix @ fold.fold(solution))
    else:
        with torch.no_grad():
            image = fold.unfold(rf.as_operator(matrix).matmul_precise(fold.fold(solution)))
    X, B, AX = (tensor.to(torch.float64) for tensor in (solution, cross, image))
    if is_factored:
        half = once_differentiable(B - AX / 2)
        left = torch.cat([X, half], dim=-2).to(cross.dtype)
        right = torch.cat([half, X], dim=-2).to(cross.dtype)
        return MatmulLinearOperator(left.mT, right)
    with torch.no_grad():
        inner = X.mT @ (B - AX / 2)
        value = (inner + inner.mT).to(cross.dtype)
    parts = matrix.representation()
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (cross, *parts)):

        def solve(system: LinearOperator, columns: Tensor) -> Tensor:
            return calls.solve(request, system, columns)

        value = QuadraticDerivative.apply(value, solution, matrix.representation_tree(), solve, cross, *parts)
    return DenseLinearOperator(value)
