"""Training and validation problems: a structured matrix, its pivot columns, and the truth to be proposed."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rangeformer.distributions import draw
from rangeformer.operators import as_operator
from rangeformer.preconditioners.pivoted import pivoted_cholesky
from rangeformer.shapes import Float, Tensor


@dataclass(frozen=True)
class Problem:
    """What the model sees, and what it should find; float64 but for the tables of n^2 numbers.

    Attributes:
        distributions: Name of each matrix's distribution.
        factor: F, `(b, n, c)`.
        residual_diagonal: `(b, n)` diagonal of A - noise - F F^T.
        diagonal: `(b, n)` as the model is given it.
        kernel: A - noise, `(b, n, n)`, float32.
        residual: R = A - F F^T, `(b, n, n)`.
        correlation: rho_ij^2 = R_ij^2 / (R_ii R_jj), zero on the diagonal, `(b, n, n)`, float32.
    """

    laws: tuple[str, ...]
    factor: Float[Tensor, "b n c"]
    residual_diagonal: Float[Tensor, "b n"]
    diagonal: Float[Tensor, "b n"]
    kernel: Float[Tensor, "b n n"]
    residual: Float[Tensor, "b n n"]
    correlation: Float[Tensor, "b n n"]


def make_problem(
    laws: Sequence[str], n: int, num_columns: int, *, noisy_diagonal: bool, generator: torch.Generator
) -> Problem:
    """Draw one matrix of each distribution, in a random row order, and read their pivot columns.

    Args:
        laws: Keys of `rangeformer.distributions.DISTRIBUTIONS`, one for each of the b matrices.
        n: Size of all.
        num_columns: c.
        noisy_diagonal: Give the model the diagonal of A, or that of A - noise; callers may know either.
        generator: Source of everything random.
    """
    drawn = [draw(law, n, generator=generator) for law in laws]
    order = torch.randperm(n, generator=generator, device=generator.device)
    matrix = torch.cat([x.matrix for x in drawn])[:, order][:, :, order]
    noise = torch.cat([x.noise for x in drawn])[:, None].expand(-1, n)
    pivoted = pivoted_cholesky(as_operator(matrix), num_columns, noise=noise, generator=generator)
    residual = matrix - pivoted.factor @ pivoted.factor.mT
    diagonal = pivoted.residual_diagonal + noise
    residual.diagonal(dim1=-2, dim2=-1).copy_(diagonal)
    correlation = residual.square() / (diagonal[:, :, None] * diagonal[:, None, :])
    correlation.diagonal(dim1=-2, dim2=-1).zero_()
    kernel = matrix.to(torch.float32)
    kernel.diagonal(dim1=-2, dim2=-1).sub_(noise.to(torch.float32))
    return Problem(
        laws=tuple(laws),
        factor=pivoted.factor,
        residual_diagonal=pivoted.residual_diagonal,
        diagonal=pivoted.diagonal + noise if noisy_diagonal else pivoted.diagonal,
        kernel=kernel,
        residual=residual,
        correlation=correlation.to(torch.float32),
    )
