"""Results that carry their own evidence, and the one vocabulary for how a computation ended."""

import warnings
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypedDict

from scipy.special import stdtrit

from rangeformer.deprecation import callers_level
from rangeformer.operators import Reads
from rangeformer.shapes import Bool, Float, Tensor


class ConvergenceWarning(UserWarning):
    """An answer did not meet its tolerance, or a fallback produced it."""


class Status(Enum):
    """How a computation ended. The value is a sentence; a result's `message` adds the figures and what to do.

    Control flow reads this, never a message.
    """

    CONVERGED = "Converged."
    MAX_ITERATIONS = "The iteration limit was reached."
    STAGNATED = "The residual stopped falling: the limit of the working precision for this matrix."
    INDEFINITE = "The matrix is not positive definite."
    SINGULAR = "The matrix is singular in its precision."
    PRECISION_LIMITED = "The tolerance is met in float64 and missed once the value is rounded to its type."
    NOT_FINITE = "A value left the range of its type."
    ILL_CONDITIONED = "The matrix is so ill-conditioned that rounding limits the value."
    FALLBACK_USED = "The iteration failed and a dense factorisation produced the value."


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What has been read of A, set-up and checks included.

    Attributes:
        num_matvecs: Vectors multiplied by A or its transpose.
        num_passes: Times A was touched as a whole.
        num_entries: Single entries of A read.
    """

    num_matvecs: int
    num_passes: int
    num_entries: int


@dataclass(frozen=True, kw_only=True)
class OfLoops(Costs):
    """What the answers of a looped model have in common.

    Attributes:
        converged: Whether each part of the answer is within its tolerance.
        num_loops: Loops allowed.
        method: "learned-krylov", or what else answered.
        message: A sentence on how it ended.
    """

    converged: Tensor
    num_loops: int
    method: str
    message: str

    @property
    def status(self) -> Status:
        """`CONVERGED` if every part has, else `MAX_ITERATIONS`: more loops help."""
        return Status.CONVERGED if bool(self.converged.all()) else Status.MAX_ITERATIONS


@dataclass(frozen=True, kw_only=True)
class Solution(Costs):
    """X with A X = rhs, and how it came about.

    Attributes:
        value: `(*batch, n, k)` (or `(n,)` for a vector rhs), in the dtype and on the device of rhs.
        converged: `(*batch, k)` per column: `value` meets rtol, whoever produced it. How it was reached is `status`.
        residual_norms: `(*batch, k)` ||rhs - A value|| / ||rhs||, recomputed from `value` (in float64 where A's storage
            allows).
        num_iterations: Passes of the iteration (a block counts once); loops allowed for "learned-krylov".
        method: "cg", "block-cg" or "learned-krylov".
        preconditioner: Name of the preconditioner used.
        status: How it ended; `FALLBACK_USED` if a dense factorisation produced some of the values.
        cause: How the iteration itself ended; differs from `status` only where a fallback followed.
        fallback: None, or the classical method that produced `value` after the iteration failed.
        message: A sentence on how it ended.
        error_bounds: `(*batch, k)` bound of the relative error of each column, ||r|| / (noise ||value||) and a little
            more; None where A does not state its noise.
    """

    value: Tensor
    converged: Bool[Tensor, "*columns"]
    residual_norms: Float[Tensor, "*columns"]
    num_iterations: int
    method: str
    preconditioner: str
    status: Status
    cause: Status
    fallback: str | None
    message: str
    error_bounds: Float[Tensor, "*columns"] | None = None


@dataclass(frozen=True, kw_only=True)
class LogDeterminant(Costs):
    """log det A and how far it may be off.

    Attributes:
        value: `(*batch)` log det A.
        standard_error: `(*batch)` one standard deviation of the estimate over its probes; 0 when it is exact.
        rounding_error: `(*batch)` estimated error from rounding, in float64 or A's dtype, whichever was worked in.
        sign: `(*batch)` of det A: 1 where `value` is finite; else that of the indefinite A where the dense fallback has
            found it (n <= 2048), or NaN.
        converged: `(*batch)` whether the probe solves met rtol, A showed itself positive definite, and rounding leaves
            less than the standard error or rtol / 100 nats a row.
        num_probes: Random probes; 0 when unit vectors made the result exact.
        num_iterations: Passes of the iteration; loops allowed for "learned-krylov".
        preconditioner: Name of the preconditioner used.
        status: How it ended; `FALLBACK_USED` if a dense factorisation produced the value.
        cause: How the iteration itself ended; differs from `status` only where a fallback followed.
        fallback: None, or the classical method that produced `value` after the iteration failed.
        message: A sentence on how it ended.
        method: "krylov" or "learned-krylov".
        probe_terms: What `rf.gradient_error` reads; None without a gradient, or where it is exact.
    """

    value: Float[Tensor, "*batch"]
    standard_error: Float[Tensor, "*batch"]
    rounding_error: Float[Tensor, "*batch"]
    sign: Float[Tensor, "*batch"]
    converged: Bool[Tensor, "*batch"]
    num_probes: int
    num_iterations: int
    preconditioner: str
    status: Status
    cause: Status
    fallback: str | None
    message: str
    method: str = "krylov"
    probe_terms: Tensor | None = None

    def interval(self, confidence: float = 0.9) -> tuple[Tensor, Tensor]:
        """An interval that covers log det A with this probability: Student's t over the probes, and rounding.

        Args:
            confidence: Between 0 and 1.
        """
        degrees = max(self.num_probes - 1, 1)
        reach = float(stdtrit(degrees, (1 + confidence) / 2)) * self.standard_error + self.rounding_error
        return self.value.detach() - reach, self.value.detach() + reach


@dataclass(frozen=True)
class InvQuadLogdet:
    """rhs^T A^-1 rhs and log det A from one Krylov space.

    Attributes:
        inv_quad: `(*batch)` sum over the columns of rhs.
        logdet: `(*batch)` log det A.
        standard_error: `(*batch)` of the log-determinant.
        solution: A^-1 rhs with its residuals (not differentiable: differentiate `inv_quad`).
        log_determinant: The log-determinant's own evidence.
    """

    inv_quad: Float[Tensor, "*batch"]
    logdet: Float[Tensor, "*batch"]
    standard_error: Float[Tensor, "*batch"]
    solution: Solution
    log_determinant: LogDeterminant

    @property
    def status(self) -> Status:
        """`NOT_FINITE` for a quadratic form beyond its type, else the log-determinant's or the solve's."""
        if not bool(self.inv_quad.isfinite().all()):
            return Status.NOT_FINITE
        parts = (self.log_determinant.status, self.solution.status)
        return next((status for status in parts if status is not Status.CONVERGED), Status.CONVERGED)


@dataclass(frozen=True, kw_only=True)
class Spectrum(OfLoops):
    """All eigenvalues or singular values, and how far each may be off.

    Attributes:
        value: `(*batch, n)`; eigenvalues ascending, singular values descending.
        errors: `(*batch, n)` estimated absolute error: the residual norm of a Ritz pair, or the gap between two Ritz
            values for a value that lies somewhere between them.
        converged: `(*batch, n)` the error is at most rtol times the largest magnitude.
    """

    value: Float[Tensor, "*batch n"]
    errors: Float[Tensor, "*batch n"]
    converged: Bool[Tensor, "*batch n"]


@dataclass(frozen=True, kw_only=True)
class EigenPairs(OfLoops):
    """Some eigenvalues with their vectors.

    Attributes:
        values: `(*batch, k)` in the order that was asked for.
        vectors: `(*batch, n, k)` orthonormal.
        residual_norms: `(*batch, k)` ||A v - value v||: an eigenvalue lies this near.
        converged: `(*batch, k)` the residual norm is at most rtol times the largest magnitude, and nothing shows that
            another eigenvalue comes before it.
    """

    values: Float[Tensor, "*batch k"]
    vectors: Float[Tensor, "*batch n k"]
    residual_norms: Float[Tensor, "*batch k"]
    converged: Bool[Tensor, "*batch k"]


@dataclass(frozen=True, kw_only=True)
class LeastSquares(OfLoops):
    """X with ||rhs - A X|| smallest, the shortest such X where there are many.

    Attributes:
        value: `(*batch, n, k)` (or `(n,)` for a vector rhs).
        residual_norms: `(*batch, k)` ||rhs - A value|| / ||rhs||, recomputed from `value`.
        gradient_norms: `(*batch, k)` ||A^T (rhs - A value)|| / (||A|| ||rhs||), recomputed; zero at a minimum.
        converged: `(*batch, k)` the gradient norm is at most rtol times the residual norm, or the residual norm at most
            rtol.
    """

    value: Tensor
    residual_norms: Float[Tensor, "*columns"]
    gradient_norms: Float[Tensor, "*columns"]
    converged: Bool[Tensor, "*columns"]


@dataclass(frozen=True, kw_only=True)
class Estimate(OfLoops):
    """One number a matrix, and how far it may be off.

    Attributes:
        value: `(*batch)`.
        error: `(*batch)` estimated absolute error; rounding alone once the search space is complete.
        converged: `(*batch)` the error is at most rtol times the value's magnitude.
    """

    value: Float[Tensor, "*batch"]
    error: Float[Tensor, "*batch"]
    converged: Bool[Tensor, "*batch"]


class CostCounts(TypedDict):
    """The fields of `Costs`."""

    num_matvecs: int
    num_passes: int
    num_entries: int


def costs(reads: Reads) -> CostCounts:
    """The cost counts as the keyword arguments of a result."""
    return {
        "num_matvecs": reads.matvecs,
        "num_passes": reads.passes,
        "num_entries": reads.entries,
    }


def warn_unconverged(message: str) -> None:
    """Say once per call that an answer is not what was asked for, and what to do; the warning points at the caller.

    Args:
        message: A sentence or two.
    """
    warnings.warn(message, ConvergenceWarning, stacklevel=callers_level())


def drop_column(solution: Solution) -> Solution:
    """The solution of a vector right-hand side, without the column that carried it."""
    return replace(
        solution,
        value=solution.value.squeeze(-1),
        converged=solution.converged.squeeze(-1),
        residual_norms=solution.residual_norms.squeeze(-1),
        error_bounds=None if solution.error_bounds is None else solution.error_bounds.squeeze(-1),
    )


def unresolved(what: str, missed: int, total: int, num_loops: int, rtol: float) -> str:
    """A sentence on how many values have not converged."""
    return (
        f"Not converged: {missed} of {total} {what} have an estimated error above rtol={rtol:.1e} of the largest "
        "magnitude after "
        f"{num_loops} loops. Allow more loops: the answer is exact once loops x 64 reach the size of A."
    )
