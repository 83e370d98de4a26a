"""The ten families of matrices on which the paper tests generalisation, at any size, from a generator.

Potapczynski, Ali & Wilson, "Understanding and Relaxing the Limitations of Transformers for Linear Algebra" (ICLR 2026).
Every draw is symmetric, and positive definite but for `zero`. The paper uses A A^T + 1e-4 I "where the operation needs
it"; here that is for all operations alike in the four families whose draws are not positive definite by themselves
(`SQUARED`: diagonal, toeplitz, kronecker, gaussian), so that every operation is asked about the same matrix. `zero` is
exactly zero: its log-determinant and its inverse do not exist, and what should come out is a report that it is
singular.

The last two families are real: the leading block of a Matrix Market matrix and a random projection of one. Without a
folder of them they are made of the distributions in `rangeformer.distributions` that imitate such matrices, of twice
the size asked for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.common.matrices import NamedMatrix
from rangeformer.distributions import DISTRIBUTIONS, draw

SHIFT = 1e-4
LIKE_REAL = ("stencil", "triangles", "plate", "beam", "frame", "power_network")
SPECTRAL_RATIO = 2**0.5


@dataclass(frozen=True)
class Source:
    """Where the families' matrices come from: a folder's real ones, or none."""

    real: Sequence[NamedMatrix] = ()


Family = Callable[[int, torch.Generator, Source], Tensor]


def identity(n: int, generator: torch.Generator, source: Source) -> Tensor:
    """I."""
    return torch.eye(n, dtype=torch.float64)


def diagonal(n: int, generator: torch.Generator, source: Source) -> Tensor:
    """The diagonal matrix of n Gaussian numbers."""
    return torch.diag(_normal(n, generator=generator))


def zero(n: int, generator: torch.Generator, source: Source) -> Tensor:
    """0."""
    return torch.zeros(n, n, dtype=torch.float64)


def low_rank(n: int, generator: torch.Generator, source: Source) -> Tensor:
    """G G^T / r + 1e-4 I, G n x r Gaussian, r the integer nearest to sqrt(n)."""
    rank = round(n**0.5)
    G = _normal(n, rank, generator=generator)
    return G @ G.mT / rank + SHIFT * torch.eye(n, dtype=torch.float64)


def spectral_ratio(n: int, generator: torch.Generator, source: Source) -> Tensor:
    """Q diag(l) Q^T, Q Haar, l_1 = sqrt(2), l_2 = 1, so that l_1 = sqrt(2) l_2, the others uniform in [0.01, 1]."""
    values = 0.01 + 0.99 * torch.rand(n, generator=generator, dtype=torch.float64)
    values[: min(n, 2)] = torch.tensor([SPECTRAL_RATIO, 1.0], dtype=torch.float64)[:n]
    Q = torch.linalg.qr(_normal(n, n, generator=generator)).Q
    return (Q * values) @ Q.mT


def toeplitz(n: int, generator: torch.Generator, source: Source) -> Tensor:
    """A_ij = |g_|i-j||, g Gaussian."""
    column = _normal(n, generator=generator).abs()
    index = torch.arange(n)
    return column[(index[:, None] - index).abs()]


def kronecker(n: int, generator: torch.Generator, source: Source) -> Tensor:
    """S_1 x S_2 of two symmetric Gaussian matrices of p and n / p rows, p the largest divisor of n up to sqrt(n).

    For a prime n: the leading n x n block of the product for n + 1.
    """
    p = max(p for p in range(1, int(n**0.5) + 1) if n % p == 0)
    if p == 1 and n > 3:
        return kronecker(n + 1, generator, source)[:n, :n]
    return torch.kron(_symmetric(p, generator), _symmetric(n // p, generator))


def gaussian(n: int, generator: torch.Generator, source: Source) -> Tensor:
    """n^2 independent standard Gaussian entries."""
    return _normal(n, n, generator=generator)


def leading_block(n: int, generator: torch.Generator, source: Source) -> Tensor:
    """The first n rows and columns of a real matrix, scaled to a largest entry of one in absolute value."""
    return _scaled(_real(n, generator, source)[:n, :n])


def projection(n: int, generator: torch.Generator, source: Source) -> Tensor:
    """V A V^T of a real N x N matrix A, V n x N with random orthonormal rows, scaled as `leading_block`."""
    A = _real(n, generator, source)
    V = torch.linalg.qr(_normal(len(A), n, generator=generator)).Q
    return _scaled(V.mT @ (A @ V))


FAMILIES: dict[str, Family] = {
    "identity": identity,
    "diagonal": diagonal,
    "zero": zero,
    "low rank": low_rank,
    "spectral ratio": spectral_ratio,
    "Toeplitz": toeplitz,
    "Kronecker": kronecker,
    "Gaussian": gaussian,
    "leading block": leading_block,
    "projection": projection,
}
SQUARED = ("diagonal", "Toeplitz", "Kronecker", "Gaussian")
REAL = ("leading block", "projection")


def draw_family(family: str, n: int, generator: torch.Generator, source: Source) -> Tensor:
    """One matrix of a family, (n, n) float64, exactly symmetric.

    A A^T + 1e-4 I of what the families in `SQUARED` draw.
    """
    if family not in FAMILIES:
        raise ValueError(f"`family` must be one of {list(FAMILIES)}. Got {family!r}.")
    A = FAMILIES[family](n, generator, source)
    if family in SQUARED:
        A = A @ A.mT + SHIFT * torch.eye(n, dtype=torch.float64)
    return (A + A.mT) / 2


def _real(n: int, generator: torch.Generator, source: Source) -> Tensor:
    """A real matrix of at least n rows, at random, or one that imitates them."""
    large = [item for item in source.real if item.num_rows >= n]
    if source.real and not large:
        raise ValueError(f"The folder must hold a matrix of at least {n} rows. Got {source.real[-1].num_rows} at most.")
    if large:
        return large[_index(len(large), generator)].dense()
    laws = like_real()
    return draw_like_real(laws[_index(len(laws), generator)], 2 * n, generator)


def like_real() -> list[str]:
    """The distributions that imitate real matrices."""
    return [name for name in LIKE_REAL if name in DISTRIBUTIONS]


def draw_like_real(law: str, n: int, generator: torch.Generator) -> Tensor:
    """One of them, with so little on the diagonal that only a singular draw becomes regular by it, (n, n)."""
    return draw(law, n, generator=generator, noise_range=(1e-6, 1e-6)).matrix[0]


def _index(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator))


def _normal(*shape: int, generator: torch.Generator) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _symmetric(n: int, generator: torch.Generator) -> Tensor:
    A = _normal(n, n, generator=generator)
    return (A + A.mT) / 2


def _scaled(A: Tensor) -> Tensor:
    return A / A.abs().max()
