"""Trace of a matrix known through its products: every test vector serves both the range and the estimate.

XTrace (Epperly, Tropp & Webber, "XTrace: making the most of every sample in stochastic trace estimation", SIAM Journal
on Matrix Analysis 2024, arXiv:2301.07825, Section 2.1, with the normalisation of Section 2.3). From Y = A Omega = Q R,
l columns, leaving out the vector omega gives a basis Q_ = Q (I - s s^T) without ever forming it, s along the column of
R^-T that belongs to omega, and

    tr_ = tr Q_^T A Q_ + (n - l + 1) x^T A x / |x|^2,   x = (I - Q_ Q_^T) omega,

is unbiased since omega took no part in Q_. The answer is the mean of all l. Vectors must be exchangeable, so no sketch
that has looked at A can take their place; `estimate_trace` is for those.
"""

from typing import Any

import torch

from rangeformer.randomness import SKETCH, draw_normal, generator_or_default
from rangeformer.shapes import Float, Tensor
from rangeformer.validation import check_count, check_square
from sketching.algorithms.error_estimate import check_finite
from sketching.algorithms.trace import TraceEstimate, estimate_of
from sketching.arguments import one_matrix
from sketching.scaled_operator import ScaledOperator

_FEWEST = 4  # products; one vector has nobody to be compared with


def xtrace(A: Any, num_matvecs: int, *, generator: torch.Generator | None = None) -> TraceEstimate:
    """Estimate tr A from at most `num_matvecs` products, half of them with random vectors and half with their range.

    Args:
        A: `(n, n)`, anything `rangeformer.as_operator` reads; products from the right suffice. No symmetry is needed.
        num_matvecs: Products allowed, at least 4; from 2 n on the trace is exact.
        generator: Source of all randomness; a fixed one if None.

    Returns:
        The estimate, with the standard deviation of the leave-one-out estimates over the root of their number.

    Raises:
        TypeError: Wrong type of an argument.
        ValueError: Wrong value of an argument; A not square or not finite.

    References:
        Epperly, Tropp & Webber 2024, arXiv:2301.07825, Sections 2.1 and 2.3.

    Example:
        >>> import torch, sketching
        >>> round(sketching.xtrace(torch.diag(torch.tensor([9.0, 1.0, 0.0, 0.0])), 8).value, 4)
        10.0
    """
    operator = ScaledOperator(one_matrix(A))
    check_square(operator)
    check_count("num_matvecs", num_matvecs, least=_FEWEST)
    n = operator.num_rows
    count = min(num_matvecs // 2, n)
    generator = generator_or_default(generator, SKETCH)
    before = operator.reads.snapshot()
    with torch.no_grad():
        omega = draw_normal((n, count), generator, dtype=operator.dtype, device=operator.device)
        image = operator.matmul(omega)
        check_finite(image)
        Q = torch.linalg.qr(image).Q
        image_Q = operator.matmul(Q)
        estimates = _leave_one_out(*(part.to(torch.float64) for part in (omega, image, Q, image_Q)))
    reads = operator.reads.since(before)
    error = float(estimates.std()) / count**0.5 if count > 1 else 0.0
    return estimate_of(float(estimates.mean()), error, operator.exponent, reads)


def _leave_one_out(
    omega: Float[Tensor, "n l"], image: Float[Tensor, "n l"], Q: Float[Tensor, "n l"], image_Q: Float[Tensor, "n l"]
) -> Float[Tensor, " l"]:
    """tr_ for every vector left out, from A Omega, Q = orth(A Omega) and A Q."""
    n, count = omega.shape
    H, W, S = Q.mT @ image_Q, Q.mT @ omega, _directions_lost(Q.mT @ image)
    kept = W - S * (S * W).sum(0)  # Q_^T omega, in the coordinates of Q
    x, image_x = omega - Q @ kept, image - image_Q @ kept  # formed, for x may be short, and squares of it would cancel
    inside = H.trace() - (S * (H @ S)).sum(0)
    size = x.square().sum(0).clamp_min(torch.finfo(x.dtype).tiny)
    return inside + (n - count + 1) * (x * image_x).sum(0) / size


def _directions_lost(R: Float[Tensor, "l l"]) -> Float[Tensor, "l l"]:
    """Unit columns along those of R^-T: what the range of R loses without each of its columns.

    Where R is singular the range has room to spare: what is lost then are directions outside it, as it should be.
    """
    U, values, Vh = torch.linalg.svd(R)
    limits = torch.finfo(R.dtype)
    floor = (limits.eps * values[0]).clamp_min(limits.tiny)
    S = U @ ((floor / values.clamp_min(floor)).unsqueeze(-1) * Vh)
    return S / torch.linalg.vector_norm(S, dim=0).clamp_min(limits.tiny)
