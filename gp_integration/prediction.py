"""Predictive mean and covariance of an exact GP, with one preconditioner for both.

GPyTorch keeps its caches on the prediction strategy. Ours are kept outside of it, in a weak table:
an entry goes with its strategy, and a model used inside a block has no attribute that it had not before.
"""

import threading
import weakref
from dataclasses import dataclass, field

import torch
from gpytorch import settings as gpytorch_settings
from gpytorch.models.exact_prediction_strategies import DefaultPredictionStrategy
from linear_operator import to_dense, to_linear_operator
from linear_operator.operators import (
    AddedDiagLinearOperator,
    DenseLinearOperator,
    LinearOperator,
    MaskedLinearOperator,
    MatmulLinearOperator,
)
from torch import Tensor

import rangeformer as rf
from gp_integration import calls
from gp_integration.batch_folding import BatchFold
from gp_integration.covariance import PredictiveCovariance, kernels_of, kind_of, noisy_system
from gp_integration.left_alone import leave_alone, stays_with_cholesky
from gp_integration.options import BlockOptions
from gp_integration.request import SharedPreconditioner, SolveRequest
from gp_integration.solve_derivative import once_differentiable
from gp_integration.state import SettingsBlock

# Test points are solved for in blocks: wide enough for fast products, narrow enough for memory.
_BLOCK_COLUMNS = 512
# Up to here the m x m correction is formed; beyond, only its factors are, as GPyTorch does.
_DENSE_TEST_POINTS = 4096

_lock = threading.Lock()
_systems: "weakref.WeakKeyDictionary[DefaultPredictionStrategy, dict[bool, TrainingSystem]]"
_systems = weakref.WeakKeyDictionary()
_fantasies: "weakref.WeakSet[DefaultPredictionStrategy]" = weakref.WeakSet()


@dataclass
class TrainingSystem:
    """K_train + noise of one strategy, without a graph, and what has been computed from it.

    Attributes:
        matrix: `(*batch, n, n)`.
        offset: y - mean, `(*any, n)`.
        options: The options it was built under.
        fingerprint: The values it was built from; other options or values make it stale.
        kernel: The kernel whose structure, kept from training, its preconditioner may reuse.
        shared: Its preconditioner, built at first use.
        mean_cache: matrix^-1 offset, computed at first use.
    """

    matrix: AddedDiagLinearOperator
    offset: Tensor
    options: BlockOptions
    fingerprint: list[Tensor]
    kernel: torch.nn.Module | None
    shared: SharedPreconditioner = field(default_factory=SharedPreconditioner)
    mean_cache: Tensor | None = None

    def request(self, block: SettingsBlock, purpose: str) -> SolveRequest:
        """A solve with this matrix."""
        return SolveRequest(block, purpose, block.options.eval_rtol, shared=self.shared, kernel=self.kernel)


def mean_cache(block: SettingsBlock, strategy: DefaultPredictionStrategy, nan_policy: str) -> Tensor | None:
    """(K_train + noise)^-1 (y - mean), shape `(*batch, n)`; NaN at missing observations.

    Returns:
        The cache, without a graph if `detach_test_caches` is on; None if this strategy is left alone.
    """
    if nan_policy == "fill":
        leave_alone(block, "observation_nan_policy('fill')")
        return None
    observed = None
    if nan_policy == "mask":
        settings = gpytorch_settings.observation_nan_policy
        observed = settings._get_observed(strategy.train_labels, strategy.train_labels.shape[-1:])
    system = _training_system(block, strategy, observed)
    if system is None:
        return None
    if gpytorch_settings.detach_test_caches.on():
        if system.mean_cache is None:
            with torch.no_grad():
                system.mean_cache = _solve_mean(block, system, system.matrix, system.offset)
        solution = system.mean_cache
    else:
        matrix, offset = _with_graph(strategy, observed)
        solution = _solve_mean(block, system, matrix, offset)
    if observed is None:
        return solution
    full = solution.new_full((*solution.shape[:-1], observed.shape[-1]), torch.nan)
    full[..., observed] = solution
    return full


def predictive_covariance(
    block: SettingsBlock,
    strategy: DefaultPredictionStrategy,
    test_test: Tensor | LinearOperator,  # shape: (*any, m, m)
    test_train: Tensor | LinearOperator,  # shape: (*any, m, n)
) -> LinearOperator | None:  # shape: (*any, m, m)
    """K_test,test - B^T A^-1 B with B = K_train,test and A = K_train + noise, never below the true one.

    With X ~ A^-1 B and R = B - A X, the correction B^T A^-1 B equals X^T B + B^T X - X^T A X plus
    R^T A^-1 R, which is positive semi-definite and quadratic in the residual. Leaving it out makes
    the predictive covariance too large by that much and never too small: variances stay positive.

    Returns:
        The covariance, or None if this strategy is left alone.
    """
    if gpytorch_settings.skip_posterior_variances.on():
        return None
    system = _training_system(block, strategy, None)
    if system is None:
        return None
    matrix = system.matrix
    if gpytorch_settings.detach_test_caches.off():
        matrix, _ = _with_graph(strategy, None)
    cross = to_dense(test_train).mT
    solution = _solve_blocks(block, system, cross.detach())
    correction = _correction(matrix, cross, solution)
    if torch.is_tensor(test_test) and isinstance(correction, DenseLinearOperator):
        return PredictiveCovariance(test_test - correction.tensor)
    return PredictiveCovariance(to_linear_operator(test_test), correction.mul(-1))


