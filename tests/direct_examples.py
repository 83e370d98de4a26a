"""The families that the direct heads must get right, symmetric positive definite and not."""

import torch
from helpers import normal


def entries(n: int) -> dict[str, torch.Tensor]:
    """Unstructured and structured tables of numbers, none of them symmetric on purpose."""
    lag = (torch.arange(n)[:, None] - torch.arange(n)[None]).abs()
    p = next(d for d in range(int(n**0.5), 0, -1) if n % d == 0)
    return {
        "low_rank": normal(n, max(n // 10, 2), seed=1) @ normal(max(n // 10, 2), n, seed=2) / n**0.5,
        "toeplitz": normal(n, seed=3)[lag],
        "kronecker": torch.kron(normal(p, p, seed=4), normal(n // p, n // p, seed=5)),
        "gaussian": normal(n, n, seed=6),
    }


def positive_definite(n: int) -> dict[str, torch.Tensor]:
    """SPD matrices with condition below 1e8."""
    identity = torch.eye(n, dtype=torch.float64)
    grams = {name: G @ G.mT / n + 1e-4 * identity for name, G in entries(n).items()}
    spread = torch.diag(torch.logspace(-7, 0, n, dtype=torch.float64))
    return {"identity": identity, "diagonal": spread, **{name: (G + G.mT) / 2 for name, G in grams.items()}}


def indefinite(n: int) -> dict[str, torch.Tensor]:
    """Symmetric matrices with eigenvalues of both signs, condition below 1e8."""
    found = {name: G + G.mT for name, G in entries(n).items() if name != "low_rank"}
    signs = torch.where(torch.arange(n) % 3 == 0, -1.0, 1.0).to(torch.float64)
    return {"diagonal": torch.diag(signs * torch.logspace(-6, 0, n, dtype=torch.float64)), **found}
