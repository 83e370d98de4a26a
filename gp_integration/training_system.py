"""The training matrix of a prediction strategy, evaluated once and kept while nothing it depends on changes.

GPyTorch keeps its caches on the prediction strategy. Ours are kept outside of it, in a weak table:
an entry goes with its strategy, and a model used inside a block has no attribute that it had not before.
"""

import threading
import weakref
from dataclasses import dataclass, field

import torch
from gpytorch.models.exact_prediction_strategies import DefaultPredictionStrategy
from linear_operator.operators import AddedDiagLinearOperator, MaskedLinearOperator
from torch import Tensor

from gp_integration.covariance import kernels_of, kind_of, lazy_inputs_of, noisy_system
from gp_integration.left_alone import leave_alone, stays_with_cholesky
from gp_integration.options import BlockOptions
from gp_integration.request import SharedPreconditioner, SolveRequest
from gp_integration.state import SettingsBlock

_lock = threading.Lock()
_systems: "weakref.WeakKeyDictionary[DefaultPredictionStrategy, dict[bool, TrainingSystem]]"
_systems = weakref.WeakKeyDictionary()


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


def system_of(
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


def is_current(system: TrainingSystem, strategy: DefaultPredictionStrategy) -> bool:
    """Whether nothing that a system of all observations was built from has changed."""
    return _same(system.fingerprint, _fingerprint(strategy, None))


def with_graph(strategy: DefaultPredictionStrategy, observed: Tensor | None) -> tuple[AddedDiagLinearOperator, Tensor]:
    """(K + noise, y - mean) in the autograd graph, for a strategy whose system is known to be supported."""
    evaluated = _evaluate(strategy, observed)
    assert evaluated is not None
    return evaluated


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


def _fingerprint(strategy: DefaultPredictionStrategy, observed: Tensor | None) -> list[Tensor]:
    """Copies of all that A depends on and a user may change without GPyTorch making a new strategy.

    Values are compared, not version counters: GPyTorch's `initialize` writes through `.data`.
    """
    prior = strategy.train_prior_dist
    modules = [*kernels_of(prior.lazy_covariance_matrix), strategy.likelihood]
    values = [value for module in modules for value in (*module.parameters(), *module.buffers())]
    values += [prior.loc, strategy.train_labels, *lazy_inputs_of(prior.lazy_covariance_matrix)]
    noise = getattr(strategy.likelihood, "noise", None)  # fixed noise is neither parameter nor buffer
    values += [noise] if torch.is_tensor(noise) else []
    values += [] if observed is None else [observed]
    return [value.detach().clone() for value in values]


def _same(first: list[Tensor], second: list[Tensor]) -> bool:
    # NaN, a missing observation, must not make two copies different.
    return len(first) == len(second) and all(
        a.shape == b.shape and a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num())
        for a, b in zip(first, second, strict=True)
    )
