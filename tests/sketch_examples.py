"""Small matrices of known structure, and what the best approximation of a rank leaves."""

import torch
from helpers import normal, seeded

import rangeformer as rf


def smooth(m: int = 90, n: int = 120, *, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """A kernel between random points of a square: rows are smooth in hidden coordinates, in no visible order."""
    rows, columns = torch.rand(m, 2, generator=seeded(1)), torch.rand(n, 2, generator=seeded(2))
    return torch.exp(-3 * torch.cdist(rows.double(), columns.double())).to(dtype)


def haar(m: int = 120, n: int = 80, *, power: float = 1.0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Singular values j^-power, Haar singular vectors."""
    size = min(m, n)
    U, V = torch.linalg.qr(normal(m, size, seed=3)).Q, torch.linalg.qr(normal(n, size, seed=4)).Q
    return ((U * torch.arange(1, size + 1, dtype=torch.float64) ** -power) @ V.mT).to(dtype)


def optimum(A: torch.Tensor, rank: int) -> float:
    """The least Frobenius error of that rank."""
    return float(torch.linalg.svdvals(A.double())[rank:].square().sum().sqrt())


def excess(A: torch.Tensor, omega: torch.Tensor, rank: int) -> float:
    """Relative excess error of the range of A Omega, truncated."""
    Q = torch.linalg.qr(A @ omega).Q
    kept = torch.linalg.svdvals(Q.mT @ A)[:rank].square().sum()
    return float((A.square().sum() - kept).clamp_min(0).sqrt()) / optimum(A, rank) - 1


def mean_excess(A: torch.Tensor, sketch, rank: int, num_columns: int, *, max_rows: int, seeds: int = 6) -> float:
    operator = rf.as_operator(A)
    draws = [sketch.draw(operator, num_columns, max_rows=max_rows, generator=seeded(seed)) for seed in range(seeds)]
    return sum(excess(A, omega, rank) for omega in draws) / seeds