def is_supported(block: SettingsBlock, strategy: DefaultPredictionStrategy) -> bool:
    """Whether a strategy is the plain one for exact GPs; warns if it is not."""
    if type(strategy) is not DefaultPredictionStrategy:
        leave_alone(block, f"predictions by {type(strategy).__name__}")
        return False
    if strategy in _fantasies:
        leave_alone(block, "fantasy models")
        return False
    return True


def remember_fantasy(strategy: DefaultPredictionStrategy) -> None:
    """Leave a strategy made by `get_fantasy_model` to GPyTorch, whose caches it already holds."""
    _fantasies.add(strategy)


def _training_system(
    block: SettingsBlock, strategy: DefaultPredictionStrategy, observed: Tensor | None
) -> TrainingSystem | None:
    """The strategy's system under these options, from the table if nothing it depends on has changed."""
    if stays_with_cholesky(block, strategy.lik_train_train_covar):
        return None
    fingerprint = _fingerprint(strategy, observed)
    masked = observed is not None
    with _lock:
        system = _systems.get(strategy, {}).get(masked)
    if system is not None and system.options == block.options and _same(system.fingerprint, fingerprint):
        return system
    with torch.no_grad():
        evaluated = _evaluate(strategy, observed)
    if evaluated is None:
        leave_alone(block, kind_of(strategy.lik_train_train_covar))
        return None
    kernels = kernels_of(strategy.train_prior_dist.lazy_covariance_matrix) if block.options.reuse_structure else []
    kernel = kernels[0] if kernels and observed is None else None
    system = TrainingSystem(*evaluated, block.options, fingerprint, kernel)
    with _lock:
        _systems.setdefault(strategy, {})[masked] = system
    return system


def _evaluate(
    strategy: DefaultPredictionStrategy, observed: Tensor | None
) -> tuple[AddedDiagLinearOperator, Tensor] | None:
    """(K + noise, y - mean), evaluated anew so that gradients and changed hyperparameters are right."""
    prior = strategy.train_prior_dist
    prior = prior.__class__(prior.mean, prior.lazy_covariance_matrix.clone())
    marginal = strategy.likelihood(prior, strategy.train_inputs)
    covariance = marginal.lazy_covariance_matrix
    offset = strategy.train_labels - marginal.loc
    if observed is not None:
        covariance = MaskedLinearOperator(covariance, observed, observed)
        offset = offset[..., observed]
    matrix = noisy_system(covariance)
    return None if matrix is None else (matrix, offset)


def _with_graph(strategy: DefaultPredictionStrategy, observed: Tensor | None) -> tuple[AddedDiagLinearOperator, Tensor]:
    """The same for a strategy whose system is known to be supported."""
    evaluated = _evaluate(strategy, observed)
    assert evaluated is not None
    return evaluated


def _fingerprint(strategy: DefaultPredictionStrategy, observed: Tensor | None) -> list[Tensor]:
    """Copies of all that A depends on and a user may change without GPyTorch making a new strategy.

    Values are compared, not version counters: GPyTorch's `initialize` writes through `.data`.
    """
    with torch.no_grad():
        kernels = kernels_of(strategy.train_prior_dist.lazy_covariance_matrix)
        values = [p.detach().clone() for kernel in kernels for p in kernel.parameters()]
        values += [p.detach().clone() for p in strategy.likelihood.parameters()]
        noise = getattr(strategy.likelihood, "noise", None)  # fixed noise is neither parameter nor buffer
        values += [noise.detach().clone()] if torch.is_tensor(noise) else []
        values += [] if observed is None else [observed]
    return values


def _same(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def _solve_mean(block: SettingsBlock, system: TrainingSystem, matrix: LinearOperator, offset: Tensor) -> Tensor:
    return calls.solve(system.request(block, "mean"), matrix, offset.unsqueeze(-1)).squeeze(-1)


def _solve_blocks(block: SettingsBlock, system: TrainingSystem, cross: Tensor) -> Tensor:
    """A^-1 cross, without a graph, `_BLOCK_COLUMNS` columns at a time."""
    request = system.request(block, "covariance")
    fold = BatchFold.of(system.matrix.shape[:-2], cross)
    with torch.no_grad():
        blocks = fold.fold(cross).split(_BLOCK_COLUMNS, dim=-1)
        solution = torch.cat([calls.solve(request, system.matrix, columns) for columns in blocks], dim=-1)
    return fold.unfold(solution)


def _correction(
    matrix: AddedDiagLinearOperator,  # shape: (*batch, n, n)
    cross: Tensor,  # shape: (*full, n, m), B
    solution: Tensor,  # shape: (*full, n, m), X
) -> LinearOperator:  # shape: (*full, m, m)
    """X^T B + B^T X - X^T A X; products in float64, since variances are small differences."""
    fold = BatchFold.of(matrix.shape[:-2], solution)
    if any(tensor.requires_grad for tensor in matrix.representation()):
        image = fold.unfold(matrix @ fold.fold(solution))
    else:
        image = fold.unfold(rf.as_operator(matrix).matmul_precise(fold.fold(solution)))
    X, B, AX = (tensor.to(torch.float64) for tensor in (solution, cross, image))
    half = once_differentiable(B - AX / 2)
    if X.shape[-1] > _DENSE_TEST_POINTS:
        left = torch.cat([X, half], dim=-2).to(cross.dtype)
        right = torch.cat([half, X], dim=-2).to(cross.dtype)
        return MatmulLinearOperator(left.mT, right)
    correction = X.mT @ half
    return DenseLinearOperator((correction + correction.mT).to(cross.dtype))
