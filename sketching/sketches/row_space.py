"""What the rows that were read span: leading right singular vectors, exactly, or fast where rows are long or many.

A long table is only ever multiplied; what is decomposed are Gram matrices of c x c numbers. That squares the condition
number: callers that ask for it in float32 check how deep the eigenvalues reach, and take float64, or QR, where it is
too deep.
"""

import torch

from rangeformer.randomness import draw_normal
from rangeformer.shapes import Float, Tensor

_MOST_GRAM = 256  # columns up to which R^T R is decomposed as a whole
_OVERSAMPLES = 16  # of the iteration
_MARGIN = 32  # more rows than the vectors wanted and these are worth an iteration instead of a decomposition


def leading_right_vectors(rows: Float[Tensor, "c n"], count: int) -> Float[Tensor, "n k"]:
    """The at most `count` leading right singular vectors, none of them past the numerical rank.

    Args:
        rows: R, float64.
        count: Most vectors.
    """
    # QR of R^T first: the SVD then is of a c x c matrix, and keeps the small singular values that a Gram matrix loses
    Q, C = torch.linalg.qr(rows.mT)
    U, S, _ = torch.linalg.svd(C)
    kept = int((S[:count] > 1e-12 * S[0]).sum())
    return Q @ U[:, :kept]


def small_gram(rows: Float[Tensor, "c n"]) -> Float[Tensor, "c c"]:
    """R R^T in float64.

    Args:
        rows: R.
    """
    return (rows @ rows.mT).to(torch.float64)


def leading_eigenvectors(
    gram: Float[Tensor, "c c"], count: int, generator: torch.Generator, *, num_steps: int = 3
) -> tuple[Float[Tensor, "c k"], Float[Tensor, " k"]]:
    """At most `count` leading eigenvectors of R R^T, and their eigenvalues, in descending order.

    Of many rows by subspace iteration on it, three power iterations on R (Halko, Martinsson & Tropp 2011, Algorithm
    4.4) at the price of small products.

    Args:
        gram: R R^T.
        count: k.
        generator: Source of the iteration's starting vectors.
        num_steps: Of the iteration.
    """
    c = len(gram)
    if c <= count + _MARGIN:
        values, U = torch.linalg.eigh(gram)
        return U[:, -count:].flip(-1), values[-count:].flip(-1)
    basis = draw_normal((c, count + _OVERSAMPLES), generator, dtype=gram.dtype, device=gram.device)
    scale = gram.diagonal().max().clamp_min(torch.finfo(gram.dtype).tiny)
    gram = gram / scale
    for _ in range(num_steps):
        basis = torch.linalg.qr(gram @ basis).Q
    values, V = torch.linalg.eigh(basis.mT @ gram @ basis)
    return basis @ V[:, -count:].flip(-1), scale * values[-count:].flip(-1)


def core_rows(rows: Float[Tensor, "c n"], count: int, generator: torch.Generator) -> Float[Tensor, "k n"]:
    """At most `count` combinations of rows, orthogonal and longest first, that hold the leading right singular vectors.

    Args:
        rows: R.
        count: k.
        generator: As for `leading_eigenvectors`.
    """
    c, n = rows.shape
    if n <= min(c, _MOST_GRAM):
        values, V = torch.linalg.eigh(small_gram(rows.mT))
        return (V * values.clamp_min(0).sqrt()).mT.flip(0)[:count].to(rows.dtype)
    U, _ = leading_eigenvectors(small_gram(rows), count, generator)
    return U.mT.to(rows.dtype) @ rows
