"""Randomised singular value decomposition with a Gaussian sketch and an error estimate.

Halko, Martinsson & Tropp, "Finding structure with randomness", SIAM Review 2011, Algorithms 4.4 and 5.1. The error is
estimated from a few Gaussian vectors that ride along in the last product with A and take no part in the range: the mean of
||(I - Q Q^T) A w||^2 is the squared Frobenius error of the range, whatever the sketch was.
"""

from dataclasses import dataclass
from typing import Any

import torch

from rangeformer import MatrixOperator, as_operator
from rangeformer.randomness import SKETCH, generator_or_default
from rangeformer.shapes import Float, Tensor
from rangeformer.validation import check_count

_NUM_TEST_VECTORS = 8


@dataclass(frozen=True)
class LowRank:
    """A ~ U diag(S) Vh, and what is known of the error.

    Attributes:
        U: `(m, rank)` orthonormal columns.
        S: `(rank,)` descending.
        Vh: `(rank, n)` orthonormal rows.
        relative_error: Estimate of ||A - U diag(S) Vh||_F / ||A||_F.
        num_passes: Times A was read as a whole.
        num_matvecs: Vectors multiplied by A or A.mT.
    """

    U: Float[Tensor, "m r"]
    S: Float[Tensor, " r"]
    Vh: Float[Tensor, "r n"]
    relative_error: float
    num_passes: int
    num_matvecs: int


def randomized_svd(
    A: Any,
    rank: int,
    *,
    num_oversamples: int = 10,
    num_power_iterations: int = 0,
    generator: torch.Generator | None = None,
) -> LowRank:
    """The leading singular triplets of A from a Gaussian sketch.

    Args:
        A: `(m, n)` matrix that can be multiplied from both sides; see `rangeformer.as_operator`.
        rank: Triplets wanted (Halko's k, scikit-learn's n_components), at most min(m, n).
        num_oversamples: Extra sketch columns (Halko's p).
        num_power_iterations: Re-orthonormalised multiplications by A A.mT (Halko's q, scikit-learn's n_iter), two passes each.
        generator: Source of the sketch; a fixed one if None.

    Returns:
        The factors in A's dtype with an estimate of the error.

    Raises:
        ValueError: If A is a batch, or a count is impossible.

    References:
        Halko, Martinsson & Tropp 2011, Algorithms 4.4 and 5.1.

    Example:
        >>> import torch, sketching
        >>> A = torch.outer(torch.arange(1.0, 9.0), torch.ones(5))
        >>> low_rank = sketching.randomized_svd(A, 1, generator=torch.Generator().manual_seed(0))
        >>> bool(torch.allclose((low_rank.U * low_rank.S) @ low_rank.Vh, A, atol=1e-4)), low_rank.num_passes
        (True, 2)
    """
    operator = as_operator(A)
    m, n = operator.shape[-2:]
    if operator.batch_shape:
        raise ValueError(f"`A` must be one matrix (m, n). Got {tuple(operator.shape)}; loop over the batch.")
    check_count("rank", rank, least=1)
    check_count("num_oversamples", num_oversamples, least=0)
    check_count("num_power_iterations", num_power_iterations, least=0)
    if rank > min(m, n):
        raise ValueError(f"`rank` must be at most min(m, n) = {min(m, n)}. Got {rank}.")
    generator = generator_or_default(generator, SKETCH)
    before = operator.reads.snapshot()
    with torch.no_grad():
        size = min(rank + num_oversamples, m, n)
        sketch = _gaussian(operator, size, generator)
        test_vectors = _gaussian(operator, _NUM_TEST_VECTORS, generator)
        for _ in range(num_power_iterations):
            left = torch.linalg.qr(operator.matmul(sketch)).Q
            sketch = torch.linalg.qr(operator.rmatmul(left)).Q
        image, test_image = operator.matmul(torch.cat([sketch, test_vectors], -1)).tensor_split([size], -1)
        Q = torch.linalg.qr(image).Q
        U, S, Vh = torch.linalg.svd(operator.rmatmul(Q).mT, full_matrices=False)
        outside = (test_image - Q @ (Q.mT @ test_image)).to(torch.float64)
        left_out = outside.square().sum(0).mean()
    reads = operator.reads.since(before)
    truncated = S[rank:].to(torch.float64).square().sum()
    kept = S.to(torch.float64).square().sum()
    total = (kept + left_out).clamp_min(torch.finfo(torch.float64).tiny)
    return LowRank(
        U=Q @ U[:, :rank],
        S=S[:rank],
        Vh=Vh[:rank],
        relative_error=float(((left_out + truncated) / total).sqrt()),
        num_passes=reads.passes,
        num_matvecs=reads.matvecs,
    )


def _gaussian(operator: MatrixOperator, size: int, generator: torch.Generator | None) -> Tensor:
    device = generator.device if generator is not None else torch.device("cpu")
    shape = (operator.num_columns, size)
    draw = torch.randn(shape, generator=generator, dtype=operator.dtype, device=device)
    return draw.to(operator.device)
