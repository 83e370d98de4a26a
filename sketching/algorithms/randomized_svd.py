"""Randomised singular value decomposition: a sketch, a range, as many power iterations as pay, and an error estimate.

Halko, Martinsson & Tropp, "Finding structure with randomness", SIAM Review 2011, Algorithms 4.4 and 5.1, with any
sketch. Each pass over A alternates between its two sides and replaces a basis of one side by that of the other:

    Y = A Omega, Q = orth(Y)  |  B = A^T Q: A ~ Q B^T   |  V = orth(B), Y = A V: A ~ Y V^T   |  Q = orth(Y), ...

so every pass from the second on yields an approximation, none worse than the one before. "auto" stops after the one
whose gain says that the next would buy nothing.
"""

from dataclasses import dataclass
from typing import Any

import torch

from rangeformer.operators import MatrixOperator, TransposedOperator
from rangeformer.randomness import SKETCH, generator_or_default
from rangeformer.shapes import Float, Tensor
from rangeformer.validation import check_count, check_tolerance
from sketching.algorithms.error_estimate import Missed, check_finite, draw_test_vectors, missed_energy
from sketching.arguments import as_sketch, check_rank, draw_sketch, one_matrix, renamed_tolerance, rows_allowed
from sketching.out_of_core.row_blocks import OutOfCoreOperator
from sketching.results import LowRank
from sketching.scaled_operator import ScaledOperator, restored
from sketching.sketches import Sketch

AUTO = "auto"
SIDES = ("rows", "columns")
_MOST_PASSES = 10  # of "auto": four power iterations
_WORTH_A_PASS = 0.05  # share of the squared error that a pass must be expected to remove
_HINT_FACTOR = 4  # what a pass gains over what half of the oversamples gained, a typical value on real matrices
_CANCELLATION = 100  # times eps: squared relative errors below are measured by test vectors, never by differences
_ROUNDING = 100  # times eps: relative errors below are rounding, and another pass would not lower them


@dataclass
class _State:
    """An approximation between two passes.

    Attributes:
        left: `(m, l)`, `right`: `(n, l)`: bases of which the newer is not orthonormal: A ~ left right^T.
        values: Singular values of left right^T, float64.
        missed: What is known of |A|^2 - |left right^T|^2.
    """

    left: Tensor
    right: Tensor
    values: Tensor
    missed: Missed

    def error(self, rank: int) -> Missed:
        """Squared Frobenius error after truncation."""
        truncated = float(self.values[rank:].square().sum())
        return Missed(self.missed.mean + truncated, self.missed.upper + truncated)


