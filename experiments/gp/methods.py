"""The rivals for an exact GP's linear algebra, every knob of each set here, and a count of what each of them did."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from unittest import mock

import linear_operator
import torch
from gpytorch import settings
from linear_operator.utils.warnings import NumericalWarning

import rangeformer as rf
from gp_integration.settings import last_report, use_rangeformer


@dataclass
class Record:
    """What happened inside a method's block."""

    num_iterations: int = 0  # of conjugate gradients, all solves together
    num_fallbacks: int = 0  # solves repeated by Cholesky
    warnings: list[str] = field(default_factory=list)  # trouble that was reported


@dataclass(frozen=True)
class Method:
    """A way to do the linear algebra: inside `contexts(seed)`, GPyTorch does it so."""

    label: str
    contexts: Callable[[int], tuple[AbstractContextManager, ...]]

    @contextmanager
    def active(self, seed: int) -> Iterator[Record]:
        """Everything inside goes this way, with this seed; the record is complete once the block has ended."""
        record = Record()
        torch.manual_seed(seed)  # GPyTorch draws its probes from the global generator
        with ExitStack() as stack:
            caught = stack.enter_context(warnings.catch_warnings(record=True))
            for category in (NumericalWarning, rf.ConvergenceWarning):
                warnings.simplefilter("always", category)
            stack.enter_context(counted_linear_cg(record))
            for context in self.contexts(seed):
                stack.enter_context(context)
            yield record
            report = last_report() if use_rangeformer.on() else None
            if report is not None:
                record.num_iterations += report.num_iterations()
                record.num_fallbacks = len(report.fallbacks)
            record.warnings = [str(warning.message) for warning in caught or ()]


def _cholesky(seed: int) -> tuple[AbstractContextManager, ...]:
    # Raising the size limit is a little faster than switching the fast computations off (which takes torch's
    # `MultivariateNormal.log_prob`): 0.65 s against 0.75 s for a step at n = 1500.
    return (settings.max_cholesky_size(10**9), settings.fast_pred_var(False))


def _conjugate_gradients(
    tolerance: float, eval_tolerance: float, max_iterations: int, rank: int, rank_tolerance: float, min_size: int
) -> Callable[[int], tuple[AbstractContextManager, ...]]:
    return lambda seed: (
        settings.max_cholesky_size(800),
        settings.cg_tolerance(tolerance),
        settings.eval_cg_tolerance(eval_tolerance),
        settings.max_cg_iterations(max_iterations),
        settings.max_preconditioner_size(rank),
        settings.preconditioner_tolerance(rank_tolerance),
        settings.min_preconditioning_size(min_size),
        settings.num_trace_samples(10),
        settings.max_lanczos_quadrature_iterations(20),
        settings.fast_pred_var(False),
    )


def _rangeformer(seed: int) -> tuple[AbstractContextManager, ...]:
    return (
        settings.max_cholesky_size(800),
        settings.fast_pred_var(False),
        use_rangeformer(rtol=1e-3, eval_rtol=1e-4, seed=seed),
    )


# In the order in which they run: the exact one first, because the others are checked where it ends.
METHODS = {
    "cholesky": Method("Cholesky", _cholesky),
    # what GPyTorch 1.15 does if nobody sets anything
    "cg-default": Method("CG, default", _conjugate_gradients(1.0, 0.01, 1000, 15, 1e-3, 2000)),
    # what its maintainers advise when the default is too inaccurate
    "cg-tuned": Method("CG, tuned", _conjugate_gradients(0.01, 1e-4, 5000, 100, 1e-6, 1)),
    "rangeformer": Method("RangeFormer", _rangeformer),
}


@contextmanager
def counted_linear_cg(record: Record) -> Iterator[None]:
    """Count the iterations of GPyTorch's solves: products with the matrix, less the one for the first residual."""
    original = linear_operator.utils.linear_cg

    def counted(matmul_closure, *args, **kwargs):
        matmul = matmul_closure.matmul if isinstance(matmul_closure, torch.Tensor) else matmul_closure

        def counting_matmul(vectors):
            record.num_iterations += 1
            return matmul(vectors)

        record.num_iterations -= 1
        return original(counting_matmul, *args, **kwargs)

    with mock.patch.object(linear_operator.utils, "linear_cg", counted):
        yield
