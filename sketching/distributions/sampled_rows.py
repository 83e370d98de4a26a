"""The classical rival at equal reads: right singular vectors of a few rows of A (Frieze, Kannan & Vempala 2004)."""

import torch

from rangeformer.operators import MatrixOperator
from rangeformer.shapes import Float, Tensor
from sketching.distributions.base import Sketch, default_max_rows, filled, normal
from sketching.distributions.reading import scaled, uniform_rows

LAWS = ("uniform", "norm")
_MOST_GRAM = 256  # rows or columns up to which their Gram matrix is decomposed as a whole


class SampledRowSpace(Sketch):
    """Leading right singular vectors of c sampled rows, filled up with Gaussian columns.

    Args:
        law: "uniform", or "norm": probability proportional to the squared row norms, which costs reading all of A once.
    """

    def __init__(self, law: str = "uniform"):
        if law not in LAWS:
            raise ValueError(f"`law` must be one of {LAWS}. Got {law!r}.")
        self.law = law

    def draw(
        self,
        operator: MatrixOperator,
        num_columns: int,
        *,
        max_rows: int | None = None,
        generator: torch.Generator,
    ) -> Tensor:
        """See `Sketch.draw`.

        Raises:
            NotImplementedError: If A is known through products alone.
        """
        count = default_max_rows(operator.num_rows, num_columns) if max_rows is None else max_rows
        count = min(count, operator.num_rows)
        if self.law == "uniform":
            rows = uniform_rows(operator, count, generator).rows
        else:
            rows = _rows_by_norm(operator, count, generator)
        return filled(leading_right_vectors(rows, num_columns), num_columns, generator, dtype=operator.dtype)


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


def core_rows(rows: Float[Tensor, "c n"], count: int, generator: torch.Generator) -> Float[Tensor, "k n"]:
    """At most `count` combinations of rows that hold (nearly) the leading right singular vectors of all of them.

    The eigenvectors of the smaller of the Gram matrices R R^T and R^T R, or, for many rows, a randomised range of R after one power iteration
    (Halko, Martinsson & Tropp 2011, Algorithm 4.4): what it loses is small beside what the sampling itself does.

    Args:
        rows: R, float64.
        count: k.
        generator: Source of the range's starting vectors.
    """
    c, n = rows.shape
    if c <= count:
        return rows
    if n <= min(c, _MOST_GRAM):
        values, V = torch.linalg.eigh(rows.mT @ rows)
        return (V * values.clamp_min(0).sqrt()).mT[-count:]
    if c <= _MOST_GRAM:
        U = torch.linalg.eigh(rows @ rows.mT).eigenvectors[:, -count:]
    else:
        start = normal((c, count), generator, dtype=rows.dtype, device=rows.device)
        U = torch.linalg.qr(rows @ (rows.mT @ start)).Q
    return U.mT @ rows


def _rows_by_norm(operator: MatrixOperator, count: int, generator: torch.Generator) -> Tensor:
    """Rows drawn with replacement by squared norm, each over the root of its probability."""
    norms = []
    for index in torch.arange(operator.num_rows, device=operator.device).split(1024):
        norms.append(torch.linalg.vector_norm(operator.rows(index).to(torch.float64), dim=-1))
    norm = torch.cat(norms)
    norm = norm / norm.max() if bool(norm.max() > 0) else torch.ones_like(norm)
    law = norm.square() / norm.square().sum()
    index = torch.multinomial(law.to(generator.device), count, replacement=True, generator=generator)
    index = index.to(operator.device)
    return scaled(operator.rows(index), 1 / law[index])
