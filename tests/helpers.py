"""Matrices with a known answer, and the one tolerance rule of the tests."""

import warnings
from contextlib import contextmanager

import torch

from rangeformer.distributions import SHAPES
from rangeformer.results import ConvergenceWarning

NAMES = ["rangeformer", "rangeformer-untrained", "rpcholesky", "pivoted-cholesky", "nystrom", None]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64).to(dtype)


def points(n: int, d: int, *, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, d, generator=seeded(seed), dtype=torch.float64)


def kernel(
    n: int,
    *,
    lengthscale: float = 0.3,
    noise: float = 1e-2,
    d: int = 2,
    shape: str = "matern32",
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> torch.Tensor:
    """k(x, x) + noise I of uniform points in the unit cube."""
    x = points(n, d, seed=seed) / lengthscale
    distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    return (SHAPES[shape](distance) + noise * torch.eye(n, dtype=torch.float64)).to(dtype)


def with_spectrum(eigenvalues: torch.Tensor, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """A symmetric matrix with exactly these eigenvalues up to rounding, Haar eigenvectors."""
    n = eigenvalues.shape[-1]
    Q = torch.linalg.qr(normal(n, n, seed=seed)).Q
    A = (Q * eigenvalues.to(torch.float64)) @ Q.mT
    return ((A + A.mT) / 2).to(dtype)


def conditioned(n: int, cond: float, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Log-uniform eigenvalues between 1 / cond and 1."""
    return with_spectrum(torch.logspace(0, -torch.log10(torch.tensor(cond)).item(), n), seed=seed, dtype=dtype)


def assert_solved(x: torch.Tensor, x_true: torch.Tensor, *, cond: float, factor: float = 10) -> None:
    """The relative error is what dtype and conditioning allow."""
    err = torch.linalg.vector_norm(x - x_true) / torch.linalg.vector_norm(x_true)
    assert err <= factor * cond * torch.finfo(x.dtype).eps, f"relative error {err:.2e}, {cond=:.0e}"


def relative_residuals(A: torch.Tensor, x: torch.Tensor, rhs: torch.Tensor) -> torch.Tensor:
    """||rhs - A x|| / ||rhs|| per column in float64, safe from overflow."""
    A, x, rhs = A.double(), x.double(), rhs.double()
    size = rhs.abs().amax(-2, keepdim=True)
    size = torch.where(size > 0, size, torch.ones_like(size))
    residual = (rhs - A @ x) / size
    norms = torch.linalg.vector_norm(rhs / size, dim=-2)
    return torch.linalg.vector_norm(residual, dim=-2) / torch.where(norms > 0, norms, torch.ones_like(norms))


@contextmanager
def convergence_warnings_ignored():
    """For checks of what the result says where the warning itself is tested elsewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


class CountingMatmul:
    """A dense matrix as a callable that keeps its own ledger."""

    def __init__(self, matrix: torch.Tensor):
        self.matrix, self.passes, self.matvecs = matrix, 0, 0

    def __call__(self, vectors: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        self.matvecs += vectors.shape[-1]
        return self.matrix @ vectors
