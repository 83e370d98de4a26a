"""Prediction strategies whose model has changed since they were made: made anew, so that no prediction is stale.

GPyTorch builds a strategy at the first prediction and keeps it until `train()` or `set_train_data`. Parameters that
change in eval mode, by `load_state_dict`, `initialize` or in place, leave its prior mean, and the features of a deep
kernel, as they were.
"""

import torch
from gpytorch.distributions import MultivariateNormal
from gpytorch.models import ExactGP
from gpytorch.models.exact_prediction_strategies import DefaultPredictionStrategy
from linear_operator.operators import LinearOperator
from torch import Tensor

from gp_integration.covariance import DTYPES, kernels_of, lazy_inputs_of
from gp_integration.left_alone import is_small
from gp_integration.state import SettingsBlock, suspended


def refresh(block: SettingsBlock, model: ExactGP, *args: Tensor, **kwargs: object) -> None:
    """Drop the model's strategy if its prior is no longer the model's own.

    Args:
        block: The active block.
        model: About to predict.
        *args: Of its call.
        **kwargs: Of its call.
    """
    strategy = model.prediction_strategy
    if model.training or model.train_inputs is None or type(strategy) is not DefaultPredictionStrategy:
        return
    known = strategy.train_prior_dist.lazy_covariance_matrix
    plain = type(strategy.train_prior_dist) is MultivariateNormal and known.dtype in DTYPES
    if not plain or is_small(block, known.shape[-1]):
        return
    with torch.no_grad(), suspended():
        prior = model._get_train_prior_distribution(list(model.train_inputs), **kwargs)
    current = prior.lazy_covariance_matrix
    same_mean = _same(prior.loc, strategy.train_prior_dist.loc)
    if not (same_mean and _same_kernel(current, known) and _same_state(model.likelihood, strategy.likelihood)):
        model.prediction_strategy = None


def _same_kernel(current: LinearOperator, known: LinearOperator) -> bool:
    """Whether two lazy covariances have the same kernels, or equal copies, evaluated at the same inputs."""
    kernels = kernels_of(current), kernels_of(known)
    if len(kernels[0]) != len(kernels[1]) or not all(map(_same_state, *kernels)):
        return False
    return all(_same(a, b) for a, b in zip(lazy_inputs_of(current), lazy_inputs_of(known), strict=True))


def _same_state(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    """Whether two modules are one, or a copy with equal parameters and buffers, as models with fantasies hold."""
    if first is second:
        return True
    states = first.state_dict(), second.state_dict()
    if type(first) is not type(second) or states[0].keys() != states[1].keys():
        return False
    values = [(a, states[1][name]) for name, a in states[0].items()]
    noises = getattr(first, "noise", None), getattr(second, "noise", None)  # fixed noise is in no state
    if torch.is_tensor(noises[0]) and torch.is_tensor(noises[1]):
        values.append(noises)
    return all(_same(a, b) for a, b in values)


def _same(first: Tensor, second: Tensor) -> bool:
    try:
        shape = torch.broadcast_shapes(first.shape, second.shape)
    except RuntimeError:
        return False
    first, second = first.detach().expand(shape), second.detach().expand(shape)
    return torch.equal(first, second) or bool(((first == second) | (first.isnan() & second.isnan())).all())
