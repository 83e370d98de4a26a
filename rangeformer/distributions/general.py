"""Registries of the distributions beside the positive semidefinite ones, and batches drawn from them."""

from collections.abc import Callable

import torch

from rangeformer.distributions.einsum import block_tensor_train, kronecker_product, monarch, tensor_train
from rangeformer.distributions.rectangular import (
    clustered_rows,
    cross_kernel,
    haar_decay,
    image_patches,
    low_rank_plus_noise,
    smooth_field,
    sparse_rows,
    word_counts,
)
from rangeformer.distributions.registry import Distribution
from rangeformer.distributions.square import (
    cauchy,
    companion,
    convection_diffusion,
    gaussian,
    laplace_entries,
    nonnormal,
    sparse_dominant,
    uniform_entries,
    unsymmetric_circulant,
    unsymmetric_toeplitz,
)
from rangeformer.distributions.symmetric import (
    adjacency,
    hankel,
    helmholtz,
    saddle_point,
    signed_spectrum,
    symmetric_kronecker,
    symmetric_toeplitz,
    wigner,
)
from rangeformer.shapes import Float, Tensor

RectangularDistribution = Callable[[int, int, torch.Generator, torch.dtype], Tensor]

_SYMMETRIC: tuple[Distribution, ...] = (
    wigner,
    signed_spectrum,
    symmetric_toeplitz,
    hankel,
    adjacency,
    saddle_point,
    symmetric_kronecker,
    helmholtz,
)
_SQUARE: tuple[Distribution, ...] = (
    gaussian,
    laplace_entries,
    uniform_entries,
    unsymmetric_toeplitz,
    unsymmetric_circulant,
    cauchy,
    convection_diffusion,
    companion,
    sparse_dominant,
    nonnormal,
    kronecker_product,
    tensor_train,
    block_tensor_train,
    monarch,
)
_RECTANGULAR: tuple[RectangularDistribution, ...] = (
    smooth_field,
    image_patches,
    word_counts,
    clustered_rows,
    low_rank_plus_noise,
    haar_decay,
    sparse_rows,
    cross_kernel,
)

SYMMETRIC_DISTRIBUTIONS: dict[str, Distribution] = {law.__name__: law for law in _SYMMETRIC}
"""Symmetric, in general indefinite; each takes (n, generator, dtype)."""
SQUARE_DISTRIBUTIONS: dict[str, Distribution] = {law.__name__: law for law in _SQUARE}
"""Square and unsymmetric; each takes (n, generator, dtype)."""
RECTANGULAR_DISTRIBUTIONS: dict[str, RectangularDistribution] = {law.__name__: law for law in _RECTANGULAR}
"""Rectangular; each takes (m, n, generator, dtype)."""


def draw_matrix(
    law: str,
    shape: tuple[int, int],
    batch_size: int = 1,
    *,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float64,
) -> Float[Tensor, "b m n"]:
    """Draw matrices of Frobenius norm sqrt(min(m, n)) from a distribution, on the generator's device.

    Args:
        law: A key of `SYMMETRIC_DISTRIBUTIONS`, `SQUARE_DISTRIBUTIONS` or `RECTANGULAR_DISTRIBUTIONS`.
        shape: (m, n), both at least 2, and equal unless the distribution is rectangular.
        batch_size: b; each member has its own random parameters.
        generator: Source of all randomness; equal seeds on one device give equal matrices.
        dtype: Of the result.

    Returns:
        `(b, m, n)`; those of `SYMMETRIC_DISTRIBUTIONS` are exactly symmetric.

    Raises:
        ValueError: An unknown distribution, an impossible shape or batch size, or another dtype than float32 and
            float64.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> draw_matrix("word_counts", (200, 50), 4, generator=generator).shape
        torch.Size([4, 200, 50])
    """
    known = {**SYMMETRIC_DISTRIBUTIONS, **SQUARE_DISTRIBUTIONS, **RECTANGULAR_DISTRIBUTIONS}
    if law not in known:
        raise ValueError(
            f"`law` must be one of {sorted(known)}; positive semidefinite distributions are drawn by `draw`. Got "
            f"{law!r}."
        )
    m, n = shape
    if m < 2 or n < 2 or batch_size < 1:
        raise ValueError(f"`shape` must be at least (2, 2) and `batch_size` at least 1. Got {shape} and {batch_size}.")
    if m != n and law not in RECTANGULAR_DISTRIBUTIONS:
        raise ValueError(f"`shape` must be square for {law!r}. Got {shape}; see `RECTANGULAR_DISTRIBUTIONS`.")
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"`dtype` must be torch.float32 or torch.float64; convert afterwards. Got {dtype}.")
    members = []
    while len(members) < batch_size:
        matrix = _one(law, m, n, generator, dtype)
        norm = torch.linalg.matrix_norm(matrix)
        # sparse distributions of very small size may come out zero, which cannot be scaled: draw again
        if norm != 0:
            members.append(matrix * (min(m, n) ** 0.5 / norm))
    return torch.stack(members)


def _one(law: str, m: int, n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    if law in RECTANGULAR_DISTRIBUTIONS:
        return RECTANGULAR_DISTRIBUTIONS[law](m, n, generator, dtype)
    if law in SQUARE_DISTRIBUTIONS:
        return SQUARE_DISTRIBUTIONS[law](n, generator, dtype)
    matrix = SYMMETRIC_DISTRIBUTIONS[law](n, generator, dtype)
    return (matrix + matrix.mT) / 2
