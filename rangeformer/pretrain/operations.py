"""Symmetric positive definite problems with their exact answers: what models that answer directly learn from.

One batch serves every operation, so that models of different operations see the same matrices.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rangeformer.distributions import DISTRIBUTIONS, draw
from rangeformer.shapes import Float, Tensor

VALIDATION_DISTRIBUTIONS = ("kernel_clustered", "kernel_manifold", "graph_laplacian", "stencil", "wishart")
"""Never trained on by the tasks that answer directly."""
VALIDATION_SEED = 20_240  # the validation matrices are the same in every run, whatever its seed
NOISE_RANGE = (1e-4, 1e-1)  # relative to the mean diagonal: condition numbers up to about 1e4 n


@dataclass(frozen=True)
class OperationBatch:
    """Matrices, right-hand sides and the exact answers, all float64.

    Attributes:
        distributions: The distribution of each member.
        matrix: `(b, n, n)`, symmetric positive definite.
        rhs: `(b, n)`, standard Gaussian.
        solution: `(b, n)`, A^-1 rhs.
        eigenvalues: `(b, n)`, ascending.
        logdet: `(b,)`.
    """

    laws: tuple[str, ...]
    matrix: Float[Tensor, "b n n"]
    rhs: Float[Tensor, "b n"]
    solution: Float[Tensor, "b n"]
    eigenvalues: Float[Tensor, "b n"]
    logdet: Float[Tensor, " b"]


def draw_operations(
    laws: Sequence[str],
    n: int,
    batch_size: int,
    *,
    generator: torch.Generator,
    scale_range: tuple[float, float] = (1.0, 3.0),
    noise_range: tuple[float, float] = NOISE_RANGE,
) -> OperationBatch:
    """Draw problems from a mixture of distributions, on the generator's device.

    Each member is s P (B + noise I) P^T: B from a distribution drawn at random from `laws`, of mean diagonal one, P a
    random permutation of the rows, s uniform in `scale_range`. Answers come from one Cholesky factorisation, and the
    eigenvalues from LAPACK's symmetric eigensolver.

    Args:
        laws: Keys of `rangeformer.distributions.DISTRIBUTIONS`; one that stands twice is drawn twice as often.
        n: Size.
        batch_size: b.
        generator: Source of all randomness; equal seeds on one device give equal problems.
        scale_range: Ends of the uniform distribution of the factor s.
        noise_range: Ends of the log-uniform distribution of the noise, relative to the mean diagonal.

    Returns:
        The problems.

    Raises:
        ValueError: An empty or unknown list of distributions, or a range whose ends are not positive and ascending.

    Example:
        >>> batch = draw_operations(["wishart", "toeplitz"], 20, 3, generator=torch.Generator().manual_seed(0))
        >>> residual = batch.rhs - (batch.matrix @ batch.solution.unsqueeze(-1)).squeeze(-1)
        >>> bool(residual.abs().max() < 1e-9)
        True
    """
    _check(laws, scale_range=scale_range, noise_range=noise_range)
    options = {"generator": generator, "device": generator.device}
    chosen: list[int] = torch.randint(len(laws), (batch_size,), **options).tolist()
    names = tuple(laws[index] for index in chosen)
    drawn = [draw(name, n, generator=generator, noise_range=noise_range).matrix for name in names]
    low, high = scale_range
    scale = low + (high - low) * torch.rand(batch_size, 1, 1, **options, dtype=torch.float64)
    order = torch.rand(batch_size, n, **options).argsort(dim=-1)
    member = torch.arange(batch_size, device=generator.device)[:, None, None]
    matrix = scale * torch.cat(drawn)[member, order[:, :, None], order[:, None, :]]

    rhs = torch.randn(batch_size, n, **options, dtype=torch.float64)
    factor = torch.linalg.cholesky(matrix)
    return OperationBatch(
        laws=names,
        matrix=matrix,
        rhs=rhs,
        solution=torch.cholesky_solve(rhs.unsqueeze(-1), factor).squeeze(-1),
        eigenvalues=torch.linalg.eigvalsh(matrix),
        logdet=2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1),
    )


def draw_validation(
    laws: Sequence[str], sizes: Sequence[int], num_members: int, *, noise_range: tuple[float, float]
) -> list[OperationBatch]:
    """Fixed problems of each distribution at each size, on the CPU.

    Args:
        laws: Keys of `rangeformer.distributions.DISTRIBUTIONS`.
        sizes: Sizes.
        num_members: Matrices of each distribution and size.
        noise_range: As in `draw_operations`.
    """
    generator = torch.Generator().manual_seed(VALIDATION_SEED)
    return [
        draw_operations([law], n, num_members, generator=generator, noise_range=noise_range)
        for n in sizes
        for law in laws
    ]


def check_distributions(laws: Sequence[str], validation_laws: Sequence[str]) -> None:
    """Distributions to train on and others to validate on.

    Raises:
        ValueError: Unknown distributions, none, or one that stands in both.
    """
    unknown = sorted({*laws, *validation_laws} - set(DISTRIBUTIONS))
    if unknown or not laws or not validation_laws:
        raise ValueError(
            f"`laws` and `validation_laws` must each name some of {sorted(DISTRIBUTIONS)}. Unknown: {unknown}."
        )
    if shared := sorted(set(laws) & set(validation_laws)):
        raise ValueError(f"`validation_laws` must be other distributions than `laws`. In both: {shared}.")


def _check(laws: Sequence[str], **ranges: tuple[float, float]) -> None:
    unknown = sorted(set(laws) - set(DISTRIBUTIONS))
    if not laws or unknown:
        raise ValueError(f"`laws` must be one or more of {sorted(DISTRIBUTIONS)}. Got {unknown or 'none'}.")
    for name, (low, high) in ranges.items():
        if not 0 < low <= high:
            raise ValueError(f"`{name}` must be two positive ascending numbers. Got {(low, high)}.")
