"""The registry of the distributions, and batches drawn from them.

`DISTRIBUTIONS` holds the distributions of symmetric positive semidefinite matrices, each a function of (n, generator,
dtype) that returns one B. `KERNEL_DISTRIBUTIONS`, `ALGEBRAIC_DISTRIBUTIONS`, `PAPER_DISTRIBUTIONS`,
`PATTERN_DISTRIBUTIONS` and `ENGINEERING_DISTRIBUTIONS` list its parts; the features' pretraining draws from the first
two, so that a new distribution needs a place in another one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from rangeformer.distributions.beams import beam, frame
from rangeformer.distributions.einsum import (
    einsum_block_tensor_train,
    einsum_kronecker,
    einsum_low_rank,
    einsum_monarch,
    einsum_tensor_train,
)
from rangeformer.distributions.elements import plate, stencil, triangles
from rangeformer.distributions.entries import gram_gaussian, gram_laplace, gram_uniform, wishart
from rangeformer.distributions.graphs import graph_laplacian, power_network
from rangeformer.distributions.kernels import (
    kernel_clustered,
    kernel_discretised,
    kernel_gaussian,
    kernel_grid,
    kernel_heavy_tailed,
    kernel_manifold,
    kernel_periodic,
    kernel_uniform,
    kernel_warped,
    rbf_line,
)
from rangeformer.distributions.patterns import (
    banded,
    block_diagonal,
    block_tridiagonal,
    cauchy_gram,
    circulant,
    hankel_moments,
    toeplitz,
)
from rangeformer.distributions.products import badly_scaled, kronecker
from rangeformer.distributions.sampling import rand
from rangeformer.distributions.spectra import (
    decay_cosine,
    decay_logarithm,
    decay_logistic,
    decay_power,
    decay_ramp,
    low_rank,
    spectral_decay,
)
from rangeformer.shapes import Float, Tensor

Distribution = Callable[[int, torch.Generator, torch.dtype], Tensor]

_KERNELS: tuple[Distribution, ...] = (
    kernel_uniform,
    kernel_gaussian,
    kernel_clustered,
    kernel_grid,
    kernel_discretised,
    kernel_manifold,
    kernel_heavy_tailed,
    kernel_periodic,
    kernel_warped,
)
_ALGEBRAIC: tuple[Distribution, ...] = (
    spectral_decay,
    low_rank,
    wishart,
    graph_laplacian,
    stencil,
    toeplitz,
    kronecker,
    badly_scaled,
)
_PAPER: tuple[Distribution, ...] = (
    decay_power,
    decay_cosine,
    decay_logistic,
    decay_logarithm,
    decay_ramp,
    rbf_line,
    einsum_kronecker,
    einsum_low_rank,
    einsum_tensor_train,
    einsum_block_tensor_train,
    einsum_monarch,
    gram_gaussian,
    gram_laplace,
    gram_uniform,
)
_PATTERNS: tuple[Distribution, ...] = (
    circulant,
    hankel_moments,
    cauchy_gram,
    banded,
    block_diagonal,
    block_tridiagonal,
)
_ENGINEERING: tuple[Distribution, ...] = (triangles, plate, beam, frame, power_network)


def _names(laws: tuple[Callable[..., Tensor], ...]) -> tuple[str, ...]:
    return tuple(law.__name__ for law in laws)


KERNEL_DISTRIBUTIONS = _names(_KERNELS)
ALGEBRAIC_DISTRIBUTIONS = _names(_ALGEBRAIC)
PAPER_DISTRIBUTIONS = _names(_PAPER)
"""The training distributions of the paper's RangeFormer, as positive semidefinite matrices."""
PATTERN_DISTRIBUTIONS = _names(_PATTERNS)
"""Patterns of equal and of zero entries."""
ENGINEERING_DISTRIBUTIONS = _names(_ENGINEERING)
"""Stiffness matrices and networks."""
DISTRIBUTIONS: dict[str, Distribution] = {
    law.__name__: law for law in (*_KERNELS, *_ALGEBRAIC, *_PAPER, *_PATTERNS, *_ENGINEERING)
}


@dataclass(frozen=True)
class StructuredMatrices:
    """A batch of matrices from one distribution.

    Attributes:
        distribution: Its name.
        matrix: `(b, n, n)`, A = B + noise I.
        noise: `(b,)`.
    """

    law: str
    matrix: Float[Tensor, "b n n"]
    noise: Float[Tensor, " b"]


def draw(
    law: str,
    n: int,
    batch_size: int = 1,
    *,
    generator: torch.Generator,
    noise_range: tuple[float, float] = (1e-4, 1.0),
    dtype: torch.dtype = torch.float64,
) -> StructuredMatrices:
    """Draw matrices from a distribution, on the generator's device.

    Args:
        law: A key of `DISTRIBUTIONS`.
        n: Size.
        batch_size: b.
        generator: Source of all randomness; equal seeds on one device give equal matrices.
        noise_range: Ends of the log-uniform distribution of the noise, relative to the mean diagonal.
        dtype: Of the result.

    Returns:
        The matrices, exactly symmetric.

    Raises:
        ValueError: An unknown distribution, or a size or batch size that is too small.

    Example:
        >>> draw("beam", 30, 4, generator=torch.Generator().manual_seed(0)).matrix.shape
        torch.Size([4, 30, 30])
    """
    if law not in DISTRIBUTIONS:
        raise ValueError(f"`law` must be one of {sorted(DISTRIBUTIONS)}. Got {law!r}.")
    if n < 2 or batch_size < 1:
        raise ValueError(f"`n` must be at least 2 and `batch_size` at least 1. Got {n} and {batch_size}.")
    members = []
    for _ in range(batch_size):
        matrix = DISTRIBUTIONS[law](n, generator, dtype)
        matrix = (matrix + matrix.mT) / 2
        members.append(matrix / matrix.diagonal().mean())
    matrices = torch.stack(members)
    low, high = (math.log(x) for x in noise_range)
    noise = (low + (high - low) * rand(batch_size, generator=generator, dtype=dtype)).exp()
    matrices.diagonal(dim1=-2, dim2=-1).add_(noise.unsqueeze(-1))
    return StructuredMatrices(law, matrices, noise)