def randomized_svd(
    A: Any,
    rank: int,
    *,
    num_oversamples: int = 10,
    num_power_iterations: int | str = AUTO,
    sketch: str | Sketch = "rangeformer",
    max_rows: int | None = None,
    rtol: float | None = None,
    side: str = "rows",
    generator: torch.Generator | None = None,
    tolerance: float | None = None,
) -> LowRank:
    """The leading singular triplets of A.

    Args:
        A: `(m, n)` matrix that can be multiplied from both sides; see `rangeformer.as_operator`.
        rank: Triplets wanted (Halko's k, scikit-learn's n_components), at most min(m, n).
        num_oversamples: Extra sketch columns (Halko's p).
        num_power_iterations: Re-orthonormalised multiplications by A A.mT (Halko's q, scikit-learn's n_iter), two
            passes each; or "auto": half iterations for as long as the estimated error says that another pass buys
            something.
        sketch: A `Sketch`, or "rangeformer", "rangeformer-untrained", "sampled-rows", "gaussian", "sparse-sign",
            "trig". One that reads rows is shown a product with A.mT as wide as itself where A is known through
            products alone: a third pass.
        max_rows: Most rows' worth of entries that a sketch may read beforehand. Default: the larger of 4 rank and a
            tenth of the rows, never more than half, and of rows longer than 512 no more than pay for their time.
        rtol: Relative Frobenius error to reach: "auto" goes on until it is met, or nothing is gained any more; the
            result says which.
        side: What a sketch reads beforehand, "rows" or "columns"; with columns, of which `max_rows` then counts, A.mT
            takes A's place throughout. Wide matrices (four columns a row and more) are better known by their columns.
        generator: Source of all randomness; a fixed one if None.
        tolerance: The former name of `rtol`; deprecated.

    Returns:
        The factors in A's dtype with an estimate of the error; unpacks to `U, S, Vh`. `converged` says whether `rtol`
        was met; without `rtol` it is True and promises nothing, least of all of single values, which may be 10 or 20
        per cent off where they hardly decay.

    Raises:
        TypeError: Wrong type of an argument.
        ValueError: If A is a batch or not finite, a count is impossible, or a name is not known.

    References:
        Halko, Martinsson & Tropp 2011, Algorithms 4.4 and 5.1.

    Example:
        >>> import torch, sketching
        >>> A = torch.outer(torch.arange(1.0, 9.0), torch.ones(5))
        >>> U, S, Vh = low_rank = sketching.randomized_svd(A, 1)
        >>> bool(torch.allclose((U * S) @ Vh, A, atol=1e-4)), low_rank.num_passes
        (True, 2)
    """
    operator = ScaledOperator(_seen_from(one_matrix(A), side))
    check_rank(operator, rank)
    check_count("num_oversamples", num_oversamples, least=0)
    _check_power_iterations(num_power_iterations)
    rtol = renamed_tolerance(rtol, tolerance)
    if rtol is not None:
        check_tolerance("rtol", rtol)
    distribution, limit = as_sketch(sketch), rows_allowed(operator, rank, max_rows)
    generator = generator_or_default(generator, SKETCH)
    before = operator.reads.snapshot()
    with torch.no_grad():
        size = min(rank + num_oversamples, *operator.shape)
        omega = draw_sketch(operator, distribution, size, limit, generator, may_multiply=True)
        state, why = _passes(operator, omega, rank, num_power_iterations, rtol, generator)
        U, S, Vh = _factors(state, rank)
        S = restored(S, operator.exponent, operator.dtype, "Singular values")
    if side == "columns":
        U, Vh = Vh.mT, U.mT
    error, total = state.error(rank), state.missed.mean + float(state.values.square().sum())
    relative = (error.mean / total) ** 0.5 if total > 0 else 0.0
    upper = (error.upper / total) ** 0.5 if total > 0 else 0.0
    reads = operator.reads.since(before)
    return LowRank(
        U=U,
        S=S,
        Vh=Vh,
        relative_error=relative,
        num_passes=reads.passes,
        num_matvecs=reads.matvecs,
        num_entries=reads.entries,
        converged=rtol is None or upper <= rtol,
        message=_message(why, relative, upper, rtol),
    )


def _passes(
    operator: MatrixOperator,
    omega: Float[Tensor, "n l"],
    rank: int,
    num_power_iterations: int | str,
    rtol: float | None,
    generator: torch.Generator,
) -> tuple[_State, str]:
    """Pass after pass until the iterations asked for are done, or another one would buy nothing."""
    size = omega.shape[1]
    images = operator.matmul(torch.cat([omega, draw_test_vectors(operator, generator)], -1))
    check_finite(images)
    image, test_images = images.tensor_split([size], -1)
    left = torch.linalg.qr(image).Q
    state, gain = _from_left(operator, left, test_images, rank)
    if isinstance(num_power_iterations, int):
        for _ in range(num_power_iterations):
            right = torch.linalg.qr(state.right).Q
            left = torch.linalg.qr(operator.matmul(right)).Q
            state, _ = _from_left(operator, left, test_images, rank)
        return state, f"{num_power_iterations} power iterations as asked for."
    num_passes, eps = 2, torch.finfo(operator.dtype).eps
    while True:
        error, total = state.error(rank), state.missed.mean + float(state.values.square().sum())
        if rtol is not None and error.upper <= rtol**2 * total:
            return state, "The tolerance is met."
        if gain <= _WORTH_A_PASS * error.mean or error.mean <= (_ROUNDING * eps) ** 2 * total:
            return state, "Another pass would buy nothing."
        if num_passes >= _MOST_PASSES:
            return state, f"Stopped after {num_passes} passes."
        captured = float(state.values[:rank].square().sum())
        if num_passes % 2 == 0:
            right = torch.linalg.qr(state.right).Q
            state = _from_right(operator, right, state)
        else:
            left = torch.linalg.qr(state.left).Q
            state, _ = _from_left(operator, left, test_images, rank)
        num_passes += 1
        gain = float(state.values[:rank].square().sum()) - captured
        if num_passes % 2 and state.missed.mean <= _CANCELLATION * eps * total:
            gain = float("inf")  # too small to be known as a difference: finish the iteration and measure


