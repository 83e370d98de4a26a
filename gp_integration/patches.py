"""The functions of GPyTorch that are replaced while a block is active, and put back afterwards.

Every replacement asks whether a block is active in its thread and otherwise calls the original.
Patches are counted: the first block entered in the process installs them, the last one left removes
them, so outside of blocks the attributes are the very objects they were.
"""

import functools
import inspect
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gpytorch.distributions import MultivariateNormal
from gpytorch.models import ExactGP
from gpytorch.models.exact_prediction_strategies import DefaultPredictionStrategy
from gpytorch.variational._variational_strategy import _VariationalStrategy
from linear_operator.operators import AddedDiagLinearOperator

from gp_integration import fantasies, freshness, operator_methods, sampling, state, training
from gp_integration.left_alone import leave_alone

_MISSING = object()
_lock = threading.Lock()
_num_users = 0
_installed: list[tuple["Patch", object, Callable]] = []


@dataclass(frozen=True)
class Patch:
    """One replaced method.

    Attributes:
        owner: The class.
        name: Of the method.
        parameters: Names of the parameters it had in the versions we know; others are refused.
        replacement: Called as `replacement(block, self, *args, **kwargs)` while a block is active; it
            returns NotImplemented to leave the call to the original, which then runs without a block.
        is_prologue: The replacement only prepares; the original follows, within the block.
    """

    owner: type
    name: str
    parameters: tuple[str, ...]
    replacement: Callable[..., Any]
    is_prologue: bool = False


def _variational(block, self, *args, **kwargs):
    leave_alone(block, "variational GPs (SVGP)")
    return NotImplemented


PATCHES = (
    Patch(ExactGP, "__call__", ("self", "args", "kwargs"), freshness.refresh, is_prologue=True),
    Patch(MultivariateNormal, "log_prob", ("self", "value"), training.log_prob),
    Patch(MultivariateNormal, "rsample", ("self", "sample_shape", "base_samples"), sampling.rsample),
    Patch(AddedDiagLinearOperator, "solve", ("self", "right_tensor", "left_tensor"), operator_methods.solve),
    Patch(AddedDiagLinearOperator, "inv_quad", ("self", "inv_quad_rhs", "reduce_inv_quad"), operator_methods.inv_quad),
    Patch(
        AddedDiagLinearOperator,
        "inv_quad_logdet",
        ("self", "inv_quad_rhs", "logdet", "reduce_inv_quad"),
        operator_methods.inv_quad_logdet,
    ),
    Patch(AddedDiagLinearOperator, "zero_mean_mvn_samples", ("self", "num_samples"), operator_methods.samples),
    Patch(DefaultPredictionStrategy, "_mean_cache", ("self", "nan_policy"), fantasies.mean_cache),
    Patch(
        DefaultPredictionStrategy,
        "exact_predictive_covar",
        ("self", "test_test_covar", "test_train_covar"),
        fantasies.predictive_covariance,
    ),
    Patch(
        DefaultPredictionStrategy,
        "get_fantasy_strategy",
        ("self", "inputs", "targets", "full_inputs", "full_targets", "full_output", "kwargs"),
        fantasies.fantasy_strategy,
    ),
    Patch(_VariationalStrategy, "__call__", ("self", "x", "prior", "diag", "kwargs"), _variational),
    Patch(_VariationalStrategy, "kl_divergence", ("self",), _variational),
)


def acquire() -> None:
    """Count one more user; the first one installs the patches, all or none.

    Raises:
        RuntimeError: If a function to be replaced does not have the signature we know.
    """
    global _num_users
    with _lock:
        if _num_users == 0:
            for patch in PATCHES:
                _check_signature(patch)
            for patch in PATCHES:
                _install(patch)
        _num_users += 1


def release() -> None:
    """Count one user less; the last one removes the patches."""
    global _num_users
    with _lock:
        _num_users -= 1
        while _num_users == 0 and _installed:
            patch, original, replacement = _installed.pop()
            if patch.owner.__dict__.get(patch.name) is not replacement:
                continue  # somebody else has replaced it since: theirs stays
            if original is _MISSING:
                delattr(patch.owner, patch.name)
            else:
                setattr(patch.owner, patch.name, original)


def _install(patch: Patch) -> None:
    original = getattr(patch.owner, patch.name)

    @functools.wraps(original)
    def replaced(self, *args, **kwargs):
        block = state.current()
        if block is None:
            return original(self, *args, **kwargs)
        result = patch.replacement(block, self, *args, **kwargs)
        if patch.is_prologue:
            return original(self, *args, **kwargs)
        if result is NotImplemented:
            with state.suspended():
                return original(self, *args, **kwargs)
        return result

    _installed.append((patch, patch.owner.__dict__.get(patch.name, _MISSING), replaced))
    setattr(patch.owner, patch.name, replaced)


def _check_signature(patch: Patch) -> None:
    method = getattr(patch.owner, patch.name, None)
    found = None if method is None else tuple(inspect.signature(method).parameters)
    if found != patch.parameters:
        raise RuntimeError(
            f"use_rangeformer replaces {patch.owner.__module__}.{patch.owner.__name__}.{patch.name}, which it "
            f"knows with the parameters {patch.parameters}. Got {found}. Install a tested version of gpytorch "
            "and linear_operator (see constraints.txt), or update this package."
        )
