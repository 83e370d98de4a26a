"""The classical rival at equal reads: right singular vectors of a few rows of A (Frieze, Kannan & Vempala 2004)."""

import torch

from rangeformer.deprecation import warn_renamed
from rangeformer.operators import MatrixOperator
from rangeformer.shapes import Tensor
from sketching.sketches.base import Sketch, default_max_rows, filled
from sketching.sketches.reading import scaled, uniform_rows
from sketching.sketches.row_space import leading_right_vectors

DISTRIBUTIONS = ("uniform", "norm")


class SampledRowSpace(Sketch):
    """Leading right singular vectors of c sampled rows, filled up with Gaussian columns.

    Args:
        distribution: "uniform", or "norm": probability proportional to the squared row norms, which costs reading all
            of A once.
        law: The former name of `distribution`; deprecated.
    """

    looks = True

    def __init__(self, distribution: str = "uniform", *, law: str | None = None):
        if law is not None:
            warn_renamed("`law`", "`distribution`")
            distribution = law
        if distribution not in DISTRIBUTIONS:
            raise ValueError(f"`distribution` must be one of {DISTRIBUTIONS}. Got {distribution!r}.")
        self.distribution = distribution

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
        count = default_max_rows(operator, num_columns) if max_rows is None else max_rows
        count = min(count, operator.num_rows)
        if self.distribution == "uniform":
            rows = uniform_rows(operator, count, generator).rows
        else:
            rows = _rows_by_norm(operator, count, generator)
        rows = rows.to(torch.float64)
        return filled(leading_right_vectors(rows, num_columns), num_columns, generator, dtype=operator.dtype)


def _rows_by_norm(operator: MatrixOperator, count: int, generator: torch.Generator) -> Tensor:
    """Rows drawn with replacement by squared norm, each over the root of its probability."""
    norms = []
    for index in torch.arange(operator.num_rows, device=operator.device).split(1024):
        norms.append(torch.linalg.vector_norm(operator.rows(index).to(torch.float64), dim=-1))
    norm = torch.cat(norms)
    norm = norm / norm.max() if bool(norm.max() > 0) else torch.ones_like(norm)
    distribution = norm.square() / norm.square().sum()
    index = torch.multinomial(distribution.to(generator.device), count, replacement=True, generator=generator)
    index = index.to(operator.device)
    return scaled(operator.rows(index), 1 / distribution[index])