def _from_left(
    operator: MatrixOperator, left: Float[Tensor, "m l"], test_images: Float[Tensor, "m t"], rank: int
) -> tuple[_State, float]:
    """A ~ left (A^T left)^T, and what the last half of the oversamples has gained: a hint of what more would."""
    right = operator.rmatmul(left)
    check_finite(right)
    core = torch.linalg.qr(right).R.to(torch.float64)  # the sketch's columns are nested in it
    values = torch.linalg.svdvals(core)
    fewer = rank + (core.shape[1] - rank) // 2
    without = torch.linalg.svdvals(core[:, :fewer])
    gain = _HINT_FACTOR * float(values[:rank].square().sum() - without[:rank].square().sum())
    missed = missed_energy(left, test_images)
    if fewer == core.shape[1]:
        gain = float("inf") if core.shape[1] < min(operator.shape) else 0.0
    return _State(left, right, values, missed), gain


def _from_right(operator: MatrixOperator, right: Float[Tensor, "n l"], earlier: _State) -> _State:
    """A ~ (A right) right^T; |A|^2 is known from before, so what is missed follows without test vectors."""
    left = operator.matmul(right)
    values = torch.linalg.svdvals(torch.linalg.qr(left).R.to(torch.float64))
    gained = float(values.square().sum() - earlier.values.square().sum())
    missed = Missed(max(earlier.missed.mean - gained, 0.0), max(earlier.missed.upper - gained, 0.0))
    return _State(left, right, values, missed)


def _factors(state: _State, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """SVD of left right^T by two QR factorisations and an l x l SVD in float64, in which S stays."""
    Q_left, R_left = torch.linalg.qr(state.left)
    Q_right, R_right = torch.linalg.qr(state.right)
    U, S, Vh = torch.linalg.svd(R_left.to(torch.float64) @ R_right.mT.to(torch.float64))
    dtype = state.left.dtype
    return Q_left @ U[:, :rank].to(dtype), S[:rank], Vh[:rank].to(dtype) @ Q_right.mT


def _seen_from(operator: MatrixOperator, side: str) -> MatrixOperator:
    """A, or its transpose where columns are to be read."""
    if side not in SIDES:
        raise ValueError(f"`side` must be one of {list(SIDES)}. Got {side!r}.")
    if side == "rows":
        return operator
    if isinstance(operator, OutOfCoreOperator):
        raise ValueError(
            '`side` must be "rows" for a memory map or a dask array, which are stored by rows. Got "columns"; '
            "transpose A and exchange U and V."
        )
    return TransposedOperator(operator)


def _check_power_iterations(value: int | str) -> None:
    if isinstance(value, str):
        if value != AUTO:
            raise ValueError(f"`num_power_iterations` must be 'auto' or an integer >= 0. Got {value!r}.")
    else:
        check_count("num_power_iterations", value, least=0)


def _message(why: str, relative: float, upper: float, rtol: float | None) -> str:
    if rtol is None:
        return f"{why} Estimated relative error {relative:.2e}."
    if upper <= rtol:
        return f"Estimated relative error {relative:.2e}, at most {upper:.2e}, within THa tolerance {rtol:.1e}."
    return (
        f"{why} The tolerance {rtol:.1e} is not met: the relative error is estimated as {relative:.2e}, at most "
        f"{upper:.2e}. Allow a higher rank, or more power iterations."
    )
