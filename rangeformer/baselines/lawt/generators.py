"""Random matrices: independent coefficients, symmetric (Wigner) matrices, and seven distributions of the eigenvalues.

Every distribution has eigenvalues of standard deviation sigma = sqrt(n) A / sqrt(3), that of a Wigner matrix of
coefficients uniform on [-A, A]; Marchenko-Pastur is another construction.

References:
    Charton, Linear algebra with transformers, TMLR 2022, arXiv:2112.01898, sections 2 and 5; What is my math
    transformer doing?, 2022, arXiv:2211.00170.
"""

from collections.abc import Sequence

import torch

from rangeformer.shapes import Float, Tensor

COEFFICIENTS = ("uniform", "gaussian")
SPECTRAL_DISTRIBUTIONS = (
    "semicircle",
    "uniform",
    "gaussian",
    "laplace",
    "abs_semicircle",
    "abs_laplace",
    "marchenko_pastur",
)
POSITIVE_DISTRIBUTIONS = ("abs_semicircle", "abs_laplace", "marchenko_pastur")


def draw_scales(bounds: tuple[int, int], count: int, generator: torch.Generator) -> Float[Tensor, " b"]:
    """A of each matrix: a uniform integer between the bounds, both included."""
    low, high = bounds
    drawn = torch.randint(low, high + 1, (count,), generator=generator, device=generator.device)
    return drawn.double()


def coefficients(
    scales: Float[Tensor, " b"], shape: tuple[int, int], kind: str, generator: torch.Generator
) -> Float[Tensor, "b m n"]:
    """Independent entries, uniform on [-A, A] or Gaussian of the same standard deviation A / sqrt(3).

    Raises:
        ValueError: If `kind` is neither.
    """
    if kind not in COEFFICIENTS:
        raise ValueError(f"`kind` must be one of {list(COEFFICIENTS)}. Got {kind!r}.")
    size = (len(scales), *shape)
    if kind == "uniform":
        unit = 2 * torch.rand(size, generator=generator, device=generator.device, dtype=torch.float64) - 1
    else:
        unit = torch.randn(size, generator=generator, device=generator.device, dtype=torch.float64) / 3**0.5
    return scales.view(-1, 1, 1) * unit


def with_signs(
    entries: Float[Tensor, "b m n"], negative_share: float, generator: torch.Generator
) -> Float[Tensor, "b m n"]:
    """The absolute values of entries, each negative with the given probability."""
    drawn = torch.rand(entries.shape, generator=generator, device=generator.device)
    return entries.abs() * torch.where(drawn < negative_share, -1.0, 1.0)


def wigner(scales: Float[Tensor, " b"], n: int, kind: str, generator: torch.Generator) -> Float[Tensor, "b n n"]:
    """Symmetric: the lower triangle of independent entries, mirrored; diagonal and off-diagonal of one variance."""
    lower = coefficients(scales, (n, n), kind, generator).tril()
    return lower + lower.tril(-1).mT


def symmetric(
    law: str, scales: Float[Tensor, " b"], n: int, kind: str, generator: torch.Generator
) -> Float[Tensor, "b n n"]:
    """Symmetric matrices whose eigenvalues follow a distribution, with the eigenvectors of Wigner matrices.

    For every distribution but the semicircle (a Wigner matrix W = V L V^T itself) and Marchenko-Pastur (X^T X, X of
    entries of the scale sqrt(A)), the matrix is V^T D V with new independent eigenvalues D; "abs_semicircle" takes |L|.

    Args:
        law: One of `SPECTRAL_DISTRIBUTIONS`.
        scales: A of each matrix, `(b,)`.
        n: Rows.
        kind: Distribution of the coefficients of W and X.
        generator: Source of everything random, on the device of `scales`.

    Raises:
        ValueError: If the distribution is unknown.

    Example:
        >>> import torch
        >>> from rangeformer.baselines.lawt.generators import symmetric
        >>> generator = torch.Generator().manual_seed(0)
        >>> symmetric("laplace", torch.full((3,), 10.0, dtype=torch.float64), 5, "uniform", generator).shape
        torch.Size([3, 5, 5])
    """
    if law not in SPECTRAL_DISTRIBUTIONS:
        raise ValueError(f"`law` must be one of {list(SPECTRAL_DISTRIBUTIONS)}. Got {law!r}.")
    if law == "marchenko_pastur":
        X = coefficients(scales.sqrt(), (n, n), kind, generator)
        return X.mT @ X
    W = wigner(scales, n, kind, generator)
    if law == "semicircle":
        return W
    L, V = torch.linalg.eigh(W)
    if law == "abs_semicircle":
        D = L.abs()
    else:
        sigma = (n**0.5 / 3**0.5 * scales).unsqueeze(-1)
        D = sigma * _unit_eigenvalues(law, L.shape, generator)
    M = (V.mT * D.unsqueeze(-2)) @ V
    return (M + M.mT) / 2


def mixture(
    laws: Sequence[str], scales: Float[Tensor, " b"], n: int, kind: str, generator: torch.Generator
) -> Float[Tensor, "b n n"]:
    """Symmetric matrices, the distribution of each drawn from `laws`."""
    if len(laws) == 1:
        return symmetric(laws[0], scales, n, kind, generator)
    chosen = torch.randint(len(laws), scales.shape, generator=generator, device=generator.device)
    matrices = scales.new_empty(len(scales), n, n)
    for index, law in enumerate(laws):
        members = chosen == index
        matrices[members] = symmetric(law, scales[members], n, kind, generator)
    return matrices


def _unit_eigenvalues(law: str, shape: torch.Size, generator: torch.Generator) -> Float[Tensor, "b n"]:
    """Independent, of standard deviation one (before the absolute value is taken)."""
    if law == "gaussian":
        return torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float64)
    centred = torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float64) - 0.5
    if law == "uniform":
        return 2 * 3**0.5 * centred
    # Laplace of scale 1 / sqrt(2), by inversion; 2 |centred| = 1 has probability 2^-53 and is moved by one ulp
    tail = (1 - 2 * centred.abs()).clamp_min(torch.finfo(torch.float64).eps / 2)
    laplace = -centred.sign() * tail.log() / 2**0.5
    return laplace.abs() if law == "abs_laplace" else laplace
